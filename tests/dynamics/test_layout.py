"""Layouts: any shape as a row of neurons and back, without a copy where the tensor is dense."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikestill.dynamics.layout import Layout


@st.composite
def dense(draw: st.DrawFn, smallest: int = 1, together: bool = False) -> Tensor:
    """A dense tensor ``[T, ...]`` of one to five axes that lie in memory in any order.

    ``together`` keeps time from lying between the axes of a step.
    """
    shape = draw(st.lists(st.integers(smallest, 4), min_size=1, max_size=5))
    order = draw(st.permutations(range(len(shape))))
    if together and order[-1] != 0:
        order = [0, *(axis for axis in order if axis != 0)]
    in_memory = torch.arange(float(math.prod(shape))).reshape([shape[axis] for axis in order])
    return in_memory.permute([order.index(axis) for axis in range(len(shape))])


@given(dense(together=True))
def test_flat_is_a_view_and_restore_its_inverse(sequence):
    layout = Layout.of(sequence)
    flat = layout.flat(sequence)
    assert flat.shape == (len(sequence), sequence[0].numel())
    assert flat.data_ptr() == sequence.data_ptr()
    assert flat.shape[1] == 1 or flat.stride(1) > 0
    restored = layout.restore(flat)
    assert restored.shape == sequence.shape
    assert restored.data_ptr() == sequence.data_ptr()
    assert torch.equal(restored, sequence)
    # The neurons stand in the order of the memory.
    for step in flat:
        assert torch.equal(step, step.sort().values)


@given(dense())
def test_a_step_and_a_sequence_are_flattened_alike(sequence):
    layout = Layout.of(sequence)
    assert torch.equal(layout.flat(sequence[0]), layout.flat(sequence)[0])
    assert torch.equal(layout.restore(layout.flat(sequence)[0]), sequence[0])
    assert torch.equal(layout.restore(layout.flat(sequence)), sequence)
    # A tensor that lies otherwise in memory is copied into the same order.
    other = sequence.clone(memory_format=torch.contiguous_format)
    assert torch.equal(layout.flat(other), layout.flat(sequence))


@given(dense(smallest=0))
def test_no_neurons_at_all_are_no_error(sequence):
    if len(sequence) == 0:
        sequence = sequence.new_zeros(1, *sequence.shape[1:])
    layout = Layout.of(sequence)
    assert layout.restore(layout.flat(sequence)).shape == sequence.shape


def test_channels_last_is_a_view_in_the_order_of_memory():
    sequence = torch.randn(6, 3, 4, 5).to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    layout = Layout.of(sequence)
    assert layout.order == (0, 2, 3, 1)
    assert layout.shape == (3, 4, 5, 3)
    assert layout.flat(sequence).is_contiguous()
    assert layout.flat(sequence).data_ptr() == sequence.data_ptr()


def test_what_is_repeated_in_memory_is_copied_and_comes_back_whole():
    sequence = torch.randn(2, 3, 1, 5).expand(2, 3, 4, 5)
    layout = Layout.of(sequence)
    assert torch.equal(layout.restore(layout.flat(sequence)), sequence)


def test_a_constant_current_s_layout_serves_the_spikes_of_all_steps():
    layout = Layout.of(torch.randn(1, 2, 3, 4).transpose(1, 3))
    spikes = torch.randn(7, 24)
    assert torch.equal(layout.flat(layout.restore(spikes)), spikes)


def test_none_is_restored_to_none():
    assert Layout.of(torch.randn(2, 3)).restore(None) is None
