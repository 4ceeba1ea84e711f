"""Drop path: in training, whole images are dropped from a branch of the network (Huang et al. 2016)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["StochasticDepth"]


class StochasticDepth(nn.Module):
    """Multiply each image by 0 with probability ``p``, in training; in evaluation the values pass as they are.

    Args:
        p: the probability, in [0, 1].
        mode: "row" draws for each image, "batch" for all of them at once.
        scale_by_keep: divide what is kept by ``1 - p``.
    """

    def __init__(self, p: float, mode: Literal["row", "batch"] = "row", *, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.p, self.mode, self.scale_by_keep = p, mode, scale_by_keep

    def forward(self, values: Tensor) -> Tensor:
        """``[B, ...]``, and the same."""
        if not self.training or self.p == 0:
            return values
        keep = 1 - self.p
        count = len(values) if self.mode == "row" else 1
        mask = torch.empty((count, *[1] * (values.dim() - 1)), dtype=values.dtype, device=values.device)
        mask.bernoulli_(keep)
        return values * (mask / keep if self.scale_by_keep and keep > 0 else mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"p={self.p}, mode={self.mode!r}"
