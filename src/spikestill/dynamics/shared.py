"""Sums over a batch that is spread over several processes, each of which holds some of its images.

Every process has to call these at the same places, and all get the same numbers. They are added in float64: a variance
is put together from sums of squares, and counts of values go beyond what float32 holds exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed

__all__ = ["shared_moments", "shared_sums"]


def shared_moments(mean: Tensor, variance: Tensor, members: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance ``[C]`` of the whole batch, and how many values a channel of it has, a scalar.

    Args:
        mean: of this process's part, ``[C]``.
        variance: of this process's part, biased, ``[C]``.
        members: how many values a channel has in this process's part.
    """
    exact = mean.double()
    first, second, count = _summed(exact * members, (variance.double() + exact.square()) * members, members)
    whole = first / count
    return whole.to(mean.dtype), (second / count - whole.square()).clamp(min=0).to(variance.dtype), count


def shared_sums(first: Tensor, second: Tensor, members: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two sums ``[C]`` over this process's part as those over the whole batch, and its values a channel, a scalar."""
    one, other, count = _summed(first.double(), second.double(), members)
    return one.to(first.dtype), other.to(second.dtype), count


def _summed(first: Tensor, second: Tensor, members: int) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.cat([first, second, first.new_full((1,), members)])
    distributed.all_reduce(sums)
    one, other, count = sums.split([len(first), len(second), 1])
    return one, other, count[0]
