"""Whole sequences: T time steps of a layer of neurons, differentiated through time or through rates.

:func:`spike_sequence` is differentiable through time by autograd, :func:`rate_sequence` through rates; the passes
themselves are those of ``plain.py``, or of the kernels that stand in for them. A current is a tensor ``[T, ...]``
(``[1, ...]`` when it is the same at every step, as under direct encoding), or a sum of terms ``[T, B, C, ...]`` whose
batch normalisation is done on the way (``current.py``). Leak and threshold are scalars (0-dimensional tensors).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikestill.dynamics.backend import passes_for
from spikestill.dynamics.current import Normalisation, Term, through
from spikestill.dynamics.layout import FlatTerm, Layout
from spikestill.dynamics.neuron import NeuronRule
from spikestill.dynamics.rate_state import RateState
from spikestill.types import InputError

__all__ = ["Eligibility", "rate_after", "rate_forward", "rate_sequence", "rate_steps", "spike_sequence"]


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


def spike_sequence(
    current: Tensor | Sequence[Term],
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The spikes of T steps and the last carry, differentiable through time.

    Args:
        current: ``[T, ...]``, or ``[1, ...]`` for a constant one; or its terms.
        leak: scalar, in (0, 1]; 1 is the IF neuron.
        threshold: scalar, positive.
        timesteps: T.
        rule: how the neuron fires, resets and is differentiated.
        carry: ``[...]``, the carry of an earlier call; zero by default.

    Returns:
        spikes ``[T, ...]`` in the dtype of ``current`` and the carry ``[...]`` after the last step, in float32 (float64
        for a float64 current).

    Raises:
        InputError: for a current of neither 1 nor T steps, and for terms that are more than two or differ in shape.
    """
    terms = _terms(current, timesteps)
    if not torch.is_grad_enabled():
        return _spikes(terms, carry, leak, threshold, timesteps, rule)
    tensors = [tensor for term in terms for tensor in (term.sequence, *_learned(term))]
    return _SpikeSequence.apply(
        [term.normalisation for term in terms], carry, leak, threshold, timesteps, rule, *tensors
    )


