"""The input current of a layer of neurons: a sum of terms, each as it left its convolution, or batch-normalised.

A neuron reads its current once. So BatchNorm before a neuron, and the sum of a residual block, are not computed on
their own: the layer before hands on its output and the normalisation's numbers, and the pass over time of the neurons
scales, shifts and adds on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikestill.dynamics.backend import passes_for
from spikestill.dynamics.layout import Layout
from spikestill.dynamics.shared import shared_sums

__all__ = ["Normalisation", "Term", "batch_moments", "normalise", "spike_counts", "through", "time_mean"]

_EXACT_ROWS = 256
"""How many spikes a sum in bfloat16 can hold exactly."""


@dataclass(frozen=True)
class Normalisation:
    """``(x - mean) * inverse_deviation * weight + bias``, each ``[C]``.

    Attributes:
        mean: in float32, or float64 for a float64 sequence.
        inverse_deviation: ``(variance + eps) ** -0.5``.
        weight: None for 1.
        bias: None for 0.
        of_batch: whether mean and deviation are those of the sequence itself, so that gradients flow through them.
        is_shared: whether they are those of a batch that is spread over several processes.
    """

    mean: Tensor
    inverse_deviation: Tensor
    weight: Tensor | None
    bias: Tensor | None
    of_batch: bool
    is_shared: bool = False

    @property
    def scale(self) -> Tensor:
        """The factor of a value ``[C]``, without autograd."""
        return self.inverse_deviation if self.weight is None else self.inverse_deviation * self.weight.detach()

    @property
    def shift(self) -> Tensor:
        """What is added to the scaled value ``[C]``, without autograd."""
        shift = -self.mean * self.scale
        return shift if self.bias is None else shift + self.bias.detach()


@dataclass(frozen=True)
class Term:
    """One summand of a current.

    Attributes:
        sequence: ``[T, B, C, ...]``, or ``[1, B, C, ...]`` where it is constant in time.
        normalisation: is applied to it; None for a term that is taken as it is.
        rate: ``[B, C, ...]``, the mean of ``sequence`` over time and the way of the gradient under rate-based
            backpropagation; None through time, where ``sequence`` itself is in autograd.
        is_spare: whether nobody else reads the sequence, so that spikes may take its place in memory.
    """

    sequence: Tensor
    normalisation: Normalisation | None = None
    rate: Tensor | None = None
    is_spare: bool = False


@torch.no_grad()
def batch_moments(sequence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance ``[C]`` over time, batch and space of ``[T, B, C, ...]``, and its mean over time.

    The moments are in float32 (float64 for float64), the mean over time ``[B, C, ...]`` in the sequence's dtype. Those
    of an empty batch are 0 and 1.
    """
    layout = Layout.of(sequence)
    if sequence.numel() == 0:
        zeros = sequence.new_zeros(layout.channels.count, dtype=torch.promote_types(sequence.dtype, torch.float32))
        return zeros, torch.ones_like(zeros), sequence[0]
    mean, variance, over_time = passes_for(sequence).moments(layout.flat(sequence), layout.channels)
    return mean, variance, layout.restore(over_time)


@torch.no_grad()
def time_mean(sequence: Tensor) -> Tensor:
    """The mean over time of ``[T, ...]``, without autograd and in the memory layout of one step.

    It is added up in float32 (float64 for float64) and comes in the sequence's dtype.
    """
    layout = Layout.of(sequence)
    return layout.restore(passes_for(sequence).time_mean(layout.flat(sequence)))


@torch.no_grad()
def spike_counts(spikes: Tensor) -> Tensor:
    """How often each neuron fired: ``[N, ...]`` of zeros and ones, summed over its first axis, as float64 ``[...]``.

    Exact for up to 2^24 rows.
    """
    layout = Layout.of(spikes)
    flat = layout.flat(spikes)
    if flat.dtype in (torch.bfloat16, torch.float16):
        # Sums in the spikes' own dtype, of as many rows as that holds: torch's CPU sums into another are slow.
        total = torch.stack([rows.sum(0).float() for rows in flat.split(_EXACT_ROWS)]).sum(0)
    else:
        total = flat.sum(0)
    return layout.restore(total).double()


@torch.no_grad()
def normalise(sequence: Tensor, normalisation: Normalisation) -> Tensor:
    """The normalised sequence ``[T, B, C, ...]``, in its dtype and without autograd."""
    layout = Layout.of(sequence)
    flat = layout.flat(sequence)
    return layout.restore(passes_for(sequence).affine(flat, normalisation.scale, normalisation.shift, layout.channels))


def through(
    normalisation: Normalisation | None, delta: Tensor, factor: Tensor | None, values: Tensor | None, layout: Layout
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients ``delta * factor`` by a normalised term, by its ``values``, and by its weight and bias.

    All are rows, as ``layout`` makes them. Where the statistics are the batch's own, they are functions of the values
    too: each moves its channel's mean by 1/M and the variance by 2 (x - mean) / M of it (M values a channel). On rates,
    with the statistics of the sequence, that is the exact derivative of the mean over time of the normalised sequence.
    The rate batch's own variance in its place, which is the smaller one, would enlarge the gradient at every layer.
    Weight and bias of a shared batch's normalisation get the gradients of this process's part.
    """
    if normalisation is None:
        if factor is not None:
            delta = passes_for(delta).products(delta, factor, None, None, layout.channels)[0]
        return delta, delta, None, None
    assert values is not None
    mean, inverse, scale = normalisation.mean, normalisation.inverse_deviation, normalisation.scale
    kernels = passes_for(delta)
    delta, by_shift, by_centred = kernels.products(delta, factor, values, mean, layout.channels)
    if normalisation.of_batch:
        members: int | Tensor = max(values.numel() // layout.channels.count, 1)
        sum_shift, sum_centred = by_shift, by_centred
        if normalisation.is_shared:
            sum_shift, sum_centred, members = shared_sums(by_shift, by_centred, values.numel() // layout.channels.count)
        slope = -scale * inverse * inverse * sum_centred / members
        shift = -scale * sum_shift / members - slope * mean
    else:
        slope = shift = torch.zeros_like(scale)
    by_values = kernels.affine(values, slope, shift, layout.channels, delta, scale)
    by_weight = None if normalisation.weight is None else by_centred * inverse
    return delta, by_values, by_weight, None if normalisation.bias is None else by_shift
