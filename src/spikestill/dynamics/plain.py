"""The passes over a layer of neurons, plainly: the oracle of the fused kernels, and what runs where there are none.

A layer is a row of N neurons (see ``layout.py``). A sequence is ``[T, N]``, or ``[1, N]`` where it is the same at every
step (direct encoding); what has one step's size is ``[N]``; leak and threshold are scalars (0-dimensional tensors).
Potentials are kept in float32 (float64 for a float64 current); spikes come in the dtype of the current.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikestill.dynamics.layout import Channels, FlatTerm
from spikestill.dynamics.neuron import NeuronRule
from spikestill.dynamics.rate_state import RateState

__all__ = ["affine", "moments", "products", "rate", "rate_steps", "spikes", "spikes_backward", "time_mean"]


def spikes(
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
) -> tuple[Tensor, Tensor]:
    """The spikes ``[T, N]`` and the carry ``[N]`` after the last step; a carry of None is the resting neuron."""
    carry = _resting(terms) if carry is None else carry
    emitted = []
    for t in range(timesteps):
        potential = carry + _current(terms, channels, t)
        spike = rule.fire(potential, threshold)
        carry = rule.carry(potential, spike, leak, threshold)
        emitted.append(spike.to(terms[0].values.dtype))
    return torch.stack(emitted), carry


def spikes_backward(
    by_spikes: Tensor,
    by_last: Tensor | None,
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients by current ``[T, N]``, by the first carry ``[N]``, and by leak and threshold where these ``learn``.

    The potentials are computed again, not stored.

    Args:
        by_spikes: ``[T, N]``, the loss by every spike.
        by_last: ``[N]``, the loss by the carry after the last step; None for 0.
        terms: as in :func:`spikes`, likewise the rest.
        channels: of the terms' tables.
        carry: the carry before the first step.
        leak: scalar.
        threshold: scalar.
        timesteps: T.
        rule: the neuron.
        learn: whether the gradients by leak and threshold are wanted.
    """
    state = _resting(terms) if carry is None else carry
    potentials = []
    for t in range(timesteps):
        potentials.append(state + _current(terms, channels, t))
        state = rule.carry(potentials[t], rule.fire(potentials[t], threshold), leak, threshold)

    gradient = torch.zeros_like(state) if by_last is None else by_last
    by_leak, by_threshold = torch.zeros_like(state), torch.zeros_like(state)
    by_current = []
    for t in reversed(range(timesteps)):
        potential = potentials[t]
        spike = rule.fire(potential, threshold)
        slope = rule.surrogate.derivative(potential - threshold, threshold)
        by_spike = by_spikes[t].to(state.dtype)
        if not rule.detach_reset:
            by_spike = by_spike + gradient * rule.carry_by_spike(potential, leak, threshold)
        if learn:
            by_leak = by_leak + gradient * rule.carry_by_leak(potential, spike, threshold)
            by_threshold = by_threshold + gradient * rule.carry_by_threshold(spike, leak) - by_spike * slope
        gradient = by_spike * slope + gradient * rule.carry_by_potential(spike, leak)
        by_current.append(gradient.to(terms[0].values.dtype))
    return (
        torch.stack(by_current[::-1]),
        gradient,
        by_leak.sum() if learn else None,
        by_threshold.sum() if learn else None,
    )


