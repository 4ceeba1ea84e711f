"""The Triton passes against the plain ones, which are their oracle.

They run on a CUDA device where there is one. Elsewhere Triton interprets them on the CPU, which it only does in a
process that says so before it imports Triton: one test starts such a process, with all that is marked ``interpreted``.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikestill.dynamics import ATan, Linear, NeuronRule, RateState, Rectangular, Sigmoid, Triangle, plain
from spikestill.dynamics.layout import Channels, FlatTerm
from spikestill.types import InputError
from tests.dynamics.rate_in_parts import rate_in_parts

triton = pytest.importorskip("triton")

from spikestill.dynamics import triton_backend  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

SURROGATES = (Sigmoid(4.0), Linear(0.3), ATan(2.0), Triangle(0.7), Rectangular(0.8))
HOW = [
    NeuronRule(*parts)
    for parts in itertools.product(("soft", "hard"), ("reset-then-leak", "leak-then-subtract"), (True, False))
]
RULES = [
    NeuronRule(how.reset, how.order, how.detach_reset, surrogate)
    for how, surrogate in itertools.product(HOW, SURROGATES)
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAK, THRESHOLD = torch.tensor(0.7, device=DEVICE), torch.tensor(1.2, device=DEVICE)
BLOCK = triton_backend._BLOCK


def interpreted(test: Callable[..., None]) -> Callable[..., None] | None:
    """Leaves a test out where the kernels cannot run."""
    return test if INTERPRETED or DEVICE == "cuda" else None


def name(value: object) -> str | None:
    if not isinstance(value, NeuronRule):
        return None
    detached = "detached" if value.detach_reset else "kept"
    return f"{value.reset}-{value.order}-{detached}-{type(value.surrogate).__name__}"


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE)


def random_term(steps: int, neurons: int, channels: int, scaled: bool, dtype: torch.dtype) -> FlatTerm:
    values = (randn(steps, neurons) * 1.5).to(dtype)
    return FlatTerm(values, randn(channels).abs() + 0.3, randn(channels) / 2) if scaled else FlatTerm(values)


def same(got: Tensor | None, expected: Tensor | None) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def close(got: Tensor | None, expected: Tensor | None, absolute: float = 2e-5) -> None:
    """Within rounding; interpreted, bfloat16 is cut off and not rounded, so that it may be a unit away."""
    relative = 1e-5
    if got is not None:
        relative = {torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(got.dtype, relative)
    torch.testing.assert_close(got, expected, rtol=relative, atol=absolute)


def exact(got: Tensor | None, expected: Tensor | None) -> None:
    """Bit for bit, but for what the interpreter cuts off."""
    if INTERPRETED and got is not None and got.dtype == torch.bfloat16:
        close(got, expected, 0)
    else:
        same(got, expected)


def assert_passes_agree(
    terms: Sequence[FlatTerm],
    channels: Channels,
    timesteps: int,
    rule: NeuronRule,
    carry: Tensor | None = None,
    by_last: Tensor | None = None,
    learn: bool = True,
) -> None:
    """All three passes of the neurons."""
    neuron = (LEAK, THRESHOLD, timesteps, rule)
    by_spikes = randn(timesteps, terms[0].values.shape[1]).to(terms[0].values.dtype)
    ours, judge = (backend.spikes(terms, channels, carry, *neuron) for backend in (triton_backend, plain))
    same(ours[0], judge[0])
    same(ours[1], judge[1])
    ours, judge = (backend.rate(terms, channels, carry, *neuron, learn) for backend in (triton_backend, plain))
    same(ours[0], judge[0])
    exact(ours[1], judge[1])
    for got, expected in zip(ours[2:], judge[2:], strict=True):
        close(got, expected)
    parts = [part for part in (timesteps // 3, timesteps - timesteps // 3) if part]
    for backend, whole in ((triton_backend, ours), (plain, judge)):
        in_parts = rate_in_parts(backend, parts, terms, channels, carry, LEAK, THRESHOLD, rule, learn)
        for got, expected in zip(in_parts, whole, strict=True):
            exact(got, expected)
    ours, judge = (
        backend.spikes_backward(by_spikes, by_last, terms, channels, carry, *neuron, learn)
        for backend in (triton_backend, plain)
    )
    for got, expected in zip(ours[:2], judge[:2], strict=True):
        close(got, expected)
    for got, expected in zip(ours[2:], judge[2:], strict=True):
        close(got, expected, 1e-6 * by_spikes.numel() + 1e-5)


# --------------------------------------------------------------------------------------------------------- neurons


@interpreted
@pytest.mark.parametrize("rule", RULES, ids=name)
def test_every_rule_is_the_plain_one(rule: NeuronRule) -> None:
    dtype = DTYPES[RULES.index(rule) % len(DTYPES)]
    assert triton_backend.covers(dtype, rule)
    neurons, channels = 2 * 3 * 45, Channels(3, 45)
    terms = [random_term(4, neurons, 3, True, dtype), random_term(1, neurons, 3, False, dtype)]
    assert_passes_agree(terms, channels, 4, rule, randn(neurons), randn(neurons))
    spikes = triton_backend.spikes(terms, channels, None, LEAK, THRESHOLD, 4, rule)[0]
    assert set(spikes.unique().tolist()) == {0, 1}
    assert 0.02 < spikes.float().mean() < 0.9


@interpreted
@pytest.mark.parametrize("order", ["reset-then-leak", "leak-then-subtract"])
def test_at_the_threshold_the_order_decides(order: Any) -> None:
    at = torch.stack((THRESHOLD, torch.nextafter(THRESHOLD, 2 * THRESHOLD), torch.nextafter(THRESHOLD, -THRESHOLD)))
    terms, neuron = [FlatTerm(at[None])], (LEAK, THRESHOLD, 1, NeuronRule(order=order))
    spikes = triton_backend.spikes(terms, Channels(1, 3), None, *neuron)[0]
    assert spikes.tolist() == [[order == "reset-then-leak", True, False]]
    same(triton_backend.rate(terms, Channels(1, 3), None, *neuron, False)[0], spikes)


@interpreted
@settings(max_examples=30)
@given(st.data())
def test_every_shape_is_the_plain_one(data: st.DataObject) -> None:
    rule, dtype = data.draw(st.sampled_from(RULES)), data.draw(st.sampled_from(DTYPES))
    inner = data.draw(st.sampled_from([1, 1, 2, 7, 49, 64, BLOCK - 1, BLOCK, BLOCK + 1]))
    channels = data.draw(st.sampled_from([1, 2, 3, 10, BLOCK, BLOCK + 44] if inner == 1 else [1, 2, 3]))
    neurons = data.draw(st.integers(0, 3)) * channels * inner
    timesteps = data.draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 11, 16]))
    terms = []
    for _ in range(data.draw(st.integers(1, 2))):
        steps = data.draw(st.sampled_from([1, timesteps]))
        term = random_term(steps, neurons, channels, data.draw(st.booleans()), dtype)
        if data.draw(st.booleans()):
            term = FlatTerm(torch.stack((term.values, -term.values), -1)[..., 0], term.scale, term.shift)
        terms.append(term)
    carry, by_last = (randn(neurons) if data.draw(st.booleans()) else None for _ in range(2))
    assert_passes_agree(terms, Channels(channels, inner), timesteps, rule, carry, by_last, data.draw(st.booleans()))


@interpreted
@pytest.mark.parametrize("timesteps", [1, 4, 8, 11, 24])
def test_however_long_a_sequence_it_is_the_plain_one(timesteps: int) -> None:
    # Of T = 11 every carry is saved, of 24 those before the second and the third segment.
    rule, channels = NeuronRule(detach_reset=False, surrogate=ATan(2.0)), Channels(1, 100)
    term, carry, by_last = random_term(timesteps, 100, 1, False, torch.float32), randn(100), randn(100)
    assert_passes_agree([term], channels, timesteps, rule, carry, by_last)


@interpreted
def test_nothing_needs_to_be_contiguous() -> None:
    neurons, channels, rule = 300, Channels(10, 6), NeuronRule()
    values = randn(neurons, 5, 2)[..., 0].T
    assert not values.is_contiguous()
    terms = [
        FlatTerm(values, randn(10, 2)[:, 0].abs(), randn(1).expand(10)),
        FlatTerm(randn(5, 1).expand(5, neurons)),
    ]
    assert_passes_agree(terms, channels, 5, rule, randn(1).expand(neurons), randn(neurons, 2)[:, 1])
    by_spikes = torch.ones((), device=DEVICE).expand(5, neurons)
    ours, judge = (
        backend.spikes_backward(by_spikes, None, terms, channels, None, LEAK, THRESHOLD, 5, rule, True)
        for backend in (triton_backend, plain)
    )
    for got, expected in zip(ours, judge, strict=True):
        close(got, expected, 1e-3)


@interpreted
@pytest.mark.parametrize("spare", [(True, False), (False, True), (True, True)], ids=str)
def test_spikes_may_take_the_place_of_a_spare_term(spare: tuple[bool, bool]) -> None:
    channels, neuron = Channels(4, 80), (LEAK, THRESHOLD, 16, NeuronRule())
    terms = [random_term(16, 640, 4, scaled, torch.bfloat16) for scaled in (True, False)]
    passes: list[tuple[Any, Any, tuple[Any, ...]]] = [
        (triton_backend.spikes, plain.spikes, (None, *neuron)),
        (triton_backend.rate, plain.rate, (None, *neuron, False)),
    ]
    for ours, judge, rest in passes:
        copies = [
            FlatTerm(term.values.clone(), term.scale, term.shift, is_spare)
            for term, is_spare in zip(terms, spare, strict=True)
        ]
        got = ours(copies, channels, *rest)
        same(got[0], judge(terms, channels, *rest)[0])
        assert got[0].data_ptr() in [term.values.data_ptr() for term in copies if term.is_spare]


@interpreted
def test_a_spare_term_that_is_constant_in_time_stays_as_it_is() -> None:
    term = FlatTerm(randn(1, 100), is_spare=True)
    before = term.values.clone()
    triton_backend.spikes([term], Channels(1, 100), None, LEAK, THRESHOLD, 4, NeuronRule())
    same(term.values, before)


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, which interprets
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda surrogate: type(surrogate).__name__)
def test_what_is_not_finite_is_where_the_plain_passes_have_it(surrogate: Any) -> None:
    for how, dtype in zip(HOW[SURROGATES.index(surrogate) % 2 :: 2], itertools.cycle(DTYPES), strict=False):
        rule = NeuronRule(how.reset, how.order, how.detach_reset, surrogate)
        neurons, neuron = 600, (LEAK, THRESHOLD, 4, rule)
        values = randn(4, neurons).to(dtype)
        for place, value in ((3, "nan"), (130, "inf"), (255, "-inf"), (BLOCK, "nan"), (599, "inf")):
            values[1, place] = float(value)
        terms, channels, by_spikes = [FlatTerm(values)], Channels(1, neurons), randn(4, neurons).to(dtype)
        ours, judge = (
            (
                *backend.spikes(terms, channels, None, *neuron),
                *backend.rate(terms, channels, None, *neuron, True),
                *backend.spikes_backward(by_spikes, None, terms, channels, None, *neuron, False)[:2],
            )
            for backend in (triton_backend, plain)
        )
        for place in (0, 1, 2):
            same(ours[place], judge[place])
        for got, expected in zip(ours[3:], judge[3:], strict=True):
            finite = expected.isfinite()
            same(got.isfinite(), finite)
            close(got[finite], expected[finite])
        assert judge[3][[3, BLOCK]].isnan().all()
        assert judge[3][[2, 4, BLOCK + 1]].isfinite().all()


# ---------------------------------------------------------------------------------------------------- normalisation

STEPS = st.sampled_from([1, 2, 3, 4, 5, 11])
SHAPES = st.sampled_from(  # batch, channels, what lies within them: one tile and several, aligned and not
    [
        *((1, 1, 1), (2100, 2, 1), (9, 5, 1), (5, 300, 1), (40, 64, 1)),
        *((3, 1, 28), (9, 5, 28), (2, 2, 260), (1, 3, 1100), (100, 2, 49), (3, 40, 3), (300, 2, 2)),
    ]
)
NORMALISING = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[2048, 3], ids=["a tile a program", "several"])
def few_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that add up one tile, and such that add up several."""
    monkeypatch.setattr(triton_backend, "_PROGRAMS", request.param)


