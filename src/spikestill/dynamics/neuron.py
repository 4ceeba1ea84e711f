"""One time step of the integrate-and-fire neurons, and its partial derivatives.

Both orders of reset (methods, section 1) fit one form. With the *carry* ``c``, what a neuron takes from one time step
into the next,

    v_t = c_{t-1} + x_t,        s_t = H(v_t - threshold),

    ====================  =============================  ======================
    reset                 reset-then-leak                leak-then-subtract
    ====================  =============================  ======================
    soft                  c = leak * (v - threshold s)   c = leak * v - threshold s
    hard (to 0)           c = leak * v * (1 - s)         the same
    ====================  =============================  ======================

so one tensor of state serves all of them, and a zero carry is the resting neuron. Reset-then-leak fires at
``v >= threshold`` (SpikingJelly's neurons), leak-then-subtract at ``v > threshold`` (LaSNN eq. 1-2; snnTorch's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikestill.dynamics.surrogate import Sigmoid, Surrogate
from spikestill.types import InputError

__all__ = ["NeuronRule", "Order", "Reset"]

Reset = Literal["soft", "hard"]
Order = Literal["reset-then-leak", "leak-then-subtract"]


@dataclass(frozen=True)
class NeuronRule:
    """How a neuron fires, resets and is differentiated: everything about it but its leak and threshold.

    Attributes:
        reset: "soft" subtracts the threshold from the potential, "hard" sets it to 0.
        order: whether the reset comes before the leak or, undecayed, after it.
        detach_reset: True keeps the gradient from flowing through the reset.
        surrogate: the derivative of the spike.

    Raises:
        InputError: for a reset or an order that is not one of the above.
    """

    reset: Reset = "soft"
    order: Order = "reset-then-leak"
    detach_reset: bool = True
    surrogate: Surrogate = Sigmoid()  # noqa: RUF009  (a frozen dataclass is a safe default)

    def __post_init__(self) -> None:
        if self.reset not in ("soft", "hard"):
            raise InputError(f"reset must be 'soft' or 'hard', not {self.reset!r}")
        if self.order not in ("reset-then-leak", "leak-then-subtract"):
            raise InputError(f"order must be 'reset-then-leak' or 'leak-then-subtract', not {self.order!r}")

    def fire(self, potential: Tensor, threshold: Tensor) -> Tensor:
        """The spikes, 0 or 1, in the dtype of ``potential``; not a number where the potential is not one."""
        fired = potential >= threshold if self.order == "reset-then-leak" else potential > threshold
        return torch.where(potential.isnan(), potential, fired.to(potential.dtype))

    def carry(self, potential: Tensor, spike: Tensor, leak: Tensor, threshold: Tensor) -> Tensor:
        """What the neuron takes into the next time step."""
        if self.reset == "hard":
            return leak * potential * (1 - spike)
        if self.order == "reset-then-leak":
            return leak * (potential - threshold * spike)
        return leak * potential - threshold * spike

    def carry_by_spike(self, potential: Tensor, leak: Tensor, threshold: Tensor) -> Tensor:
        """``dc/ds`` at constant ``v``: what the reset takes away (methods 6, the terms with ``g``)."""
        if self.reset == "hard":
            return -leak * potential
        return -leak * threshold if self.order == "reset-then-leak" else -threshold

    def carry_by_potential(self, spike: Tensor, leak: Tensor) -> Tensor:
        """``dc/dv`` at constant ``s``."""
        return leak * (1 - spike) if self.reset == "hard" else leak

    def carry_by_leak(self, potential: Tensor, spike: Tensor, threshold: Tensor) -> Tensor:
        """``dc/dleak`` at constant ``v`` and ``s``."""
        if self.reset == "hard":
            return potential * (1 - spike)
        return potential - threshold * spike if self.order == "reset-then-leak" else potential

    def carry_by_threshold(self, spike: Tensor, leak: Tensor) -> Tensor:
        """``dc/dthreshold`` at constant ``v`` and ``s``."""
        if self.reset == "hard":
            return torch.zeros_like(spike)
        return -leak * spike if self.order == "reset-then-leak" else -spike
