"""Currents of normalised terms: the same sums written out, in float64, for autograd to differentiate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from spikestill.dynamics import (
    ATan,
    NeuronRule,
    Normalisation,
    Term,
    batch_moments,
    normalise,
    rate_forward,
    rate_sequence,
    spike_sequence,
    time_mean,
)
from spikestill.dynamics.backend import passes_for
from spikestill.types import InputError
from tests.reference.plain_neuron import hard_step, simulate
from tests.reference.two_pass import smoothed_rate

RULES = [
    NeuronRule(*parts)
    for parts in itertools.product(("soft", "hard"), ("reset-then-leak", "leak-then-subtract"), (True, False))
]
T, EPS = 6, 1e-5
STEP = (3, 4, 5, 7)

Statistics = Literal["batch", "running"] | None


@dataclass(frozen=True)
class Summand:
    """One term as a test wants it: whose statistics normalise it, with which parameters, and whether it moves."""

    statistics: Statistics = None
    affine: bool = True
    moves: bool = True

    def __str__(self) -> str:
        kind = self.statistics or "as it is"
        return f"{kind}{'' if self.affine else ', not affine'}{'' if self.moves else ', constant'}"


SUMS: list[tuple[Summand, ...]] = [
    (Summand(),),
    (Summand(moves=False),),
    (Summand("batch"),),
    (Summand("batch", affine=False),),
    (Summand("batch", moves=False),),
    (Summand("running"),),
    (Summand("running", affine=False),),
    (Summand("running", moves=False),),
    (Summand(), Summand()),
    (Summand("batch"), Summand("batch")),
    (Summand("batch"), Summand("running")),
    (Summand("batch"), Summand()),
    (Summand(), Summand("batch", affine=False)),
    (Summand("batch"), Summand("batch", moves=False)),
    (Summand("batch", moves=False), Summand()),
    (Summand("running", moves=False), Summand(moves=False)),
]


def sum_name(value: Any) -> str | None:
    return " + ".join(map(str, value)) if isinstance(value, tuple) else None


def rule_name(value: Any) -> str | None:
    if not isinstance(value, NeuronRule):
        return None
    return f"{value.reset}-{value.order}-{'detached' if value.detach_reset else 'kept'}"


class Values:
    """The leaves of a computation, drawn in float32 and kept in some dtype: its gradients are asked of them."""

    def __init__(self, summands: Sequence[Summand], step: tuple[int, ...] = STEP) -> None:
        self.summands = summands
        self.sequences = [torch.randn(T if item.moves else 1, *step) * 1.5 + 0.4 for item in summands]
        self.affine = [(torch.rand(step[1]) + 0.5, torch.randn(step[1]) / 2) for _ in summands]
        self.running = [(torch.randn(step[1]) / 2, torch.rand(step[1]) + 0.5) for _ in summands]
        self.leak, self.threshold = torch.tensor(0.7), torch.tensor(0.9)

    def to(self, dtype: torch.dtype) -> Values:
        made = object.__new__(Values)
        made.summands = self.summands
        made.sequences = [item.to(dtype, copy=True).requires_grad_() for item in self.sequences]
        parameters = torch.promote_types(dtype, torch.float32)
        made.affine = [
            (weight.to(parameters, copy=True).requires_grad_(), bias.to(parameters, copy=True).requires_grad_())
            for weight, bias in self.affine
        ]
        made.running = [(mean.to(parameters), variance.to(parameters)) for mean, variance in self.running]
        made.leak, made.threshold = (
            item.to(parameters, copy=True).requires_grad_() for item in (self.leak, self.threshold)
        )
        return made

    def weights(self, place: int) -> tuple[Tensor | None, Tensor | None]:
        return self.affine[place] if self.summands[place].affine else (None, None)

    def leaves(self, firsts: Sequence[Tensor]) -> list[Tensor]:
        """What is differentiated by: first the sequences or their rates, then all else that is used."""
        used = [self.affine[k] for k, item in enumerate(self.summands) if item.statistics and item.affine]
        return [*firsts, *itertools.chain(*used), self.leak, self.threshold]

    def terms(self, rates: Sequence[Tensor | None] | None = None) -> list[Term]:
        made = []
        for k, (item, sequence) in enumerate(zip(self.summands, self.sequences, strict=True)):
            norm = None
            if item.statistics:
                mean, variance = batch_moments(sequence)[:2] if item.statistics == "batch" else self.running[k]
                norm = Normalisation(mean, (variance + EPS).rsqrt(), *self.weights(k), item.statistics == "batch")
            made.append(Term(sequence if rates is None else sequence.detach(), norm, rates[k] if rates else None))
        return made

    def normalised(self, place: int, sequence: Tensor) -> Tensor:
        """The sequence ``[T, B, C, ...]`` through torch's own normalisation of all its steps."""
        item = self.summands[place]
        if item.statistics is None:
            return sequence
        of_batch = item.statistics == "batch"
        mean, variance = (None, None) if of_batch else self.running[place]
        together = functional.batch_norm(
            sequence.flatten(0, 1), mean, variance, *self.weights(place), training=of_batch, eps=EPS
        )
        return together.unflatten(0, (len(sequence), -1))


