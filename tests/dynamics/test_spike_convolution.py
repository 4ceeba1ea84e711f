"""Convolutions by events against torch's, which are their oracle."""

from __future__ import annotations

import itertools
import math
import platform
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spikestill.dynamics import Moves, compiled, convolve_spikes, spike_convolution, spikes_weight_gradient

DTYPES = (torch.float32, torch.bfloat16)
LESS_ABLE = ("-mno-avx512bf16", "-mno-avx512vbmi2", "-mno-avx512f", "-mno-avx")


@pytest.fixture(scope="module", autouse=True)
def _however_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_FEWEST_CHANNELS", "_FEWEST_TAPS", "_FEWEST_PLACES"):
            patch.setattr(spike_convolution, name, 1)
        patch.setattr(spike_convolution, "_MOST_SPIKES", dict.fromkeys(DTYPES, 1.0))
        yield


def images_of(*shape: int, density: float = 0.2, values: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    spikes = (torch.rand(shape) < density).float()
    if values:
        spikes *= torch.randn(shape)
    return spikes.to(dtype).to(memory_format=torch.channels_last)


def moves(**how: int) -> Moves:
    return Moves(**{name: (number, number) for name, number in how.items()})


def by_events(images: Tensor, weight: Tensor, **how: int) -> Tensor | None:
    return convolve_spikes(images, weight, None, moves(**how))


def dense_gradient(images: Tensor, by_output: Tensor, weight: Tensor, padding: int) -> Tensor:
    weight = weight.to(images.dtype).requires_grad_()
    functional.conv2d(images, weight, padding=padding).backward(by_output)
    assert weight.grad is not None
    return weight.grad


def same_by_any_threads(work: Callable[[], Tensor | None]) -> Tensor:
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(work())
    finally:
        torch.set_num_threads(threads)
    assert results[0] is not None
    assert all(torch.equal(result, results[0]) for result in results)  # type: ignore[arg-type]
    return results[0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, tuple[int, int]]]:
    def pair(least: int, most: int) -> tuple[int, int]:
        return draw(st.integers(least, most)), draw(st.integers(least, most))

    kernel, stride, padding, dilation = pair(1, 5), pair(1, 3), pair(0, 3), pair(1, 2)
    size = [
        draw(st.integers(max(1, (k - 1) * d + 1 - 2 * p), 9)) for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    count, channels, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 140))
    how = {"stride": stride, "padding": padding, "dilation": dilation}
    return (count, channels, *size), (outputs, channels, *kernel), how


