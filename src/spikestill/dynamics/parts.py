"""Sequences that come some time steps at a time: their statistics, and spikes that are kept a bit each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from spikestill.dynamics.current import batch_moments
from spikestill.dynamics.layout import Layout

__all__ = ["PackedSpikes", "moments_in_parts"]


@torch.no_grad()
def moments_in_parts(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor, int]:
    """As :func:`batch_moments` of a sequence that comes in parts ``[t, B, C, ...]``, and how many values a channel has.

    Moments of parts are put together in float64, from each part's distance to the mean so far (Chan et al. 1979), so
    that no sum is large.
    """
    timesteps = members = 0
    for part in parts:
        mean, variance, over_time = batch_moments(part)
        more = part.numel() // max(len(mean), 1)
        if timesteps == 0:
            all_mean, all_variance, all_over_time = mean.double(), variance.double(), over_time
        elif more:
            share, distance = more / (members + more), mean - all_mean
            all_mean = all_mean + share * distance
            all_variance = (1 - share) * (all_variance + share * distance.square()) + share * variance
            all_over_time = torch.lerp(all_over_time.to(mean.dtype), over_time.to(mean.dtype), share)
        timesteps, members = timesteps + len(part), members + more
        del part  # before the next one is made
    return all_mean.to(mean.dtype), all_variance.to(mean.dtype), all_over_time.to(over_time.dtype), members


class PackedSpikes:
    """Some steps of a layer's spikes, a bit each.

    Args:
        spikes: ``[t, B, ...]`` of zeros and ones; NaN counts as a one.
    """

    def __init__(self, spikes: Tensor) -> None:
        self._layout = Layout.of(spikes)
        flat = self._layout.flat(spikes)
        self._shape, self._dtype = flat.shape, flat.dtype
        fired = functional.pad(flat.flatten() != 0, (0, -flat.numel() % 8)).view(torch.uint8).view(torch.int64)
        # Of eight bytes that are 0 or 1, the product's highest byte has bit k where byte k is 1.
        self._bytes = (fired.mul_(0x0102040810204080) >> 56).to(torch.uint8)

    @torch.no_grad()
    def unpacked(self, scale: Tensor) -> Tensor:
        """The spikes ``[t, B, ...]`` in their dtype and memory layout, times ``scale [B, ...]``."""
        # All eight bytes are the packed one; of byte k, bit k is kept.
        fired = self._bytes.long().mul_(0x0101010101010101).bitwise_and_(0x8040201008040201 - 2**64)
        flat = (fired.view(torch.uint8)[: self._shape.numel()] != 0).view(self._shape)
        return self._layout.restore(flat * self._layout.flat(scale).to(self._dtype))