def steps_of(sequences: Sequence[Tensor]) -> list[Tensor]:
    total = sum(sequence.expand(T, *sequence.shape[1:]) for sequence in sequences)
    assert isinstance(total, Tensor)
    return list(total)


def through_time(values: Values, rule: NeuronRule) -> tuple[Tensor, Tensor]:
    """Spikes and last carry, written out."""
    currents = steps_of([values.normalised(k, sequence) for k, sequence in enumerate(values.sequences)])
    fire = hard_step(rule.surrogate.derivative, at_threshold=rule.order == "reset-then-leak")
    spikes, potentials = simulate(
        currents,
        values.leak,
        values.threshold,
        fire,
        reset=rule.reset,
        order=rule.order,
        detach_reset=rule.detach_reset,
    )
    last = spikes[-1].detach() if rule.detach_reset else spikes[-1]
    return spikes, rule.carry(potentials[-1], last, values.leak, values.threshold)


def through_rates(values: Values, rates: Sequence[Tensor], rule: NeuronRule) -> Tensor:
    """The rate, written out: moving a term's rate moves all its steps, the statistics of the sequence with them."""
    shifted, still = [], []
    for k, (sequence, rate) in enumerate(zip(values.sequences, rates, strict=True)):
        shifted.append(values.normalised(k, sequence.detach() + (rate - rate.detach())).mean(0))
        still.append(values.normalised(k, sequence).detach())
    moved = sum(item - item.detach() for item in shifted)
    neuron: Any = SimpleNamespace(rule=rule, leak=values.leak, threshold=values.threshold, initial=None)
    return smoothed_rate([step + moved for step in steps_of(still)], neuron)


def close(got: Tensor | None, expected: Tensor | None, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance, check_dtype=False)


# ----------------------------------------------------------------------------------------------------- in float64


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("summands", SUMS, ids=sum_name)
def test_through_time_terms_are_what_they_stand_for(summands: tuple[Summand, ...], rule: NeuronRule) -> None:
    values = Values(summands).to(torch.float64)
    leaves = values.leaves(values.sequences)
    ours = spike_sequence(values.terms(), values.leak, values.threshold, T, rule)
    theirs = through_time(values, rule)
    assert torch.equal(ours[0], theirs[0])
    assert 0.05 < float(ours[0].detach().mean()) < 0.9
    close(ours[1], theirs[1])
    weights, by_last = torch.randn_like(ours[0]), torch.randn_like(ours[1])
    for used in ((1, 0), (0, 1), (1, 1)):
        gradients = []
        for spikes, last in (ours, theirs):
            loss = used[0] * (spikes * weights).sum() + used[1] * (last * by_last).sum()
            gradients.append(torch.autograd.grad(loss, leaves, retain_graph=True))
        for got, expected in zip(*gradients, strict=True):
            close(got, expected)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("summands", SUMS, ids=sum_name)
