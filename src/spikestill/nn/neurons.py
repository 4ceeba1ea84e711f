"""The neurons as modules: parameters around the pure functions of ``dynamics``. They hold no membrane potential."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from spikestill.dynamics import (
    NeuronRule,
    RateState,
    Sigmoid,
    Surrogate,
    Term,
    rate_after,
    rate_sequence,
    rate_steps,
    spike_sequence,
)
from spikestill.dynamics.neuron import Order, Reset
from spikestill.types import InputError, unknown_name

__all__ = ["IF", "LIF"]


class LIF(nn.Module):
    """A layer of leaky integrate-and-fire neurons (LaSNN eq. 1-2; methods, section 1).

    Leak and threshold are scalars of the layer, in its ``state_dict`` whether learnable or not. A learnable one is kept
    in its range by its parametrisation: the threshold positive (softplus), the leak in (0, 1] (sigmoid).

    Attributes:
        initial: what a neuron carries into its first time step, so that ``v_1 = initial + x_1``: of a shape that
            broadcasts to one image's neurons ``[C, ...]``, in the unit of the input current. None, the default, is
            rest; a ``state_dict`` holds it only where it is not None.

    Args:
        leak: what remains of the membrane potential after a time step, in (0, 1].
        threshold: the potential at which a neuron fires, positive, in the unit of the input current.
        reset: "soft" subtracts the threshold, "hard" sets the potential to 0.
        order: "reset-then-leak" or "leak-then-subtract" (the reset is not decayed; fires above, not at, the threshold).
        detach_reset: keep the gradient from flowing through the reset.
        surrogate: the derivative of the spike.
        learn: which of "leak" and "threshold" are trained (DIET-SNN trains both).

    Raises:
        InputError: for a value outside its range, and for a learnable leak of 1, which no gradient could lower.
    """

    leak: Tensor
    threshold: Tensor
    initial: Tensor | None

    def __init__(
        self,
        leak: float = 0.5,
        threshold: float = 1.0,
        reset: Reset = "soft",
        order: Order = "reset-then-leak",
        detach_reset: bool = True,
        surrogate: Surrogate = Sigmoid(),  # noqa: B008  (frozen)
        learn: Collection[str] = (),
    ) -> None:
        super().__init__()
        # Judged as they are kept: in float32 1e-50 is 0, 1e39 infinite, and 1 - 1e-9 is 1.
        leak, threshold = float(torch.tensor(float(leak))), float(torch.tensor(float(threshold)))
        if not 0 < leak <= 1:
            raise InputError(f"leak must lie in (0, 1], not {leak}")
        if not 0 < threshold < float("inf"):
            raise InputError(f"threshold must be positive and finite, not {threshold}")
        for name in learn:
            if name not in ("leak", "threshold"):
                raise unknown_name("learnable neuron parameter", name, ("leak", "threshold"))
        if "leak" in learn and leak == 1:
            raise InputError("a learnable leak must start below 1 (at 1 its gradient vanishes): try leak=0.99")
        self.rule = NeuronRule(reset, order, detach_reset, surrogate)
        self.learn = tuple(sorted(set(learn)))
        self._add("leak", leak, _UnitInterval())
        self._add("threshold", threshold, _Positive())
        self.register_buffer("initial", None)

    def _add(self, name: str, value: float, constraint: nn.Module) -> None:
        if name in self.learn:
            self.register_parameter(name, nn.Parameter(torch.tensor(float(value))))
            parametrize.register_parametrization(self, name, constraint)
        else:
            self.register_buffer(name, torch.tensor(float(value)))

    @torch.no_grad()
    def set_threshold(self, threshold: float | Tensor) -> None:
        """Give the layer another threshold, as conversion does.

        Raises:
            InputError: for one that is not positive and finite.
        """
        value = torch.as_tensor(threshold, dtype=self.threshold.dtype, device=self.threshold.device)
        if not (value > 0 and value.isfinite()):
            raise InputError(f"threshold must be positive and finite, not {value.item()}")
        if "threshold" in self.learn:
            self.threshold = value
        else:
            self.threshold.copy_(value)

    @torch.no_grad()
    def set_initial(self, initial: float | Tensor | None) -> None:
        """Let the neurons start from another potential than rest, as conversion does; None is rest again.

        Raises:
            InputError: for one that is not finite.
        """
        if initial is not None:
            like = self.threshold
            initial = torch.as_tensor(initial, dtype=like.dtype, device=like.device).detach().clone()
            if not initial.isfinite().all():
                raise InputError("the initial membrane potential must be finite")
        self.initial = initial

    def forward(self, current: Tensor, timesteps: int | None = None, carry: Tensor | None = None) -> Tensor:
        """Spikes ``[T, B, ...]`` of the input current, differentiable through time.

        Args:
            current: ``[T, B, ...]``; or ``[1, B, ...]``, constant over ``timesteps`` steps.
            timesteps: T where the current is constant.
            carry: the state of an earlier call, as :meth:`run` returns it; by default ``initial``.

        Raises:
            InputError: where ``initial`` does not broadcast to the current's neurons.
        """
        return self.run(current, timesteps, carry)[0]

    def run(
        self, current: Tensor | Sequence[Term], timesteps: int | None = None, carry: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, of terms too, together with the carry ``[B, ...]`` after the last step."""
        steps = timesteps or _steps(current)
        if carry is None:
            carry = self._start(current)
        return spike_sequence(current, self.leak, self.threshold, steps, self.rule, carry)

    def rate(self, current: Tensor | Sequence[Term], timesteps: int | None = None) -> tuple[Tensor, Tensor]:
        """Spikes ``[T, B, ...]`` outside autograd, and their firing rate ``[B, ...]`` inside it (methods 6).

        Raises:
            InputError: as :meth:`forward`.
        """
        steps = timesteps or _steps(current)
        return rate_sequence(current, self.leak, self.threshold, steps, self.rule, self._start(current))

    def rate_steps(
        self, current: Tensor | Sequence[Term], timesteps: int | None = None, state: RateState | None = None
    ) -> tuple[Tensor, RateState]:
        """Some of the steps of :meth:`rate`: their spikes ``[t, B, ...]``, and the state after them, without autograd.

        Args:
            current: ``[t, B, ...]``; or ``[1, B, ...]``, constant over ``timesteps`` steps; or its terms.
            timesteps: t where the current is constant.
            state: that after the steps before; None for the first ones.

        Raises:
            InputError: as :meth:`forward`.
        """
        steps, start = timesteps or _steps(current), self._start(current) if state is None else None
        learn = any(parameter.requires_grad for parameter in self.parameters())
        return rate_steps(current, self.leak, self.threshold, steps, self.rule, state, start, learn)

    def rate_after(self, state: RateState, timesteps: int, terms: Sequence[Term]) -> Tensor:
        """The firing rate ``[B, ...]`` inside autograd, from the state after all T steps: ``dynamics.rate_after``."""
        return rate_after(state, timesteps, terms, self.leak, self.threshold)

    def _start(self, current: Tensor | Sequence[Term]) -> Tensor | None:
        """The carry ``[B, ...]`` of the first time step; None for rest."""
        if self.initial is None:
            return None
        shape = (current if isinstance(current, Tensor) else current[0].sequence).shape[1:]
        try:
            return self.initial.expand(shape)
        except RuntimeError as error:
            raise InputError(
                f"the initial membrane potential {list(self.initial.shape)} does not fit neurons {list(shape[1:])}"
            ) from error

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Make place for an initial potential of whatever shape, or for none, if this layer is loaded at all."""
        if any(key.startswith(prefix) for key in state_dict):
            given = state_dict.get(f"{prefix}initial")
            self.initial = None if given is None else torch.empty_like(given, device=self.threshold.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:  # noqa: D102
        leak, threshold = self.leak.item(), self.threshold.item()
        learn = f", learn={self.learn}" if self.learn else ""
        return f"leak={leak:g}, threshold={threshold:g}, reset={self.rule.reset!r}, order={self.rule.order!r}{learn}"


class IF(LIF):
    """A layer of integrate-and-fire neurons: :class:`LIF` without a leak (leak 1)."""

    def __init__(
        self,
        threshold: float = 1.0,
        reset: Reset = "soft",
        order: Order = "reset-then-leak",
        detach_reset: bool = True,
        surrogate: Surrogate = Sigmoid(),  # noqa: B008  (frozen)
        learn: Collection[str] = (),
    ) -> None:
        if "leak" in learn:
            raise InputError("an IF neuron has no leak to learn: use LIF with leak=0.99")
        super().__init__(1.0, threshold, reset, order, detach_reset, surrogate, learn)


def _steps(current: Tensor | Sequence[Term]) -> int:
    return len(current) if isinstance(current, Tensor) else max(len(term.sequence) for term in current)


class _Positive(nn.Module):
    def forward(self, raw: Tensor) -> Tensor:
        return functional.softplus(raw).clamp(min=torch.finfo(raw.dtype).tiny)  # below -103 it rounds to 0

    def right_inverse(self, value: Tensor) -> Tensor:
        return value + torch.log(-torch.expm1(-value))


class _UnitInterval(nn.Module):
    def forward(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(raw).clamp(min=torch.finfo(raw.dtype).tiny)  # below -103 it rounds to 0

    def right_inverse(self, value: Tensor) -> Tensor:
        return torch.logit(value)