@settings(deadline=None, max_examples=60)
@given(
    cases(),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.integers(0, 99),
)
def test_it_is_torch_s_convolution(
    case: tuple[tuple[int, ...], tuple[int, ...], dict[str, tuple[int, int]]],
    dtype: torch.dtype,
    values: bool,
    has_bias: bool,
    density: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    shape, weight_shape, how = case
    images = images_of(*shape, density=density, values=values, dtype=dtype)
    weight, bias = torch.randn(weight_shape).to(dtype), torch.randn(weight_shape[0]).to(dtype) if has_bias else None
    ours = convolve_spikes(images, weight, bias, Moves(**how))
    exact = functional.conv2d(images.double(), weight.double(), None if bias is None else bias.double(), **how)
    assert ours is not None
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    terms = math.prod(weight_shape[1:])
    tolerance = {"rtol": 1e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6 * terms}
    torch.testing.assert_close(ours.double(), exact, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_short_numbers_come_out_to_the_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images, weight = images_of(2, 70, 6, 6, dtype=dtype), (torch.randn(150, 70, 3, 3).mul(4).round() / 4).to(dtype)
    ours = by_events(images, weight, padding=1)
    exact = functional.conv2d(images.double(), weight.double(), padding=1)
    assert torch.equal(ours, exact.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", [False, True], ids=["spikes", "values"])
def test_neither_threads_nor_the_other_images_change_a_bit(dtype: torch.dtype, values: bool) -> None:
    torch.manual_seed(1)
    images, weight = images_of(9, 33, 5, 7, values=values, dtype=dtype), torch.randn(65, 33, 3, 3).to(dtype)
    result = same_by_any_threads(lambda: by_events(images, weight, padding=1))
    assert torch.equal(by_events(images[4:5], weight, padding=1), result[4:5])  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are those of x86-64")
@pytest.mark.parametrize("option", LESS_ABLE)
@pytest.mark.parametrize("values", [False, True], ids=["spikes", "values"])
def test_processors_that_can_do_less_compute_the_same(
    option: str, values: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    for dtype in DTYPES:
        images, weight = images_of(3, 50, 6, 6, values=values, dtype=dtype), torch.randn(70, 50, 3, 3).to(dtype)
        with monkeypatch.context() as patch:
            ours = by_events(images, weight, padding=1)
            patch.setattr(spike_convolution, "library", lambda name: compiled.library(name, option))
            theirs = by_events(images, weight, padding=1)
        assert ours is not None
        assert theirs is not None
        if dtype == torch.float32 and not values:  # additions alone, in one order
            assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows(dtype: torch.dtype, value: float) -> None:
    torch.manual_seed(3)
    images, weight = images_of(2, 20, 6, 6, dtype=dtype), torch.randn(30, 20, 3, 3).to(dtype)
    weight[7, 3, 1, 2] = value
    assert by_events(images, weight, padding=1) is None  # torch's multiplies it with every zero
    weight[7, 3, 1, 2] = 1.0
    images[1, 5, 2, 2] = value
    ours, theirs = by_events(images, weight, padding=1), functional.conv2d(images, weight, padding=1)
    assert ours is not None
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    assert not ours[1].isfinite().all()


def test_autocast_decides_the_dtype() -> None:
    torch.manual_seed(4)
    images, weight = images_of(2, 20, 6, 6), torch.randn(30, 20, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = by_events(images, weight), functional.conv2d(images, weight)
    assert ours is not None
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
    with torch.autocast("cpu", torch.float16):
        assert by_events(images, weight) is None


def test_any_memory_layout_will_do() -> None:
    torch.manual_seed(8)
    images, weight, by_output = images_of(3, 20, 6, 7), torch.randn(30, 20, 3, 3), torch.randn(3, 30, 6, 7)
    exact = functional.conv2d(images, weight, padding=1)
    gradient = dense_gradient(images, by_output, weight, 1)
    layouts = {
        "channels last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
        "contiguous": lambda tensor: tensor.contiguous(),
        "gaps": lambda tensor: torch.stack([tensor, tensor], -1)[..., 0],
        "transposed": lambda tensor: tensor.mT.contiguous().mT,
    }
    for one, other in itertools.product(layouts.values(), repeat=2):
        ours = by_events(one(images), other(weight), padding=1)
        torch.testing.assert_close(ours, exact)
        ours = spikes_weight_gradient(one(images), other(by_output), one(weight), moves(padding=1))
        torch.testing.assert_close(ours, gradient, rtol=1e-4, atol=1e-4)


def test_there_is_no_gradient_through_it() -> None:
    weight = torch.randn(30, 20, 3, 3, requires_grad=True)
    assert not by_events(images_of(2, 20, 6, 6), weight).requires_grad  # type: ignore[union-attr]


def test_where_it_would_not_pay_torch_s_is_left_to_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = images_of(2, 20, 6, 6), torch.randn(30, 20, 3, 3)
    assert by_events(images, weight) is not None
    assert by_events(images.double(), weight.double()) is None
    assert by_events(images, weight, dilation=3) is None  # which is torch's to refuse
    with monkeypatch.context() as patch:
        patch.setattr(spike_convolution, "_MOST_TAPS", 8)
        assert by_events(images, weight) is None
    for name, limit in (("_FEWEST_CHANNELS", 21), ("_FEWEST_TAPS", 10), ("_FEWEST_PLACES", 33)):
        with monkeypatch.context() as patch:
            patch.setattr(spike_convolution, name, limit)
            assert by_events(images, weight) is None
            patch.setattr(spike_convolution, name, limit - 1)
            assert by_events(images, weight) is not None
    spikes = (images != 0).float().mean().item()
    for most, is_ours in ((spikes * 1.001, True), (spikes * 0.999, False)):
        with monkeypatch.context() as patch:
            patch.setattr(spike_convolution, "_MOST_SPIKES", dict.fromkeys(DTYPES, most))
            assert (by_events(images, weight) is not None) == is_ours
    monkeypatch.setenv("SPIKESTILL_KERNELS", "plain")
    assert by_events(images, weight) is None


def test_what_torch_refuses_is_torch_s_to_refuse() -> None:
    images, weight, bias = images_of(2, 20, 6, 6), torch.randn(30, 20, 3, 3), torch.randn(30)
    assert by_events(images_of(2, 24, 6, 6), weight) is None
    assert by_events(images_of(2, 16, 6, 6), weight) is None
    assert by_events(images[0], weight) is None
    for dtype in (torch.bfloat16, torch.float64):
        assert by_events(images.to(dtype), weight) is None
        assert by_events(images, weight.to(dtype)) is None
        assert convolve_spikes(images, weight, bias.to(dtype), Moves()) is None
    with torch.autocast("cpu", torch.bfloat16):  # which leaves float64 as it is
        assert by_events(images.double(), weight.double()) is None
        assert convolve_spikes(images, weight.bfloat16(), bias, Moves()) is not None


def test_who_watches_operations_sees_torch_s() -> None:
    images, weight, by_output = images_of(2, 20, 6, 6), torch.randn(30, 20, 3, 3), torch.randn(2, 30, 4, 4)
    with FlopCounterMode(display=False):
        assert by_events(images, weight) is None
        assert spikes_weight_gradient(images, by_output, weight, Moves()) is None
    with FakeTensorMode() as fakes:
        assert by_events(fakes.from_tensor(images), fakes.from_tensor(weight)) is None


def test_another_default_device_changes_nothing() -> None:
    images, weight, by_output = images_of(2, 20, 6, 6), torch.randn(30, 20, 3, 3), torch.randn(2, 30, 4, 4)
    expected = by_events(images, weight), spikes_weight_gradient(images, by_output, weight, Moves())
    with torch.device("meta"):
        ours = by_events(images, weight), spikes_weight_gradient(images, by_output, weight, Moves())
    for one, other in zip(ours, expected, strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]


def test_where_it_cannot_pay_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spike_convolution, "library", lambda name: pytest.fail("it was asked for"))
    monkeypatch.setattr(spike_convolution, "_FEWEST_PLACES", 33)
    assert by_events(images_of(2, 20, 6, 6), torch.randn(30, 20, 3, 3)) is None


def test_no_images_are_left_to_torch() -> None:
    assert by_events(images_of(0, 20, 6, 6), torch.randn(30, 20, 3, 3)) is None


# -------------------------------------------------------------------------------------------------- weight gradient


@st.composite
def gradient_cases(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int]:
    padding = draw(st.integers(0, 3))
    size = [draw(st.integers(max(1, 3 - 2 * padding), 12)) for _ in range(2)]
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 80)), *size)
    return shape, draw(st.integers(1, 70)), padding


@settings(deadline=None, max_examples=60)
@given(gradient_cases(), st.sampled_from(DTYPES), st.booleans(), st.floats(0, 1), st.integers(0, 99))
def test_the_gradient_by_the_weights_is_torch_s(
    case: tuple[tuple[int, ...], int, int], dtype: torch.dtype, values: bool, density: float, seed: int
) -> None:
    torch.manual_seed(seed)
    shape, outputs, padding = case
    images = images_of(*shape, density=density, values=values, dtype=dtype)
    size = [length + 2 * padding - 2 for length in shape[2:]]
    by_output = torch.randn(shape[0], outputs, *size).to(dtype)
    weight = torch.empty(outputs, shape[1], 3, 3)
    ours = spikes_weight_gradient(images, by_output, weight, moves(padding=padding))
    exact = dense_gradient(images.double(), by_output.double(), weight, padding)
    assert ours is not None
    assert ours.dtype == torch.float32
    terms = shape[0] * size[0] * size[1]
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6 * terms)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(3, 200), (200, 3), (64, 70), (2, 2)], ids=str)
def test_images_of_any_size_go_into_blocks(size: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    images, weight = images_of(3, 40, *size, dtype=dtype), torch.empty(33, 40, 3, 3)
    by_output = torch.randn(3, 33, *size).mul(4).round().div(4).to(dtype)
    ours = spikes_weight_gradient(images, by_output, weight, moves(padding=1))
    assert ours is not None
    assert torch.equal(ours.double(), dense_gradient(images.double(), by_output.double(), weight, 1))


def test_threads_do_not_change_a_bit_of_the_gradient() -> None:
    torch.manual_seed(6)
    images, by_output, weight = images_of(9, 70, 5, 7), torch.randn(9, 65, 5, 7), torch.empty(65, 70, 3, 3)
    same_by_any_threads(lambda: spikes_weight_gradient(images, by_output, weight, moves(padding=1)))


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are those of x86-64")
@pytest.mark.parametrize("option", LESS_ABLE)
@pytest.mark.parametrize("values", [False, True], ids=["spikes", "values"])
def test_processors_that_can_do_less_compute_the_same_gradient(
    option: str, values: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    monkeypatch.setattr(spike_convolution, "library", lambda name: compiled.library(name, option))
    for dtype in DTYPES:
        images, weight = images_of(3, 50, 6, 6, values=values, dtype=dtype), torch.empty(70, 50, 3, 3)
        by_output = torch.randn(3, 70, 6, 6).to(dtype)
        ours = spikes_weight_gradient(images, by_output, weight, moves(padding=1))
        exact = dense_gradient(images.double(), by_output.double(), weight, 1)
        assert ours is not None
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_torch_s_to_spread(value: float) -> None:
    images, by_output, weight = images_of(2, 20, 6, 6), torch.randn(2, 30, 6, 6), torch.empty(30, 20, 3, 3)
    assert spikes_weight_gradient(images, by_output, weight, moves(padding=1)) is not None
    by_output[1, 3, 2, 2] = value
    assert spikes_weight_gradient(images, by_output, weight, moves(padding=1)) is None
    by_output[1, 3, 2, 2], images[0, 0, 0, 0] = 1.0, value
    assert spikes_weight_gradient(images, by_output, weight, moves(padding=1)) is None


def test_kernels_of_another_shape_or_step_are_torch_s() -> None:
    images = images_of(2, 20, 6, 6)
    for kernel, how in (((2, 2), {}), ((3, 3), {"stride": 2}), ((3, 3), {"dilation": 2, "padding": 2})):
        weight = torch.empty(30, 20, *kernel)
        by_output = torch.randn_like(by_events(images, torch.zeros_like(weight), **how))  # type: ignore[arg-type]
        assert spikes_weight_gradient(images, by_output, weight, moves(**how)) is None
    by_output, weight = torch.randn(2, 30, 4, 4), torch.empty(30, 20, 3, 3)
    assert spikes_weight_gradient(images, by_output, weight, Moves()) is not None
    assert spikes_weight_gradient(images, by_output.bfloat16(), weight, Moves()) is None


def test_places_of_the_longest_lists_are_counted() -> None:
    images, weight = images_of(1, 2, 32, 37, density=1.0), torch.ones(1, 2, 32, 32)
    assert torch.equal(by_events(images, weight), functional.conv2d(images, weight))  # type: ignore[arg-type]
    assert by_events(images, torch.ones(1, 2, 32, 33)) is None
    for width, is_ours in ((16384, True), (16385, False)):
        images = images_of(1, 2, 3, width, density=0.01)
        by_output, weight = torch.ones(1, 1, 3, width), torch.empty(1, 2, 3, 3)
        ours = spikes_weight_gradient(images, by_output, weight, moves(padding=1))
        assert (ours is not None) == is_ours
        if ours is not None:
            assert torch.equal(ours, dense_gradient(images, by_output, weight, 1))