def test_through_rates_terms_are_what_they_stand_for(summands: tuple[Summand, ...], rule: NeuronRule) -> None:
    values = Values(summands).to(torch.float64)
    rates = [sequence.detach().mean(0).requires_grad_() for sequence in values.sequences]
    spikes, rate = rate_sequence(values.terms(rates), values.leak, values.threshold, T, rule)
    assert not spikes.requires_grad
    assert torch.equal(spikes, through_time(values, rule)[0])
    theirs = through_rates(values, rates, rule)
    close(rate, theirs)
    delta, leaves = torch.randn_like(rate), values.leaves(rates)
    for got, expected in zip(
        torch.autograd.grad(rate, leaves, delta), torch.autograd.grad(theirs, leaves, delta), strict=True
    ):
        close(got, expected)


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_the_rate_gradient_formula_by_formula(statistics: Statistics) -> None:
    """``delta * E`` through ``(r - mean) * inverse * weight + bias``, mean and variance functions of all the steps."""
    values, rule = Values((Summand(statistics),)).to(torch.float64), NeuronRule()
    rates = [values.sequences[0].detach().mean(0).requires_grad_()]
    terms = values.terms(rates)
    norm, (weight, bias) = terms[0].normalisation, values.affine[0]
    assert norm is not None
    eligibility = rate_forward(terms, values.leak, values.threshold, T, rule)[2].current
    _, rate = rate_sequence(terms, values.leak, values.threshold, T, rule)
    delta = torch.randn_like(rate)
    by_rate, by_weight, by_bias = torch.autograd.grad(rate, (rates[0], weight, bias), delta)

    table, axes = (1, -1, 1, 1), (0, 2, 3)
    d = delta * eligibility
    normal = (rates[0].detach() - norm.mean.view(table)) * norm.inverse_deviation.view(table)
    close(by_bias, d.sum(axes))
    close(by_weight, (d * normal).sum(axes))
    expected = d
    if statistics == "batch":
        expected = d - d.mean(axes).view(table) - normal * (d * normal).mean(axes).view(table)
    close(by_rate, expected * (norm.inverse_deviation * weight.detach()).view(table))


@pytest.mark.parametrize("summands", [SUMS[2], SUMS[10]], ids=sum_name)
def test_a_carry_goes_through_terms_as_through_their_sum(summands: tuple[Summand, ...]) -> None:
    values, rule = Values(summands).to(torch.float64), NeuronRule(detach_reset=False)
    carry = torch.randn(STEP, dtype=torch.float64, requires_grad=True)
    written = torch.stack(steps_of([values.normalised(k, item) for k, item in enumerate(values.sequences)]))
    results = []
    for current in (values.terms(), written):
        spikes, last = spike_sequence(current, values.leak, values.threshold, T, rule, carry)
        loss = (spikes * torch.arange(spikes.numel()).view(spikes.shape)).sum() / 100 + last.sum()
        leaves = [carry, *values.leaves(values.sequences)]
        results.append((spikes, last, *torch.autograd.grad(loss, leaves, retain_graph=True)))
    for got, expected in zip(*results, strict=True):
        close(got, expected)


# ------------------------------------------------------------------------------------------- in float32 and bfloat16


