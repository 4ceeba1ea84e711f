"""Average pooling in all its spellings as the one that exchange formats know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from spikestill.export.rewriting import Rewriting, Scale
from spikestill.graph.trace import shape_of

__all__ = ["Average", "Scale", "is_average", "lower_pooling"]

_AVERAGES: tuple[Any, ...] = (
    *(torch.mean, torch.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d),
    *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d),
)


@dataclass(frozen=True)
class Average:
    """The mean over windows of a map.

    Attributes:
        kernel: height and width of a window.
        stride: from window to window.
        padding: zeros at each side.
        counts_padding: whether they count in the mean.
        ceil: whether a last window may reach out of the map.
        divisor: what a window's sum is divided by; None for its size.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    counts_padding: bool = True
    ceil: bool = False
    divisor: int | None = None


def is_average(node: fx.Node) -> bool:
    """Whether a node is average pooling or a mean."""
    return node.target in _AVERAGES


def lower_pooling(work: Rewriting, node: fx.Node) -> None:
    """Put ``nn.AvgPool2d`` as exchange formats know it (and what it lacks) in the place of a pooling.

    Raises:
        InputError: for windows that do not all have the same shape.
    """
    source: Any = node.args[0]
    before, after = shape_of(source) or (), shape_of(node) or ()
    if len(before) != 3:
        raise work.refusal(node, "only maps [C, H, W] are pooled in the formats")
    if node.target is functional.avg_pool2d:
        pool = _plain(node)
    elif node.target is functional.adaptive_avg_pool2d:
        pool = _adaptive(work, node, before, after)
    elif after in (before[:1], (before[0], 1, 1)):
        pool = Average(before[1:], before[1:])
    else:
        raise work.refusal(node, "only a mean over a whole map has an equivalent")
    size = _size(pool, before)
    if pool.ceil and after[1:] != size[1:]:
        raise work.refusal(node, "its last windows reach out of the map: use ceil_mode=False")
    pooled = work.call(node, nn.AvgPool2d(pool.kernel, pool.stride, pool.padding), source, (2, *size))
    factors = _factors(pool, before)
    if factors is not None:
        pooled = work.call(node, Scale(factors.to(work.dtype)), pooled, (2, *size))
    work.replace(node, pooled if after == size else work.call(node, nn.Flatten(), pooled))


def _plain(node: fx.Node) -> Average:
    kernel, stride, padding, ceil, counts, *divisor = node.args[1:]
    given: Any = (kernel, stride, padding, counts, ceil, *divisor)
    return Average(*given)


def _adaptive(work: Rewriting, node: fx.Node, before: tuple[int, ...], after: tuple[int, ...]) -> Average:
    if any(size % wanted for size, wanted in zip(before[1:], after[1:], strict=True)):
        raise work.refusal(node, f"windows of {before[1:]} pooled to {after[1:]} differ in size: choose a divisor")
    kernel = (before[1] // after[1], before[2] // after[2])
    return Average(kernel, kernel)


def _size(pool: Average, before: tuple[int, ...]) -> tuple[int, ...]:
    sides = zip(before[1:], pool.kernel, pool.stride, pool.padding, strict=True)
    return (before[0], *((size + 2 * padding - kernel) // stride + 1 for size, kernel, stride, padding in sides))


def _factors(pool: Average, before: tuple[int, ...]) -> torch.Tensor | None:
    """What the mean that counts padding is to be multiplied by, ``[C, H, W]``; None for 1 everywhere."""
    if pool.divisor is not None:
        wanted = torch.full(_size(pool, before), math.prod(pool.kernel) / pool.divisor, dtype=torch.float64)
        return None if bool((wanted == 1).all()) else wanted
    if pool.counts_padding or not any(pool.padding):
        return None
    inside = torch.ones(1, *before, dtype=torch.float64)
    return 1 / functional.avg_pool2d(inside, pool.kernel, pool.stride, pool.padding)[0]
