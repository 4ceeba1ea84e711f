"""What one comparison is about: network, T, precision, batch and device, the same for every contestant."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LEAK", "PRECISIONS", "SURROGATE_SLOPE", "THRESHOLD", "Setting"]

PRECISIONS = ("float32", "bf16")
LEAK, THRESHOLD, SURROGATE_SLOPE = 0.5, 1.0, 4.0


@dataclass(frozen=True)
class Setting:
    """One comparison's conditions.

    Attributes:
        network: a name of ``networks.NETWORKS``.
        timesteps: T.
        precision: "float32", or "bf16" for autocast.
        batch: B.
        width: factor on every channel count of the network.
        image_size: H = W.
        device: "cpu" or "cuda".
        threads: of torch, within one operation.
    """

    network: str
    timesteps: int
    precision: str = "float32"
    batch: int = 32
    width: float = 1.0
    image_size: int = 32
    device: str = "cpu"
    threads: int = 1

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Autocast to bfloat16, or nothing at all."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def data(self) -> tuple[Tensor, Tensor]:
        """Images ``[B, 3, H, W]``, channels last, and labels ``[B]``; always the same ones."""
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(self.batch, 3, self.image_size, self.image_size, generator=generator)
        labels = torch.randint(10, (self.batch,), generator=generator)
        return images.to(self.device, memory_format=torch.channels_last), labels.to(self.device)