@interpreted
@pytest.mark.usefixtures("few_programs")
@NORMALISING
@given(STEPS, SHAPES, st.sampled_from(DTYPES), st.booleans())
def test_moments_are_the_plain_ones(steps: int, shape: tuple[int, int, int], dtype: torch.dtype, spread: bool) -> None:
    batch, count, inner = shape
    values = (randn(steps, batch, count, inner) * 2 + randn(count, 1)).to(dtype).flatten(1)
    values = values.T.contiguous().T if spread else values
    ours, judge = (backend.moments(values, Channels(count, inner)) for backend in (triton_backend, plain))
    for got, expected in zip(ours[:2], judge[:2], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    close(ours[2], judge[2], 1e-6)
    same(triton_backend.time_mean(values), ours[2])


@interpreted
@pytest.mark.parametrize("channels", [Channels(3, 500), Channels(3, 1)], ids=str)
def test_the_variance_is_right_where_the_mean_is_huge(channels: Channels) -> None:
    values = randn(6, 8 * 3 * 500) + 1e4
    exactly = values.double().view(6, -1, 3, channels.inner)
    mean, variance, _ = triton_backend.moments(values, channels)
    torch.testing.assert_close(mean.double(), exactly.mean((0, 1, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), exactly.var((0, 1, 3), correction=0), rtol=1e-5, atol=0)


@interpreted
def test_a_constant_channel_has_no_variance() -> None:
    mean, variance, _ = triton_backend.moments(torch.full((5, 1000), 0.1, device=DEVICE), Channels(1, 1000))
    assert mean.tolist() == pytest.approx([0.1])
    assert variance == 0


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("odd", [1e6, float("nan"), float("inf")])
def test_a_neuron_s_mean_over_time_is_its_own(odd: float) -> None:
    values = randn(3, 600) * 1e-3
    values[0, 0] = odd
    for mean in (triton_backend.time_mean(values), triton_backend.moments(values, Channels(2, 300))[2]):
        torch.testing.assert_close(mean[1:], values[:, 1:].mean(0), rtol=1e-6, atol=1e-9)


@interpreted
@pytest.mark.parametrize("channels", [Channels(4, 300), Channels(4, 1)], ids=str)
def test_nan_shows_in_the_moments_of_its_channel_alone(channels: Channels) -> None:
    values, place = randn(2, 4 * 300), 301 if channels.inner > 1 else 1
    values[1, place] = float("nan")
    for moment in triton_backend.moments(values, channels)[:2]:
        assert moment.isfinite().tolist() == [True, False, True, True]


@interpreted
def test_halves_are_added_up_in_float32() -> None:
    ones = torch.ones(600, 2, dtype=torch.bfloat16, device=DEVICE)
    same(triton_backend.time_mean(ones), ones[0])
    large = torch.full((3, 2), 6e4, dtype=torch.float16, device=DEVICE)
    same(triton_backend.time_mean(large), large[0])


@interpreted
@pytest.mark.usefixtures("few_programs")
@NORMALISING
@given(STEPS, SHAPES, st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.booleans())
def test_products_are_the_plain_ones(
    steps: int, shape: tuple[int, int, int], dtype: torch.dtype, factored: bool, summed: bool, spread: bool
) -> None:
    batch, count, inner = shape
    neurons = batch * count * inner
    delta, values = (randn(steps, neurons).to(dtype) for _ in range(2))
    factor, mean = randn(steps, neurons) if factored else None, randn(count)
    if spread:
        delta, values, mean = delta.T.contiguous().T, values.T.contiguous().T, torch.stack((mean, mean), 1)[:, 0]
        factor = None if factor is None else factor.T.contiguous().T
    arguments = (delta, factor, *((values, mean) if summed else (None, None)), Channels(count, inner))
    ours, judge = (backend.products(*arguments) for backend in (triton_backend, plain))
    exact(ours[0], judge[0])
    for got, expected in zip(ours[1:], judge[1:], strict=True):
        assert got.numel() == (count if summed else 0)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * delta.numel() ** 0.5)


@interpreted
@NORMALISING
@given(STEPS, SHAPES, st.sampled_from(DTYPES), st.booleans(), st.booleans())
def test_the_affine_map_is_the_plain_one(
    steps: int, shape: tuple[int, int, int], dtype: torch.dtype, added: bool, spread: bool
) -> None:
    batch, count, inner = shape
    values, addend = (randn(steps, batch * count * inner).to(dtype) for _ in range(2))
    tables = [randn(count, 2)[:, 0] for _ in range(3)]
    if spread:
        values, addend = values.T.contiguous().T, addend.T.contiguous().T
    more = (addend, tables[2]) if added else ()
    ours, judge = (
        backend.affine(values, *tables[:2], Channels(count, inner), *more) for backend in (triton_backend, plain)
    )
    exact(ours, judge)


@interpreted
def test_tables_in_half_precision_are_read_as_what_they_are() -> None:
    channels, half, values = Channels(3, 100), randn(3).bfloat16(), randn(2, 600)
    same(triton_backend.affine(values, half, half, channels), plain.affine(values, half, half, channels))
    for got, expected in zip(
        triton_backend.products(values, None, values, half, channels),
        plain.products(values, None, values, half, channels),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-3)


@interpreted
def test_no_neurons_at_all_are_no_error() -> None:
    nothing, table, channels = randn(4, 0), randn(3), Channels(3, 5)
    for terms in ([FlatTerm(nothing)], [FlatTerm(nothing, table, table), FlatTerm(nothing)]):
        assert_passes_agree(terms, channels, 4, NeuronRule())
    assert triton_backend.time_mean(nothing).shape == (0,)
    assert triton_backend.affine(nothing, table, table, channels).shape == (4, 0)
    assert triton_backend.products(nothing, None, nothing, table, channels)[1].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------------------ around the kernels


@interpreted
def test_known_neurons_in_these_dtypes_are_covered() -> None:
    class Subclassed(NeuronRule):
        pass

    assert [dtype for dtype in (*DTYPES, torch.float64) if triton_backend.covers(dtype)] == list(DTYPES)
    assert not triton_backend.covers(torch.float32, Subclassed())


@interpreted
def test_more_neurons_than_32_bits_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "_MOST", 10)
    with pytest.raises(InputError, match="a time step of 11 neurons is more"):
        triton_backend.time_mean(randn(2, 11))
    assert triton_backend.time_mean(randn(2, 10)).shape == (10,)


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(-2, 2))
def test_a_multiplication_stands_in_for_a_division(divisor: int, number: int, off: int) -> None:
    factor, shift = triton_backend._reciprocal(divisor)
    assert -(2**31) <= factor < 2**31
    for dividend in (number, number - number % divisor + off, 2**31 - 1):
        if 0 <= dividend < 2**31:
            assert (dividend + (dividend * (factor % 2**32) >> 32)) >> shift == dividend // divisor


