"""Max pooling of spikes over time: a gate whose output counts what the most active input of a window has counted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["MaxGate"]


class MaxGate(nn.Module):
    """Max pooling of firing rates, spike by spike (methods 8).

    Each window passes on the spike of its input with the largest count so far; of several with the same count, that of
    whichever fires. So after every time step the window has put out as many spikes as its most active input: the output
    is what the maximum of the cumulated inputs grows by. The rate of the output is the maximum of the rates, at any T.

    Args:
        pool: the max pooling of one batch ``[B, C, ...]``, with whatever windows.
    """

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, values: Tensor) -> Tensor:
        """The maximum ``[B, C, ...]`` of what does not change in time, or of rates."""
        return self.pool(values)

    def run(self, sequence: Tensor, carry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The output ``[T, B, ...]`` of ``[T, B, ...]``, and the inputs' sums ``[B, ...]`` to go on with.

        Args:
            sequence: spikes, or any signal.
            carry: the sums after the steps before; None for the first ones.
        """
        exact = torch.promote_types(sequence.dtype, torch.float32)
        sums = sequence.to(exact).cumsum(0)
        if carry is not None:
            sums = sums + carry
        highest = self.pool(sums.flatten(0, 1)).unflatten(0, (len(sums), -1))
        before = torch.zeros_like(highest[:1]) if carry is None else self.pool(carry).unsqueeze(0)
        return (highest - torch.cat([before, highest[:-1]])).to(sequence.dtype), sums[-1]

    def extra_repr(self) -> str:  # noqa: D102
        return "" if isinstance(self.pool, nn.Module) else f"pool={self.pool}"
