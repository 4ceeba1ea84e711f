"""What the rate pass over a layer of neurons takes from some of its steps into the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RateState"]


class RateState(NamedTuple):
    """The rate pass over a layer after some of its T steps, in tensors of one step's size (methods 6).

    Each is ``[...]``, or a row ``[N]`` where a backend has it, in float32 (float64 for a float64 current). Sums are not
    divided by T before the last step, so a pass in parts adds up what the whole one adds up, in the same order.

    Attributes:
        carry: what the neurons take into the next step.
        sensitivity: ``k``, the derivative of the next step's potential by a current that is constant in time.
        spike_count: how many spikes there were.
        eligibility: the sum of ``g k``.
        leak_sensitivity: the derivative of the next step's potential by the leak; None, like all that follow, where
            neither leak nor threshold learns.
        leak_eligibility: the derivative of ``spike_count`` by the leak.
        threshold_sensitivity: the derivative of the next step's potential by the threshold.
        threshold_eligibility: the derivative of ``spike_count`` by the threshold.
    """

    carry: Tensor
    sensitivity: Tensor
    spike_count: Tensor
    eligibility: Tensor
    leak_sensitivity: Tensor | None = None
    leak_eligibility: Tensor | None = None
    threshold_sensitivity: Tensor | None = None
    threshold_eligibility: Tensor | None = None

    @classmethod
    def starting(cls, carry: Tensor, learn: bool) -> RateState:
        """Before the first step, for neurons that start from a carry; ``learn`` as in :func:`plain.rate`."""
        zeros = [torch.zeros_like(carry) for _ in range(6 if learn else 2)]
        return cls(carry.clone(), torch.ones_like(carry), *zeros)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> RateState:
        """The state with ``function`` applied to every tensor that there is."""
        return RateState(*(None if tensor is None else function(tensor) for tensor in self))  # type: ignore[arg-type]

    def means(self, timesteps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """After all T steps the rate, in ``dtype``, and its derivatives by current, leak and threshold."""
        steps = self.spike_count.new_full((), timesteps)  # by a number, CUDA would multiply with its reciprocal
        sums = (self.leak_eligibility, self.threshold_eligibility)
        by_leak, by_threshold = (None if sum_ is None else sum_ / steps for sum_ in sums)
        return (self.spike_count / steps).to(dtype), self.eligibility / steps, by_leak, by_threshold
