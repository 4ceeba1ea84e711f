"""The neurons written a second time, as the papers print them, for autograd to differentiate: the judge of the kernels.

The potential itself is the state, not the carry of ``spikestill.dynamics``, and every step is an ordinary operation;
the one custom derivative is that of the spike. ``frozen`` replaces the spikes inside the reset by given ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Fire = Callable[[Tensor, Tensor], Tensor]
"""The spikes of a potential and a threshold."""


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, slope: Tensor, at_threshold: bool) -> Tensor:
        ctx.save_for_backward(slope)
        return (distance >= 0 if at_threshold else distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


def hard_step(slope: Callable[[Tensor, Tensor], Tensor], *, at_threshold: bool) -> Fire:
    """The step function with ``slope(distance, threshold)`` for its derivative."""

    def fire(potential: Tensor, threshold: Tensor) -> Tensor:
        distance = potential - threshold
        return _Spike.apply(distance, slope(distance.detach(), threshold.detach()), at_threshold)

    return fire


def simulate(
    currents: Sequence[Tensor],
    leak: Tensor,
    threshold: Tensor,
    fire: Fire,
    *,
    reset: str,
    order: str,
    detach_reset: bool = False,
    frozen: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Spikes ``[T, ...]`` and potentials before firing ``[T, ...]`` (methods, section 1)."""
    potential = torch.zeros_like(currents[0])
    spike = torch.zeros_like(currents[0])
    spikes, potentials = [], []
    for t, current in enumerate(currents):
        if reset == "hard":
            potential = leak * (potential * (1 - spike)) + current
        elif order == "reset-then-leak":
            potential = leak * (potential - threshold * spike) + current
        else:
            potential = leak * potential + current - threshold * spike
        fired = fire(potential, threshold)
        spikes.append(fired)
        potentials.append(potential)
        spike = frozen[t] if frozen is not None else fired.detach() if detach_reset else fired
    return torch.stack(spikes), torch.stack(potentials)
