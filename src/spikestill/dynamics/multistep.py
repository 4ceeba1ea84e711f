"""Whole sequences: T time steps of a layer of neurons, differentiated through time or through rates.

Three pure functions hold the mathematics: :func:`forward_through_time`, :func:`backward_through_time` and
:func:`forward_with_eligibility`. They run compiled where a compiler is at hand (``compiled.py``) and plainly, with the
same results, where none is. Around them, :func:`spike_sequence` is differentiable by autograd, and
:func:`rate_forward` gives what rate-based backpropagation needs.

Shapes: a current is ``[T, ...]``, or ``[1, ...]`` when it is the same at every step (direct encoding); the carry and
everything of one step's size is ``[...]``; leak and threshold are scalars (0-dimensional tensors). Potentials are kept
in float32 (float64 for a float64 current); spikes come in the dtype of the current.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikestill.dynamics.compiled import compiled
from spikestill.dynamics.layout import Layout
from spikestill.dynamics.neuron import NeuronRule
from spikestill.types import InputError

__all__ = [
    "Eligibility",
    "backward_through_time",
    "forward_through_time",
    "forward_with_eligibility",
    "rate_forward",
    "spike_sequence",
    "time_mean",
]


@dataclass(frozen=True)
class Eligibility:
    """The derivatives of a firing rate, per neuron: each ``[...]`` in float32 (methods 6).

    Attributes:
        current: ``E``, by an input current that is constant in time.
        leak: by the layer's leak; None where it is fixed.
        threshold: by the layer's threshold; None where it is fixed.
    """

    current: Tensor
    leak: Tensor | None = None
    threshold: Tensor | None = None


def forward_through_time(
    current: Tensor, carry: Tensor, leak: Tensor, threshold: Tensor, timesteps: int, rule: NeuronRule
) -> tuple[Tensor, Tensor]:
    """The spikes ``[T, ...]`` and the carry ``[...]`` after the last step."""
    spikes = []
    for t in range(timesteps):
        potential = carry + _at(current, t, carry)
        spike = rule.fire(potential, threshold)
        carry = rule.carry(potential, spike, leak, threshold)
        spikes.append(spike.to(current.dtype))
    return torch.stack(spikes), carry


def backward_through_time(
    grad_spikes: Tensor,
    grad_carry: Tensor,
    current: Tensor,
    carry: Tensor,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    by_leak: bool = True,
    by_threshold: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients by current, first carry, leak and threshold; the potentials are computed again, not stored.

    Args:
        grad_spikes: ``[T, ...]``, the loss by every spike.
        grad_carry: ``[...]``, the loss by the carry after the last step.
        current: as in :func:`forward_through_time`, likewise the rest.
        carry: the carry before the first step.
        leak: scalar.
        threshold: scalar.
        timesteps: T.
        rule: the neuron.
        by_leak: whether to gather the gradient by the leak; None is returned for it otherwise.
        by_threshold: likewise for the threshold.
    """
    potentials = []
    state = carry
    for t in range(timesteps):
        potentials.append(state + _at(current, t, state))
        state = rule.carry(potentials[t], rule.fire(potentials[t], threshold), leak, threshold)

    grad_current = []
    grad_leak = torch.zeros_like(carry)
    grad_threshold = torch.zeros_like(carry)
    for t in reversed(range(timesteps)):
        potential = potentials[t]
        spike = rule.fire(potential, threshold)
        slope = rule.surrogate.derivative(potential - threshold, threshold)
        by_spike = grad_spikes[t].to(carry.dtype)
        if not rule.detach_reset:
            by_spike = by_spike + grad_carry * rule.carry_by_spike(potential, leak, threshold)
        if by_leak:
            grad_leak = grad_leak + grad_carry * rule.carry_by_leak(potential, spike, threshold)
        if by_threshold:
            grad_threshold = grad_threshold + grad_carry * rule.carry_by_threshold(spike, leak) - by_spike * slope
        grad_carry = by_spike * slope + grad_carry * rule.carry_by_potential(spike, leak)
        grad_current.append(grad_carry)
    if current.shape[0] == 1:
        by_current = sum(grad_current[1:], start=grad_current[0]).unsqueeze(0)
    else:
        by_current = torch.stack(grad_current[::-1])
    return (
        by_current.to(current.dtype),
        grad_carry,
        grad_leak.sum() if by_leak else None,
        grad_threshold.sum() if by_threshold else None,
    )


