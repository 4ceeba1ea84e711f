"""The compiled passes against the plain ones, which are their oracle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikestill.dynamics import ATan, Linear, NeuronRule, Rectangular, Sigmoid, Triangle, native, plain
from spikestill.dynamics.layout import Channels, FlatTerm
from tests.dynamics.rate_in_parts import rate_in_parts

HOW_THEY_RESET = itertools.product(("soft", "hard"), ("reset-then-leak", "leak-then-subtract"), (True, False))
HOW = [NeuronRule(*parts, Sigmoid(4.0)) for parts in HOW_THEY_RESET]
# A surrogate's code does not depend on the reset; each rule of its own takes seconds to compile on a new machine.
RULES = [*HOW, *(NeuronRule(surrogate=one) for one in (Linear(0.3), ATan(2.0), Triangle(1.0), Rectangular(0.8)))]
DTYPES = (torch.float32, torch.bfloat16)
LEAK, THRESHOLD = torch.tensor(0.7), torch.tensor(1.2)
BLOCK = 256


def name(value: object) -> str | None:
    if not isinstance(value, NeuronRule):
        return None
    detached = "detached" if value.detach_reset else "kept"
    return f"{value.reset}-{value.order}-{detached}-{type(value.surrogate).__name__}"


def random_term(steps: int, neurons: int, channels: int, scaled: bool, dtype: torch.dtype) -> FlatTerm:
    values = (torch.randn(steps, neurons) * 1.5).to(dtype)
    return FlatTerm(values, torch.rand(channels) + 0.5, torch.randn(channels) / 2) if scaled else FlatTerm(values)


def same(got: Tensor | None, expected: Tensor | None) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def close(got: Tensor | None, expected: Tensor | None, absolute: float = 2e-5) -> None:
    relative = 1e-2 if got is not None and got.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got, expected, rtol=relative, atol=absolute)


def assert_passes_agree(
    terms: Sequence[FlatTerm],
    channels: Channels,
    timesteps: int,
    rule: NeuronRule,
    carry: Tensor | None = None,
    by_last: Tensor | None = None,
    learn: bool = True,
) -> None:
    """All three passes of the neurons, both ways."""
    neuron = (LEAK, THRESHOLD, timesteps, rule)
    by_spikes = torch.randn(timesteps, terms[0].values.shape[1]).to(terms[0].values.dtype)
    for got, expected in zip(
        native.spikes(terms, channels, carry, *neuron), plain.spikes(terms, channels, carry, *neuron), strict=True
    ):
        same(got, expected)
    ours, judge = (backend.rate(terms, channels, carry, *neuron, learn) for backend in (native, plain))
    same(ours[0], judge[0])
    same(ours[1], judge[1])
    for got, expected in zip(ours[2:], judge[2:], strict=True):
        close(got, expected)
    parts = [part for part in (timesteps // 3, timesteps - timesteps // 3) if part]
    for backend, whole in ((native, ours), (plain, judge)):
        in_parts = rate_in_parts(backend, parts, terms, channels, carry, LEAK, THRESHOLD, rule, learn)
        for got, expected in zip(in_parts, whole, strict=True):
            same(got, expected)
    ours, judge = (
        backend.spikes_backward(by_spikes, by_last, terms, channels, carry, *neuron, learn)
        for backend in (native, plain)
    )
    for got, expected in zip(ours[:2], judge[:2], strict=True):
        close(got, expected)
    for got, expected in zip(ours[2:], judge[2:], strict=True):
        close(got, expected, 1e-6 * by_spikes.numel() + 1e-5)


# --------------------------------------------------------------------------------------------------------- neurons


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=name)
def test_every_rule_is_the_plain_one(rule: NeuronRule, dtype: torch.dtype) -> None:
    assert native.covers(dtype, rule)
    neurons, channels = 4 * 3 * 30, Channels(3, 30)
    assert_passes_agree([random_term(7, neurons, 3, False, dtype)], channels, 7, rule)
    two = [random_term(7, neurons, 3, True, dtype), random_term(1, neurons, 3, True, dtype)]
    assert_passes_agree(two, channels, 7, rule, torch.randn(neurons), torch.randn(neurons))
    spikes = native.spikes(two, channels, None, LEAK, THRESHOLD, 7, rule)[0]
    assert set(spikes.unique().tolist()) == {0, 1}
    assert 0.02 < spikes.float().mean() < 0.9


@settings(max_examples=150)
@given(st.data())
def test_every_shape_is_the_plain_one(data: st.DataObject) -> None:
    rule, dtype = data.draw(st.sampled_from(RULES)), data.draw(st.sampled_from(DTYPES))
    inner = data.draw(st.sampled_from([1, 1, 2, 7, 49, BLOCK - 1, BLOCK, BLOCK + 1]))
    channels = data.draw(st.sampled_from([1, 2, 3, 10, BLOCK, BLOCK + 44, 3 * BLOCK] if inner == 1 else [1, 2, 3, 5]))
    batch = data.draw(st.integers(0, 5))
    timesteps = data.draw(st.integers(1, 20))
    neurons = batch * channels * inner
    terms = []
    for _ in range(data.draw(st.integers(1, 2))):
        steps = data.draw(st.sampled_from([1, timesteps]))
        term = random_term(steps, neurons, channels, data.draw(st.booleans()), dtype)
        if data.draw(st.booleans()):
            spread = torch.stack((term.values, -term.values), -1)[..., 0]
            term = FlatTerm(spread, term.scale, term.shift)
        terms.append(term)
    carry, by_last = (torch.randn(neurons) if data.draw(st.booleans()) else None for _ in range(2))
    learn = data.draw(st.booleans())
    assert_passes_agree(terms, Channels(channels, inner), timesteps, rule, carry, by_last, learn)


@pytest.mark.parametrize("rule", HOW, ids=name)
def test_nothing_needs_to_be_contiguous(rule: NeuronRule) -> None:
    neurons, channels = 300, Channels(10, 6)
    whole = torch.randn(neurons, 5, 2)
    values = whole[..., 0].T
    assert not values.is_contiguous()
    terms = [
        FlatTerm(values, torch.rand(10, 2)[:, 0] + 0.5, torch.randn(1).expand(10)),
        FlatTerm(torch.randn(5, 1).expand(5, neurons)),
    ]
    assert_passes_agree(terms, channels, 5, rule, torch.randn(1).expand(neurons), torch.randn(neurons, 2)[:, 1])
    neuron = (LEAK, THRESHOLD, 5, rule)
    by_spikes = torch.randn(()).expand(5, neurons)
    ours, judge = (
        backend.spikes_backward(by_spikes, None, terms, channels, None, *neuron, True) for backend in (native, plain)
    )
    for got, expected in zip(ours, judge, strict=True):
        close(got, expected, 1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", HOW, ids=name)
def test_spikes_may_take_the_place_of_a_spare_term(rule: NeuronRule, dtype: torch.dtype) -> None:
    channels, neuron = Channels(4, 80), (LEAK, THRESHOLD, 5, rule)
    for spare in ((True, False), (False, True), (True, True)):
        terms = [random_term(5, 640, 4, scaled, dtype) for scaled in (True, False)]
        expected = plain.spikes(terms, channels, None, *neuron), plain.rate(terms, channels, None, *neuron, False)
        for backend_pass, wanted in zip((native.spikes, native.rate), expected, strict=True):
            copies = [
                FlatTerm(term.values.clone(), term.scale, term.shift, is_spare)
                for term, is_spare in zip(terms, spare, strict=True)
            ]
            rest = (None, *neuron) if backend_pass is native.spikes else (None, *neuron, False)
            got = backend_pass(copies, channels, *rest)
            same(got[0], wanted[0])
            same(got[1], wanted[1])
            assert got[0].data_ptr() in [term.values.data_ptr() for term in copies if term.is_spare]


def test_a_spare_term_that_is_constant_in_time_stays_as_it_is() -> None:
    term = FlatTerm(torch.randn(1, 100), is_spare=True)
    before = term.values.clone()
    spikes, _ = native.spikes([term], Channels(1, 100), None, LEAK, THRESHOLD, 4, NeuronRule())
    assert spikes.shape == (4, 100)
    assert torch.equal(term.values, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=name)
def test_what_is_not_finite_is_where_the_plain_passes_have_it(rule: NeuronRule, dtype: torch.dtype) -> None:
    neurons, neuron = 500, (LEAK, THRESHOLD, 4, rule)
    values = torch.randn(4, neurons).to(dtype)
    for place, value in ((3, "nan"), (130, "inf"), (255, "-inf"), (256, "nan"), (499, "inf")):
        values[1, place] = float(value)
    terms, channels = [FlatTerm(values)], Channels(1, neurons)
    for got, expected in zip(
        native.spikes(terms, channels, None, *neuron), plain.spikes(terms, channels, None, *neuron), strict=True
    ):
        same(got, expected)
    ours, judge = (backend.rate(terms, channels, None, *neuron, True) for backend in (native, plain))
    same(ours[0], judge[0])
    same(ours[1], judge[1])
    by_spikes = torch.randn(4, neurons).to(dtype)
    backward = [
        backend.spikes_backward(by_spikes, None, terms, channels, None, *neuron, False)[:2]
        for backend in (native, plain)
    ]
    for got, expected in zip((*ours[2:], *backward[0]), (*judge[2:], *backward[1]), strict=True):
        assert got is not None
        assert expected is not None
        finite = expected.isfinite()
        assert torch.equal(got.isfinite(), finite)
        close(got[finite], expected[finite])
    assert judge[1][[3, 256]].isnan().all()
    assert judge[1][[2, 4, 257]].isfinite().all()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [Channels(5, 1), Channels(7, 33)], ids=str)
def test_threads_change_no_spike(channels: Channels, dtype: torch.dtype) -> None:
    neurons, rule, results = 41 * channels.count * channels.inner, NeuronRule(detach_reset=False), []
    terms = [random_term(200, neurons, channels.count, True, dtype)]
    assert neurons * 200 > 32768, "too little work for a second thread"
    by_spikes = torch.randn(200, neurons).to(dtype)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        neuron = (LEAK, THRESHOLD, 200, rule)
        results.append(
            (
                *native.spikes(terms, channels, None, *neuron),
                *native.rate(terms, channels, None, *neuron, True),
                *native.spikes_backward(by_spikes, None, terms, channels, None, *neuron, True),
                *native.moments(terms[0].values, channels),
            )
        )
    for other in results[1:]:
        for got, expected in zip(other[:9], results[0][:9], strict=True):
            same(got, expected)
        for got, expected in zip(other[9:], results[0][9:], strict=True):
            torch.testing.assert_close(got, expected)


# ---------------------------------------------------------------------------------------------------- normalisation

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 5), st.sampled_from([1, 2, 5, 300]), st.sampled_from([1, 3, 260]))


@given(SHAPES, st.sampled_from(DTYPES), st.booleans())
def test_moments_are_the_plain_ones(shape: tuple[int, int, int, int], dtype: torch.dtype, spread: bool) -> None:
    steps, batch, count, inner = shape
    values = (torch.randn(steps, batch, count, inner) * 2 + torch.randn(count, 1)).to(dtype).flatten(1)
    values = values.T.contiguous().T if spread else values
    ours, judge = (backend.moments(values, Channels(count, inner)) for backend in (native, plain))
    for got, expected in zip(ours[:2], judge[:2], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    close(ours[2], judge[2], 1e-6)
    close(native.time_mean(values), judge[2], 1e-6)


def test_the_variance_is_right_where_the_mean_is_huge() -> None:
    values = torch.randn(6, 8 * 3 * 500) + 1e4
    exact = values.double().view(6, 8, 3, 500)
    mean, variance, _ = native.moments(values, Channels(3, 500))
    torch.testing.assert_close(mean.double(), exact.mean((0, 1, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), exact.var((0, 1, 3), correction=0), rtol=1e-5, atol=0)


def test_a_constant_channel_has_no_variance() -> None:
    mean, variance, _ = native.moments(torch.full((5, 1000), 0.1), Channels(1, 1000))
    torch.testing.assert_close(mean, torch.tensor([0.1]))
    assert variance == 0


@pytest.mark.parametrize("odd", [1e6, float("nan"), float("inf")])
def test_a_neuron_s_mean_over_time_is_its_own(odd: float) -> None:
    values = torch.rand(3, 600) * 1e-3
    values[0, 0] = odd
    for mean in (native.time_mean(values), native.moments(values, Channels(2, 300))[2]):
        torch.testing.assert_close(mean[1:], values[:, 1:].mean(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_not_finite_shows_in_the_moments_of_its_channel(value: str) -> None:
    values = torch.randn(2, 4 * 300)
    values[1, 301] = float(value)
    for moment in native.moments(values, Channels(4, 300))[:2]:
        assert moment.isfinite().tolist() == [True, False, True, True]


@given(SHAPES, st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.booleans())
def test_products_are_the_plain_ones(
    shape: tuple[int, int, int, int], dtype: torch.dtype, factored: bool, summed: bool, spread: bool
) -> None:
    steps, batch, count, inner = shape
    neurons = batch * count * inner
    delta, values = (torch.randn(steps, neurons).to(dtype) for _ in range(2))
    factor = torch.randn(steps, neurons) if factored else None
    mean = torch.randn(count)
    if spread:
        delta, values, mean = delta.T.contiguous().T, values.T.contiguous().T, torch.stack((mean, mean), 1)[:, 0]
        factor = None if factor is None else factor.T.contiguous().T
    arguments = (delta, factor, *((values, mean) if summed else (None, None)), Channels(count, inner))
    ours, judge = (backend.products(*arguments) for backend in (native, plain))
    assert (ours[0] is delta) or ours[0].shape == delta.shape
    same(ours[0], judge[0])
    for got, expected in zip(ours[1:], judge[1:], strict=True):
        assert got.numel() == (count if summed else 0)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * delta.numel() ** 0.5)


@given(SHAPES, st.sampled_from(DTYPES), st.booleans(), st.booleans())
def test_the_affine_map_is_the_plain_one(
    shape: tuple[int, int, int, int], dtype: torch.dtype, added: bool, spread: bool
) -> None:
    steps, batch, count, inner = shape
    values, addend = (torch.randn(steps, batch * count * inner).to(dtype) for _ in range(2))
    tables = [torch.randn(count, 2)[:, 0] for _ in range(3)]
    if spread:
        values, addend = values.T.contiguous().T, addend.T.contiguous().T
    more = (addend, tables[2]) if added else ()
    ours, judge = (backend.affine(values, *tables[:2], Channels(count, inner), *more) for backend in (native, plain))
    same(ours, judge)


def test_tables_in_half_precision_are_read_as_what_they_are() -> None:
    channels, half = Channels(3, 100), torch.randn(3, dtype=torch.bfloat16)
    values = torch.randn(2, 600).bfloat16()
    same(native.affine(values, half, half, channels), plain.affine(values, half, half, channels))
    for got, expected in zip(
        native.products(values, None, values, half, channels),
        plain.products(values, None, values, half, channels),
        strict=True,
    ):
        torch.testing.assert_close(got, expected.to(got.dtype), rtol=1e-2, atol=1e-2)


def test_no_neurons_at_all_are_no_error() -> None:
    nothing, channels, neuron = torch.empty(4, 0), Channels(3, 5), (LEAK, THRESHOLD, 4, NeuronRule())
    table = torch.ones(3)
    for terms in ([FlatTerm(nothing)], [FlatTerm(nothing, table, table), FlatTerm(nothing)]):
        assert_passes_agree(terms, channels, 4, NeuronRule())
        assert native.rate(terms, channels, None, *neuron, False)[0].shape == (4, 0)
    assert native.time_mean(nothing).shape == (0,)
    assert native.affine(nothing, table, table, channels).shape == (4, 0)
    assert native.products(nothing, None, nothing, table, channels)[1].tolist() == [0, 0, 0]


def test_what_is_made_is_made_on_the_cpu() -> None:
    terms, channels, neuron = [random_term(4, 60, 3, True, torch.float32)], Channels(3, 5), (LEAK, THRESHOLD, 4, HOW[0])
    by_spikes = torch.randn(4, 60)
    with torch.device("meta"):
        results = [
            *native.spikes(terms, channels, None, *neuron),
            *native.spikes_backward(by_spikes, None, terms, channels, None, *neuron, True),
            *native.rate(terms, channels, None, *neuron, True),
            *native.moments(by_spikes, channels),
            *native.products(by_spikes, by_spikes, by_spikes, terms[0].scale, channels),
        ]
    assert {result.device.type for result in results if result is not None} == {"cpu"}
