from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikestill.dynamics import PackedSpikes, batch_moments, moments_in_parts

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def packed(*parts: Tensor) -> PackedSpikes:
    spikes = PackedSpikes()
    for part in parts:
        spikes.add(part)
    return spikes


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(0, 7), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4)),
    part=st.integers(1, 4),
    other=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
    channels_last=st.booleans(),
)
def test_spikes_come_back_as_they_were(
    shape: tuple[int, ...], part: int, other: int, dtype: torch.dtype, seed: int, channels_last: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    spikes = torch.rand(shape, generator=draw).round().to(dtype)
    if channels_last:
        spikes = spikes.transpose(1, -1).contiguous().transpose(1, -1)
    parts = list(packed(*spikes.split(part)).parts(other, torch.ones(shape[1:])))
    assert [len(item) for item in parts] == [len(item) for item in spikes.split(other)]
    torch.testing.assert_close(torch.cat(parts), spikes, rtol=0, atol=0)
    if spikes.numel() > 1:
        axes = [axis for axis in range(1, 5) if shape[axis] > 1]
        assert all(item.stride(axis) == spikes.stride(axis) for item in parts for axis in axes)


def test_a_spike_takes_a_bit() -> None:
    (kept,) = packed(torch.ones(3, 4, 5, 8))._bytes
    assert kept.untyped_storage().nbytes() == 3 * 4 * 5 * 8 // 8


def test_a_scale_that_is_nan_shows() -> None:
    scale = torch.tensor([[1.0, float("nan"), 1.0]])
    spikes = packed(torch.tensor([[[1.0, float("nan"), 0.0]], [[0.0, 0.0, 1.0]]]))
    (unpacked,) = spikes.parts(2, scale)
    assert unpacked[:, 0, 1].isnan().all()
    assert unpacked[:, 0, ::2].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_moments_of_parts_are_those_of_the_whole(dtype: torch.dtype, lengths: list[int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    sequence = (3 * torch.randn(sum(lengths), 2, 3, 4, generator=draw) + 5).to(dtype)
    *got, members = moments_in_parts(sequence.split(lengths))
    assert members == sequence[:, :, 0].numel()
    for value, expected in zip(got, batch_moments(sequence), strict=True):
        assert value.dtype == expected.dtype
        torch.testing.assert_close(value, expected)
    if len(lengths) == 1:
        assert all(torch.equal(value, one) for value, one in zip(got, batch_moments(sequence), strict=True))


def test_moments_far_from_zero_are_exact() -> None:
    """Sums of squares would leave no digit of this variance in float32."""
    sequence = 1e4 + torch.randn(6, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    _, variance, *_ = moments_in_parts(sequence.split(2))
    torch.testing.assert_close(variance, sequence.double().var((0, 1, 3), correction=0).float(), rtol=1e-4, atol=0)


def test_moments_of_nothing() -> None:
    mean, variance, over_time, members = moments_in_parts(torch.zeros(4, 0, 3, 2).split(2))
    assert mean.tolist() == [0, 0, 0]
    assert variance.tolist() == [1, 1, 1]
    assert over_time.shape == (0, 3, 2)
    assert members == 0