def rate_sequence(
    current: Tensor | Sequence[Term],
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Spikes ``[T, ...]`` outside autograd, and their rate ``[...]`` inside it (methods 6).

    The rate's gradient goes, by the eligibility, to the rates of the terms and to their normalisations' parameters.

    Args:
        current: ``[T, ...]``, or ``[1, ...]`` for a constant one; or its terms, with their rates.
        leak: scalar.
        threshold: scalar.
        timesteps: T.
        rule: the neuron.
        carry: ``[...]``, what the neurons start from, outside autograd; zero by default.

    Raises:
        InputError: as :func:`spike_sequence`.
    """
    if isinstance(current, Tensor):
        current = [Term(current.detach(), rate=current.mean(0))]
    terms = _terms(current, timesteps)
    learn = leak.requires_grad or threshold.requires_grad
    spikes, rate, eligibility = rate_forward(terms, leak, threshold, timesteps, rule, learn, carry)
    return spikes, _in_autograd(rate, eligibility, terms, leak, threshold)


@torch.no_grad()
def rate_steps(
    current: Tensor | Sequence[Term],
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    state: RateState | None = None,
    carry: Tensor | None = None,
    learn: bool = False,
) -> tuple[Tensor, RateState]:
    """Some of the steps of :func:`rate_forward`: their spikes ``[t, ...]``, and the state after them, without autograd.

    Args:
        current: ``[t, ...]``, or ``[1, ...]`` for a constant one; or its terms.
        leak: scalar.
        threshold: scalar.
        timesteps: t, the number of these steps.
        rule: the neuron.
        state: that after the steps before, which is used up; None for the first ones.
        carry: ``[...]``, what the neurons start from at the first step; zero by default.
        learn: whether derivatives by leak and threshold are wanted; the first steps decide for all.

    Raises:
        InputError: as :func:`spike_sequence`.
    """
    terms = _terms(current, timesteps)
    layout = Layout.of(terms[0].sequence)
    flat = _flat(terms, layout)
    if state is None:
        start = _flat_carry(torch.zeros_like(terms[0].sequence[0]) if carry is None else carry, layout, flat)
        assert start is not None
        state = RateState.starting(start, learn)
    else:
        state = state.mapped(layout.flat)
    arguments = (layout.channels, state, leak, threshold, timesteps, rule)
    spikes, after = passes_for(flat[0].values, rule).rate_steps(flat, *arguments)
    return layout.restore(spikes), after.mapped(layout.restore)


def rate_after(state: RateState, timesteps: int, terms: Sequence[Term], leak: Tensor, threshold: Tensor) -> Tensor:
    """The rate ``[...]`` after all T steps, inside autograd: what :func:`rate_sequence` gives where they run at once.

    Args:
        state: that after the last of :func:`rate_steps`.
        timesteps: T, of all steps together.
        terms: the current, with its rates and normalisations; of the sequences only shape and dtype are read.
        leak: scalar.
        threshold: scalar.
    """
    rate, by_current, by_leak, by_threshold = state.means(timesteps, _common_dtype(terms))
    return _in_autograd(rate, Eligibility(by_current, by_leak, by_threshold), terms, leak, threshold)


@torch.no_grad()
def rate_forward(
    current: Tensor | Sequence[Term],
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    learn: bool = False,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor, Eligibility]:
    """Spikes ``[T, ...]``, firing rate ``[...]`` and its derivatives, without autograd (methods 6).

    The derivatives by leak and threshold are there where these ``learn``; neurons start from a ``carry [...]``, or 0.

    Raises:
        InputError: as :func:`spike_sequence`.
    """
    terms = _terms(current, timesteps)
    layout = Layout.of(terms[0].sequence)
    flat = _flat(terms, layout)
    arguments = (layout.channels, _flat_carry(carry, layout, flat), leak, threshold, timesteps, rule, learn)
    results = passes_for(flat[0].values, rule).rate(flat, *arguments)
    spikes, rate, by_current, by_leak, by_threshold = (layout.restore(tensor) for tensor in results)
    return spikes, rate, Eligibility(by_current, by_leak, by_threshold)


class _SpikeSequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        normalisations: list[Normalisation | None],
        carry: Tensor | None,
        leak: Tensor,
        threshold: Tensor,
        timesteps: int,
        rule: NeuronRule,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        sequences: list[Any] = list(tensors[::3])
        terms = [Term(*pair) for pair in zip(sequences, normalisations, strict=True)]  # none is spare: see backward
        ctx.save_for_backward(carry, leak, threshold, *tensors)  # weights too: autograd then sees whether they changed
        ctx.normalisations, ctx.timesteps, ctx.rule = normalisations, timesteps, rule
        ctx.layout = Layout.of(terms[0].sequence)
        ctx.set_materialize_grads(False)
        return _spikes(terms, carry, leak, threshold, timesteps, rule)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (by_spikes, by_last), (carry, leak, threshold, *tensors) = gradients, ctx.saved_tensors
        layout, needs = ctx.layout, ctx.needs_input_grad
        terms = [Term(*pair) for pair in zip(tensors[::3], ctx.normalisations, strict=True)]
        flat = _flat(terms, layout)
        if by_spikes is None:
            by_spikes = flat[0].values.new_zeros(ctx.timesteps, flat[0].values.shape[1])
        else:
            by_spikes = layout.flat(by_spikes)
        arguments = (layout.channels, _flat_carry(carry, layout, flat), leak, threshold, ctx.timesteps, ctx.rule)
        by_current, by_carry, by_leak, by_threshold = passes_for(flat[0].values, ctx.rule).spikes_backward(
            by_spikes, _flat_carry(by_last, layout, flat), flat, *arguments, needs[2] or needs[3]
        )
        by_terms: list[Tensor | None] = []
        for normalisation, row in zip(ctx.normalisations, flat, strict=True):
            is_constant = len(row.values) < ctx.timesteps
            delta = by_current
            if is_constant:
                delta = by_current.sum(0, keepdim=True, dtype=by_carry.dtype).to(by_current.dtype)
            _, by_values, *by_learned = through(normalisation, delta, None, row.values, layout)
            by_terms += [_apart(layout.restore(by_values), by_terms), *by_learned]
        return (
            None,
            layout.restore(by_carry) if needs[1] else None,
            by_leak.to(leak.dtype) if needs[2] else None,
            by_threshold.to(threshold.dtype) if needs[3] else None,
            None,
            None,
            *by_terms,
        )


def _in_autograd(
    rate: Tensor, eligibility: Eligibility, terms: Sequence[Term], leak: Tensor, threshold: Tensor
) -> Tensor:
    tensors = [tensor for term in terms for tensor in (term.rate, *_learned(term))]
    return _Rate.apply((rate, eligibility), terms, leak, threshold, *tensors)


class _Rate(torch.autograd.Function):
    """A rate that is known already, differentiated by its eligibilities."""

    @staticmethod
    def forward(
        ctx: Any,
        counted: tuple[Tensor, Eligibility],
        terms: Sequence[Term],
        leak: Tensor,
        threshold: Tensor,
        *tensors: Tensor | None,
    ) -> Tensor:
        rate, eligibility = counted
        ctx.normalisations = [term.normalisation for term in terms]
        rates = (rate if norm else None for rate, norm in zip(tensors[::3], ctx.normalisations, strict=True))
        learned = (tensor for place, tensor in enumerate(tensors) if place % 3)  # autograd sees whether they changed
        ctx.save_for_backward(eligibility.current, eligibility.leak, eligibility.threshold, *rates, *learned)
        ctx.layout = Layout.of(terms[0].sequence)
        return rate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (delta,), (eligibility, leak_eligibility, threshold_eligibility, *saved) = gradients, ctx.saved_tensors
        rates = saved[: len(ctx.normalisations)]
        layout, needs = ctx.layout, ctx.needs_input_grad
        current, factor = layout.flat(delta).unsqueeze(0), layout.flat(eligibility).unsqueeze(0)
        by_terms: list[Tensor | None] = []
        for normalisation, rate in zip(ctx.normalisations, rates, strict=True):
            row = None if rate is None else layout.flat(rate).to(current.dtype).unsqueeze(0)
            current, by_rate, *by_learned = through(normalisation, current, factor, row, layout)
            by_terms += [_apart(layout.restore(by_rate[0]), by_terms), *by_learned]
            factor = None
        return (
            None,
            None,
            (delta * leak_eligibility).sum() if needs[2] else None,
            (delta * threshold_eligibility).sum() if needs[3] else None,
            *by_terms,
        )


def _spikes(
    terms: Sequence[Term], carry: Tensor | None, leak: Tensor, threshold: Tensor, timesteps: int, rule: NeuronRule
) -> tuple[Tensor, Tensor]:
    layout = Layout.of(terms[0].sequence)
    flat = _flat(terms, layout)
    arguments = (layout.channels, _flat_carry(carry, layout, flat), leak, threshold, timesteps, rule)
    spikes, last = passes_for(flat[0].values, rule).spikes(flat, *arguments)
    return layout.restore(spikes), layout.restore(last)


def _apart(gradient: Tensor, others: Sequence[Tensor | None]) -> Tensor:
    """A copy where another term's gradient lies in the same memory: autograd adds to those of leaves in place."""
    shared = any(other is not None and other.data_ptr() == gradient.data_ptr() for other in others)
    return gradient.clone() if shared else gradient


def _learned(term: Term) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if term.normalisation is None else (term.normalisation.weight, term.normalisation.bias)


def _terms(current: Tensor | Sequence[Term], timesteps: int) -> list[Term]:
    terms = [Term(current)] if isinstance(current, Tensor) else list(current)
    shapes = [tuple(term.sequence.shape[1:]) for term in terms]
    if len(terms) not in (1, 2) or shapes[0] != shapes[-1]:
        raise InputError(f"a current is one term, or two whose steps have one shape, not {shapes}")
    for term in terms:
        steps = term.sequence.shape[0]
        if timesteps < 1 or steps not in (1, timesteps):
            raise InputError(f"the current has {steps} time steps, the neurons run {timesteps}: give 1 or as many")
    return terms


def _flat(terms: Sequence[Term], layout: Layout) -> list[FlatTerm]:
    dtype = _common_dtype(terms)
    flat = []
    for term in terms:
        values, norm = layout.flat(term.sequence).to(dtype), term.normalisation
        scale, shift = (None, None) if norm is None else (norm.scale, norm.shift)
        flat.append(FlatTerm(values, scale, shift, term.is_spare))
    return flat


def _common_dtype(terms: Sequence[Term]) -> torch.dtype:
    return functools.reduce(torch.promote_types, (term.sequence.dtype for term in terms))


def _flat_carry(carry: Tensor | None, layout: Layout, terms: Sequence[FlatTerm]) -> Tensor | None:
    if carry is None:
        return None
    return layout.flat(carry).to(torch.promote_types(terms[0].values.dtype, torch.float32))
