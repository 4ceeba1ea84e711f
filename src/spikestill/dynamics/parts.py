"""Sequences that come some time steps at a time: their statistics, and spikes that are kept a bit each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

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
    """A layer's spikes, a bit each: they are added some steps at a time, and read so."""

    def __init__(self) -> None:
        self._bytes: list[Tensor] = []

    def add(self, spikes: Tensor) -> None:
        """Take the next steps ``[t, B, ...]`` of zeros and ones; NaN counts as a one."""
        self._layout, self._dtype = Layout.of(spikes), spikes.dtype
        flat = self._layout.flat(spikes)
        fired = functional.pad(flat != 0, (0, -flat.shape[1] % 8)).view(torch.uint8)
        eights = fired.flatten().view(torch.int64).view(len(fired), fired.shape[1] // 8)
        # Of eight bytes that are 0 or 1, the product's highest byte has bit k where byte k is 1.
        self._bytes.append((eights.mul_(0x0102040810204080) >> 56).to(torch.uint8))

    def parts(self, timesteps: int, scale: Tensor) -> Iterator[Tensor]:
        """The spikes ``[t, B, ...]`` times ``scale [B, ...]``, in their dtype and layout, so many steps at a time."""
        if len(self._bytes) > 1:
            self._bytes = [torch.cat(self._bytes)]
        row = self._layout.flat(scale).to(self._dtype)
        return map(partial(self._unpacked, row), self._bytes[0].split(timesteps))

    @torch.no_grad()
    def _unpacked(self, scale: Tensor, packed: Tensor) -> Tensor:
        # All eight bytes are the packed one; of byte k, bit k is kept.
        fired = packed.long().mul_(0x0101010101010101).bitwise_and_(0x8040201008040201 - 2**64).view(torch.uint8)
        return self._layout.restore((fired[:, : len(scale)] != 0) * scale)