def forward_with_eligibility(
    current: Tensor,
    carry: Tensor,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    by_leak: bool,
    by_threshold: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Spikes, last carry, rate, and the rate's derivatives by current, leak and threshold, in one pass over time.

    With ``k_t = dv_t/dx`` for a constant current ``x``: ``k_1 = 1``, ``E = mean_t g_t k_t`` and
    ``k_{t+1} = 1 + dc_t/dx`` (methods 6); the same recursion, from 0, gives the derivatives by leak and threshold.
    """
    sensitivity = torch.ones_like(carry)
    leak_sensitivity = torch.zeros_like(carry)
    threshold_sensitivity = torch.zeros_like(carry)
    rate = torch.zeros_like(carry)
    eligibility = torch.zeros_like(carry)
    leak_eligibility = torch.zeros_like(carry)
    threshold_eligibility = torch.zeros_like(carry)
    spikes = []
    for t in range(timesteps):
        potential = carry + _at(current, t, carry)
        spike = rule.fire(potential, threshold)
        slope = rule.surrogate.derivative(potential - threshold, threshold)
        by_potential = rule.carry_by_potential(spike, leak)
        by_spike = 0.0 if rule.detach_reset else rule.carry_by_spike(potential, leak, threshold)
        rate = rate + spike
        change = slope * sensitivity
        eligibility = eligibility + change
        sensitivity = 1 + by_potential * sensitivity + by_spike * change
        if by_leak:
            change = slope * leak_sensitivity
            leak_eligibility = leak_eligibility + change
            direct = rule.carry_by_leak(potential, spike, threshold)
            leak_sensitivity = direct + by_potential * leak_sensitivity + by_spike * change
        if by_threshold:
            change = slope * (threshold_sensitivity - 1)
            threshold_eligibility = threshold_eligibility + change
            direct = rule.carry_by_threshold(spike, leak)
            threshold_sensitivity = direct + by_potential * threshold_sensitivity + by_spike * change
        carry = rule.carry(potential, spike, leak, threshold)
        spikes.append(spike.to(current.dtype))
    return (
        torch.stack(spikes),
        carry,
        rate / timesteps,
        eligibility / timesteps,
        leak_eligibility / timesteps if by_leak else None,
        threshold_eligibility / timesteps if by_threshold else None,
    )


def spike_sequence(
    current: Tensor,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The spikes of T steps and the last carry, differentiable through time.

    Args:
        current: ``[T, ...]``, or ``[1, ...]`` for a constant one.
        leak: scalar, in (0, 1]; 1 is the IF neuron.
        threshold: scalar, positive.
        timesteps: T.
        rule: how the neuron fires, resets and is differentiated.
        carry: ``[...]``, the carry of an earlier call; zero by default.

    Returns:
        spikes ``[T, ...]`` in the dtype of ``current`` and the carry ``[...]`` after the last step.

    Raises:
        InputError: for a current of neither 1 nor T steps.
    """
    _check_steps(current, timesteps)
    if carry is None:
        carry = resting_carry(current)
    return _SpikeSequence.apply(current, carry, leak, threshold, timesteps, rule)


def rate_forward(
    current: Tensor,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    learn_leak: bool = False,
    learn_threshold: bool = False,
) -> tuple[Tensor, Tensor, Eligibility]:
    """Spikes ``[T, ...]``, firing rate ``[...]`` and its derivatives, without autograd (methods 6).

    Raises:
        InputError: for a current of neither 1 nor T steps.
    """
    _check_steps(current, timesteps)
    layout = Layout.of(current)
    with torch.no_grad():
        carry = resting_carry(current)
        arguments = (layout.flat(current), layout.flat(carry), leak, threshold, timesteps, rule)
        results = compiled(forward_with_eligibility)(*arguments, learn_leak, learn_threshold)
        spikes, _, rate, by_current, by_leak, by_threshold = (layout.restore(tensor) for tensor in results)
    return spikes, rate, Eligibility(by_current, by_leak, by_threshold)


def mean_over_time(sequence: Tensor, timesteps: int) -> Tensor:
    """The mean over time of ``[T, N]``, added up in float32 (float64 for float64), in the sequence's dtype."""
    total = sequence[0].to(torch.float64 if sequence.dtype == torch.float64 else torch.float32)
    for t in range(1, timesteps):
        total = total + sequence[t]
    return (total / timesteps).to(sequence.dtype)


def time_mean(sequence: Tensor) -> Tensor:
    """The mean over time of ``[T, ...]``, without autograd and in the memory layout of one step.

    It is added up in float32 (float64 for float64) and comes in the sequence's dtype.
    """
    layout = Layout.of(sequence)
    with torch.no_grad():
        return layout.restore(compiled(mean_over_time)(layout.flat(sequence), sequence.shape[0]))


def resting_carry(current: Tensor) -> Tensor:
    """The carry before the first step: zeros of one step's size, in float32 or, for a float64 current, float64."""
    dtype = torch.float64 if current.dtype == torch.float64 else torch.float32
    return torch.zeros_like(current[0], dtype=dtype)


class _SpikeSequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, carry: Tensor, leak: Tensor, threshold: Tensor, timesteps: int, rule: NeuronRule
    ) -> tuple[Tensor, Tensor]:
        layout = Layout.of(current)
        spikes, last = compiled(forward_through_time)(
            layout.flat(current), layout.flat(carry), leak, threshold, timesteps, rule
        )
        ctx.save_for_backward(current, carry, leak, threshold)
        ctx.timesteps, ctx.rule, ctx.layout = timesteps, rule, layout
        return layout.restore(spikes), layout.restore(last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        current, carry, leak, threshold = ctx.saved_tensors
        layout = ctx.layout
        arguments = (*(layout.flat(tensor) for tensor in (*gradients, current, carry)), leak, threshold)
        by_current, by_carry, by_leak, by_threshold = compiled(backward_through_time)(
            *arguments, ctx.timesteps, ctx.rule, ctx.needs_input_grad[2], ctx.needs_input_grad[3]
        )
        by_leak = None if by_leak is None else by_leak.to(leak.dtype)
        by_threshold = None if by_threshold is None else by_threshold.to(threshold.dtype)
        return layout.restore(by_current), layout.restore(by_carry), by_leak, by_threshold, None, None


def _check_steps(current: Tensor, timesteps: int) -> None:
    if timesteps < 1 or current.shape[0] not in (1, timesteps):
        raise InputError(
            f"the current has {current.shape[0]} time steps, the neurons run {timesteps}: give 1 or as many"
        )


def _at(current: Tensor, t: int, like: Tensor) -> Tensor:
    """The current of step ``t``, in the dtype of the potential."""
    return current[t if current.shape[0] > 1 else 0].to(like.dtype)