@given(st.integers(1, 70), st.integers(1, 8))
def test_segments_make_up_the_sequence(timesteps: int, longest: int) -> None:
    steps = triton_backend._steps(timesteps, longest)
    assert steps["segments"] * steps["segment"] == timesteps
    assert steps["segment"] == max(n for n in range(1, longest + 1) if timesteps % n == 0)


@pytest.fixture
def undecided() -> Iterator[None]:
    triton_backend._works.cache_clear()
    yield
    triton_backend._works.cache_clear()


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("reason", ["is too old", "cannot run here"])
def test_where_they_cannot_run_they_cover_nothing_and_that_is_said_once(
    reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **constants: Any) -> None:
        raise RuntimeError("no compiler")

    if reason == "is too old":
        monkeypatch.setattr(triton, "__version__", "3.3.1")
    monkeypatch.setattr(triton_backend, "_run", fail)
    assert not triton_backend.covers(torch.float64)
    assert caplog.records == []
    for dtype in DTYPES:
        assert not triton_backend.covers(dtype)
    (record,) = (record for record in caplog.records if record.name == "spikestill")
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()


# ------------------------------------------------------------------------------------------- elsewhere than on a GPU


@pytest.mark.slow
def test_all_of_it_interpreted_on_the_cpu() -> None:
    if INTERPRETED:
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", __file__]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    run = subprocess.run(
        command, env=environment | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    found = re.search(r"(\d+) passed", run.stdout)
    assert found is not None
    assert int(found[1]) > len(RULES)