def rate(
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Spikes ``[T, N]``, rate, its derivatives by current and, if they ``learn``, by leak and threshold; ``[N]`` each.

    With ``k_t = dv_t/dx`` for a constant current ``x``: ``k_1 = 1``, ``E = mean_t g_t k_t`` and
    ``k_{t+1} = 1 + dc_t/dx`` (methods 6); the same recursion, from 0, gives the derivatives by leak and threshold. A
    carry of None is the resting neuron.
    """
    state = RateState.starting(_resting(terms) if carry is None else carry, learn)
    spikes, state = rate_steps(terms, channels, state, leak, threshold, timesteps, rule)
    return spikes, *state.means(timesteps, terms[0].values.dtype)


def rate_steps(
    terms: Sequence[FlatTerm],
    channels: Channels,
    state: RateState,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
) -> tuple[Tensor, RateState]:
    """Some of the steps of :func:`rate`: their spikes ``[T, N]``, and the state after them.

    The ``state`` is used up: a backend may write the new one over it.
    """
    carry, sensitivity, total, eligibility = state[:4]
    learn, zeros = state.leak_sensitivity is not None, torch.zeros_like(carry)
    leak_sensitivity, leak_eligibility, threshold_sensitivity, threshold_eligibility = (
        zeros if row is None else row for row in state[4:]
    )
    emitted = []
    for t in range(timesteps):
        potential = carry + _current(terms, channels, t)
        spike = rule.fire(potential, threshold)
        slope = rule.surrogate.derivative(potential - threshold, threshold)
        by_potential = rule.carry_by_potential(spike, leak)
        by_spike = 0.0 if rule.detach_reset else rule.carry_by_spike(potential, leak, threshold)
        total = total + spike
        change = slope * sensitivity
        eligibility = eligibility + change
        sensitivity = 1 + by_potential * sensitivity + by_spike * change
        if learn:
            change = slope * leak_sensitivity
            leak_eligibility = leak_eligibility + change
            direct = rule.carry_by_leak(potential, spike, threshold)
            leak_sensitivity = direct + by_potential * leak_sensitivity + by_spike * change
            change = slope * (threshold_sensitivity - 1)
            threshold_eligibility = threshold_eligibility + change
            direct = rule.carry_by_threshold(spike, leak)
            threshold_sensitivity = direct + by_potential * threshold_sensitivity + by_spike * change
        carry = rule.carry(potential, spike, leak, threshold)
        emitted.append(spike.to(terms[0].values.dtype))
    learned = (leak_sensitivity, leak_eligibility, threshold_sensitivity, threshold_eligibility)
    return torch.stack(emitted), RateState(carry, sensitivity, total, eligibility, *(learned if learn else ()))


def moments(values: Tensor, channels: Channels) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance ``[C]`` over time and a channel's neurons of ``[T, N]``; its mean over time ``[N]``."""
    variance, mean = torch.var_mean(_by_channel(_exact(values), channels), dim=(0, 1, 3), correction=0)
    return mean, variance, time_mean(values)


def time_mean(values: Tensor) -> Tensor:
    """The mean over time of ``[T, N]``, added up in float32 (float64 for float64), in its dtype."""
    return _exact(values).mean(0).to(values.dtype)


def products(
    delta: Tensor, factor: Tensor | None, values: Tensor | None, mean: Tensor | None, channels: Channels
) -> tuple[Tensor, Tensor, Tensor]:
    """``d = delta * factor``, and per channel the sums of ``d`` and of ``d * (values - mean)``.

    Args:
        delta: ``[T, N]``.
        factor: ``[T, N]``; None for 1.
        values: ``[T, N]``; None where no sums are wanted (they are empty then).
        mean: ``[C]``, where there are values.
        channels: of the sums.

    Returns:
        ``d [T, N]`` in the dtype of ``delta``, and the sums ``[C]`` in that of the factor or the mean.
    """
    d = _exact(delta) if factor is None else _exact(delta) * factor
    if values is None or mean is None:
        return d.to(delta.dtype), d.new_empty(0), d.new_empty(0)
    centred = _by_channel(_exact(values), channels) - mean.view(-1, 1)
    by_channel = _by_channel(d, channels)
    return d.to(delta.dtype), by_channel.sum((0, 1, 3)), (by_channel * centred).sum((0, 1, 3))


def affine(
    values: Tensor,
    slope: Tensor,
    shift: Tensor,
    channels: Channels,
    addend: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """``values * slope + shift``, plus ``addend * scale`` where given, by channel; ``[T, N]`` in its dtype."""
    result = _by_channel(_exact(values), channels) * slope.view(-1, 1) + shift.view(-1, 1)
    if addend is not None and scale is not None:
        result = result + _by_channel(_exact(addend), channels) * scale.view(-1, 1)
    return result.flatten(1).to(values.dtype)


def _resting(terms: Sequence[FlatTerm]) -> Tensor:
    return torch.zeros_like(_exact(terms[0].values[0]))


def _current(terms: Sequence[FlatTerm], channels: Channels, t: int) -> Tensor:
    """The current of step ``t``, in the dtype of the potential."""
    total: Tensor | None = None
    for term in terms:
        values = _exact(term.values[t if len(term.values) > 1 else 0])
        if term.scale is not None and term.shift is not None:
            by_channel = _by_channel(values, channels)
            values = (by_channel * term.scale.view(-1, 1) + term.shift.view(-1, 1)).flatten()
        total = values if total is None else total + values
    assert total is not None
    return total


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _by_channel(values: Tensor, channels: Channels) -> Tensor:
    """``[..., N]`` as ``[..., N / (C * inner), C, inner]``."""
    return values.unflatten(-1, (-1, channels.count, channels.inner))