def agreeing(ours: Tensor, theirs: Tensor) -> Tensor:
    """The neurons whose every spike is the same: a current at the threshold may round to either side."""
    same = (ours == theirs).all(0)
    assert same.double().mean() > 0.995
    return same.double()


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("summands", SUMS, ids=sum_name)
def test_kernels_in_float32_are_within_rounding_of_float64(summands: tuple[Summand, ...], rule: NeuronRule) -> None:
    drawn = Values(summands)
    single, double = drawn.to(torch.float32), drawn.to(torch.float64)
    ours = spike_sequence(single.terms(), single.leak, single.threshold, T, rule)
    theirs = spike_sequence(double.terms(), double.leak, double.threshold, T, rule)
    mask = agreeing(ours[0], theirs[0])
    weights, by_last = torch.randn(T, *STEP) * mask, torch.randn(STEP) * mask
    gradients = [
        torch.autograd.grad((spikes * weights).sum() + (last * by_last).sum(), values.leaves(values.sequences))
        for (spikes, last), values in ((ours, single), (theirs, double))
    ]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)

    results = []
    for values in (single, double):
        rates = [time_mean(sequence).requires_grad_() for sequence in values.sequences]
        _, rate = rate_sequence(values.terms(rates), values.leak, values.threshold, T, rule)
        leaves = values.leaves(rates)
        results.append((rate * mask, *torch.autograd.grad((rate * weights[0]).sum(), leaves)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("summands", SUMS, ids=sum_name)
def test_kernels_in_bfloat16_have_the_spikes_of_float32(summands: tuple[Summand, ...]) -> None:
    drawn, rule = Values(summands).to(torch.bfloat16), NeuronRule(detach_reset=False, surrogate=ATan())
    single = Values(summands)
    single.sequences = [item.detach().float().requires_grad_() for item in drawn.sequences]
    single.affine, single.running = drawn.affine, drawn.running
    single.leak, single.threshold = drawn.leak, drawn.threshold
    ours, theirs = (
        spike_sequence(values.terms(), values.leak, values.threshold, T, rule) for values in (drawn, single)
    )
    assert ours[0].dtype == torch.bfloat16
    assert ours[1].dtype == torch.float32
    if len(summands) == 1:
        assert torch.equal(ours[0].float(), theirs[0])
    mask = agreeing(ours[0], theirs[0])
    weights = (torch.randn(T, *STEP).bfloat16() * mask).bfloat16()
    got = torch.autograd.grad((ours[0] * weights).float().sum(), drawn.leaves(drawn.sequences))
    expected = torch.autograd.grad((theirs[0] * weights).sum(), single.leaves(single.sequences))
    for mine, judge, leaf in zip(got, expected, drawn.leaves(drawn.sequences), strict=True):
        assert mine.dtype == leaf.dtype
        size = float(judge.abs().max())
        torch.testing.assert_close(mine.float(), judge, rtol=2e-2, atol=1e-2 * size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_terms_of_two_dtypes_are_added_in_the_wider_one(dtype: torch.dtype) -> None:
    first = torch.randn(T, *STEP).bfloat16().requires_grad_()
    second = torch.randn(T, *STEP).to(dtype).requires_grad_()
    arguments = (torch.tensor(0.7), torch.tensor(0.9), T, NeuronRule())
    spikes, carry = spike_sequence([Term(first), Term(second)], *arguments)
    assert spikes.dtype == dtype
    assert carry.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    spikes.sum().backward()
    assert first.grad is not None
    assert second.grad is not None
    assert (first.grad.dtype, second.grad.dtype) == (torch.bfloat16, dtype)
    torch.testing.assert_close(first.grad, second.grad.bfloat16())
    rates = [time_mean(item).requires_grad_() for item in (first, second)]
    terms = [Term(item.detach(), rate=rate) for item, rate in zip((first, second), rates, strict=True)]
    counted, rate = rate_sequence(terms, *arguments)
    assert torch.equal(counted, spikes)
    by_rates = torch.autograd.grad(rate.sum(), rates)
    assert [item.dtype for item in by_rates] == [torch.bfloat16, dtype]


def layouts(step: Tensor) -> Iterator[Tensor]:
    yield step
    yield step.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, step.shape[:2])
    yield step.transpose(1, 3).contiguous().transpose(1, 3)
    yield step.transpose(0, 4).contiguous().transpose(0, 4)
    yield torch.stack((step, -step), -1)[..., 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_layout_of_two_terms_changes_a_result(dtype: torch.dtype) -> None:
    drawn = Values((Summand("batch"), Summand("running")))
    rule, results = NeuronRule(detach_reset=False), []
    weights = torch.randn(T, *STEP, dtype=dtype)
    for one, other in itertools.product(*(layouts(sequence) for sequence in drawn.sequences)):
        values = drawn.to(dtype)
        values.sequences = [item.to(dtype).detach().requires_grad_() for item in (one, other)]
        rates = [sequence.detach().mean(0).requires_grad_() for sequence in values.sequences]
        spikes, carry = spike_sequence(values.terms(), values.leak, values.threshold, T, rule)
        by_time = torch.autograd.grad((spikes * weights).sum(), values.leaves(values.sequences))
        _, rate = rate_sequence(values.terms(rates), values.leak, values.threshold, T, rule)
        by_rate = torch.autograd.grad((rate * weights[0]).sum(), values.leaves(rates))
        results.append((spikes, carry, *by_time, rate, *by_rate))
    for result in results[1:]:
        agreeing(result[0], results[0][0])
        for got, expected in zip(result, results[0], strict=True):
            close(got, expected, 1e-10 if dtype == torch.float64 else 1e-4)


# ------------------------------------------------------------------------------------------------------- in general


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spare", [(True, False), (False, True), (True, True)])
def test_a_spare_term_gives_the_same(spare: tuple[bool, bool], dtype: torch.dtype) -> None:
    drawn, results = Values((Summand("batch"), Summand())), []
    for used in ((False, False), spare):
        values = drawn.to(dtype)
        rates = [time_mean(sequence).requires_grad_() for sequence in values.sequences]
        terms = [
            replace(term, sequence=term.sequence.clone(), is_spare=is_spare)
            for term, is_spare in zip(values.terms(rates), used, strict=True)
        ]
        spikes, rate = rate_sequence(terms, values.leak, values.threshold, T, NeuronRule(detach_reset=False))
        overwritten = [spikes.data_ptr() == term.sequence.data_ptr() for term in terms]
        assert sum(overwritten) == any(used)
        results.append((spikes.clone(), rate, *torch.autograd.grad(rate.float().square().sum(), values.leaves(rates))))
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


def test_spikes_through_time_leave_every_term_as_it_is() -> None:
    values = Values((Summand("batch"), Summand())).to(torch.float32)
    before = [sequence.detach().clone() for sequence in values.sequences]
    spike_sequence(values.terms(), values.leak, values.threshold, T, NeuronRule())[0].sum().backward()
    for sequence, kept in zip(values.sequences, before, strict=True):
        assert torch.equal(sequence, kept)


@pytest.mark.parametrize("through", ["time", "rates"])
def test_a_weight_that_changes_before_the_backward_pass_is_noticed(through: str) -> None:
    values = Values((Summand("batch"),)).to(torch.float32)
    rates = [time_mean(values.sequences[0]).requires_grad_()]
    neuron = (values.leak, values.threshold, T, NeuronRule())
    if through == "time":
        result = spike_sequence(values.terms(), *neuron)[0]
    else:
        result = rate_sequence(values.terms(rates), *neuron)[1]
    with torch.no_grad():
        values.affine[0][0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.parametrize("through", ["time", "rates"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("moves", [True, False])
def test_gradients_of_two_terms_add_up_each_for_itself(moves: bool, dtype: torch.dtype, through: str) -> None:
    """Leaves keep the gradient that they are given, and the next backward pass adds to it in place."""
    values = Values((Summand(moves=moves), Summand(moves=moves))).to(dtype)
    rates = [time_mean(sequence).requires_grad_() for sequence in values.sequences]
    leaves = values.sequences if through == "time" else rates
    seen: list[list[Tensor]] = []
    for _ in range(2):
        neuron = (values.leak, values.threshold, T, NeuronRule())
        result = spike_sequence(values.terms(), *neuron)[0] if through == "time" else None
        (rate_sequence(values.terms(rates), *neuron)[1] if result is None else result).sum().backward()
        seen.append([leaf.grad.clone() for leaf in leaves if leaf.grad is not None])
    assert len(seen[0]) == 2
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert leaves[0].grad.data_ptr() != leaves[1].grad.data_ptr()
    for once, twice in zip(*seen, strict=True):
        close(twice, 2 * once, 1e-6)


@pytest.mark.parametrize("frozen", ["sequence", "weight", "bias", "leak", "threshold"])
@pytest.mark.parametrize("through", ["time", "rates"])
def test_what_needs_no_gradient_gets_none_and_changes_no_other(through: str, frozen: str) -> None:
    drawn, results = Values((Summand("batch"),)), []
    for stops in (False, True):
        values = drawn.to(torch.float64)
        rates = [time_mean(values.sequences[0]).requires_grad_()]
        first = values.sequences[0] if through == "time" else rates[0]
        parts = dict(zip(("sequence", "weight", "bias", "leak", "threshold"), values.leaves([first]), strict=True))
        parts[frozen].requires_grad_(not stops)
        neuron = (values.leak, values.threshold, T, NeuronRule(detach_reset=False))
        result = spike_sequence(values.terms(), *neuron)[0] if through == "time" else None
        (rate_sequence(values.terms(rates), *neuron)[1] if result is None else result).square().sum().backward()
        results.append({part: tensor.grad for part, tensor in parts.items()})
    assert results[1].pop(frozen) is None
    for part, gradient in results[1].items():
        close(gradient, results[0][part], 1e-14)


def test_a_rate_without_gradient_does_not_reach_autograd() -> None:
    values = Values((Summand("batch"), Summand()))
    rates = [sequence.mean(0) for sequence in values.sequences]
    spikes, rate = rate_sequence(values.terms(rates), values.leak, values.threshold, T, NeuronRule())
    assert not rate.requires_grad
    assert not spikes.requires_grad


def test_terms_that_are_no_current_are_refused() -> None:
    arguments = (torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())
    good = Term(torch.randn(4, 2, 3))
    for function in (spike_sequence, rate_sequence, rate_forward):
        for terms in ([], [good] * 3, [good, Term(torch.randn(4, 2, 1))], [good, Term(torch.randn(4, 3))]):
            with pytest.raises(InputError, match="a current is one term, or two whose steps have one shape"):
                function(terms, *arguments)
        with pytest.raises(InputError, match="the current has 3 time steps, the neurons run 4"):
            function([good, Term(torch.randn(3, 2, 3))], *arguments)


# ------------------------------------------------------------------------------------------- statistics and the map

SHAPES = [(T, *STEP), (1, *STEP), (5, 8, 3), (4, 2, 3, 9), (3, 2, 4, 3, 5, 2), (2, 1, 300, 1, 1), (3, 2, 1, 17, 17)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_moments_are_torch_s(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    sequence = torch.randn(shape, dtype=torch.float64) * 2 + torch.randn(shape[2:3]).view(-1, *[1] * len(shape[3:]))
    sequence = sequence.to(dtype)
    axes = [axis for axis in range(len(shape)) if axis != 2]
    variance, mean = torch.var_mean(sequence.double(), axes, correction=0)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for given in layouts(sequence) if len(shape) == 5 else [sequence]:
        ours = batch_moments(given)
        exact = torch.promote_types(dtype, torch.float32)
        assert [item.dtype for item in ours] == [exact, exact, dtype]
        close(ours[0], mean, tolerance)
        close(ours[1], variance, tolerance)
        torch.testing.assert_close(ours[2], sequence.double().mean(0).to(dtype))
        assert torch.equal(ours[2], time_mean(given))


def test_the_moments_of_no_value_are_0_and_1() -> None:
    for shape in ((4, 0, 3, 5, 5), (4, 2, 3, 0)):
        mean, variance, over_time = batch_moments(torch.randn(shape))
        assert mean.tolist() == [0, 0, 0]
        assert variance.tolist() == [1, 1, 1]
        assert over_time.shape == shape[1:]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normalise_is_torch_s_batch_norm(shape: tuple[int, ...], dtype: torch.dtype, affine: bool) -> None:
    sequence = (torch.randn(shape, dtype=torch.float64) * 2 + 1).to(dtype)
    exact = torch.promote_types(dtype, torch.float32)
    parameters = (torch.rand(shape[2], dtype=exact), torch.randn(shape[2], dtype=exact)) if affine else (None, None)
    mean, variance, _ = batch_moments(sequence)
    ours = normalise(sequence, Normalisation(mean, (variance + EPS).rsqrt(), *parameters, True))
    weights = [None if item is None else item.double() for item in parameters]
    theirs = functional.batch_norm(sequence.double().flatten(0, 1), None, None, *weights, training=True, eps=EPS)
    assert ours.dtype == dtype
    assert not ours.requires_grad
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype)
    options = {} if tolerance is None else {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(ours.flatten(0, 1), theirs.to(dtype), **options)


def test_a_normalised_map_keeps_the_layout_of_the_sequence() -> None:
    sequence = torch.randn(6, 4, 5, 7).to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    mean, variance, over_time = batch_moments(sequence)
    result = normalise(sequence, Normalisation(mean, (variance + EPS).rsqrt(), None, None, True))
    assert result.stride() == sequence.stride()
    assert over_time.is_contiguous(memory_format=torch.channels_last)


def test_scale_and_shift_are_the_map_outside_autograd() -> None:
    mean, inverse, weight, bias = torch.randn(4, 3).unbind()
    weight, bias = (item.clone().requires_grad_() for item in (weight, bias))
    x = torch.randn(5, 3)
    for some_weight, some_bias in itertools.product((weight, None), (bias, None)):
        norm = Normalisation(mean, inverse, some_weight, some_bias, False)
        written = (x - mean) * inverse * (1 if some_weight is None else some_weight)
        written = written + (0 if some_bias is None else some_bias)
        close(x * norm.scale + norm.shift, written.detach(), 1e-5)
        assert not norm.scale.requires_grad
        assert not norm.shift.requires_grad


def test_the_statistics_of_large_values_are_those_of_small_ones() -> None:
    small = torch.randn(4, 8, 3, 20)
    mean, variance, _ = batch_moments(small + 1e4)
    expected = (small + 1e4).double()
    close(mean.double(), expected.mean((0, 1, 3)), 1e-6)
    close(variance.double(), expected.var((0, 1, 3), correction=0), 1e-5)


def test_no_neurons_at_all_are_no_error() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for shape in ((0, 4, 5, 7), (2, 4, 0, 7)):
            values = Values((Summand("batch"), Summand("running")), shape).to(dtype)
            rates = [sequence.detach().mean(0).requires_grad_() for sequence in values.sequences]
            neuron = (values.leak, values.threshold, T, NeuronRule())
            spikes = spike_sequence(values.terms(), *neuron)[0]
            rate = rate_sequence(values.terms(rates), *neuron)[1]
            (spikes.sum() + rate.sum()).backward()
            for leaf in (*values.leaves(values.sequences), *rates):
                assert leaf.grad is not None
                assert not leaf.grad.any()


def test_these_tests_run_on_the_kernels() -> None:
    assert passes_for(torch.randn(2, 3), NeuronRule()).__name__.endswith(".native")
    assert passes_for(torch.randn(2, 3).double(), NeuronRule()).__name__.endswith(".plain")