class NoDevice:
    """What Triton asks a driver for when it only compiles; the number keeps its results from a device's own."""

    def get_current_device(self) -> int:
        return 99

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, Any]]:
    """Every kernel that is run, with what it was compiled to in place of a launch."""
    kernels: list[tuple[str, Any]] = []

    def compile_only(kernel: Any, programs: int, like: Tensor, *arguments: Any, **constants: Any) -> None:
        constants |= {"grid": (programs,), "num_warps": triton_backend._WARPS, "enable_fp_fusion": False}
        kernels.append((kernel.__name__, kernel.warmup(*arguments, **constants).asm))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton_backend, "_run", compile_only)
    monkeypatch.setattr(triton.runtime.driver, "_active", NoDevice())
    return kernels


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or sys.platform != "linux", reason="Triton compiles for CUDA on Linux, uninterpreted")
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
def test_they_compile_without_fused_multiplication(compiled: list[tuple[str, Any]], last: bool) -> None:
    dtype, timesteps = (torch.bfloat16, 4) if last else (torch.float32, 11)
    channels = Channels(64, 1) if last else Channels(64, 49)
    rule = NeuronRule() if last else NeuronRule("hard", "leak-then-subtract", False, Linear())
    neurons = 64 * 49 * 8
    terms = [FlatTerm(torch.zeros(timesteps, neurons, dtype=dtype), torch.ones(64), torch.ones(64))]
    if not last:
        terms.append(FlatTerm(torch.zeros(1, neurons, dtype=dtype)))
    neuron, values = (torch.tensor(0.5), torch.tensor(1.0), timesteps, rule), terms[0].values
    carry = None if last else torch.zeros(neurons)
    triton_backend.spikes(terms, channels, carry, *neuron)
    triton_backend.rate(terms, channels, carry, *neuron, not last)
    triton_backend.rate_steps(terms, channels, RateState.starting(torch.zeros(neurons), not last), *neuron)
    triton_backend.spikes_backward(values, carry, terms, channels, carry, *neuron, not last)
    triton_backend.moments(values, channels)
    triton_backend.products(values, values.float(), values, torch.zeros(64), channels)
    triton_backend.affine(values, torch.ones(64), torch.ones(64), channels, values, torch.ones(64))
    passes = ["spikes", "rate", "rate", "spikes_backward", "moments", "products", "affine"]
    assert [name for name, _ in compiled] == passes
    for name, assembly in compiled:
        assert assembly["cubin"], name
        assert "fma." not in assembly["ptx"], name
