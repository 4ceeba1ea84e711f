"""Axes: a range that ends at round numbers, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Axis", "axis", "short"]

_TICKS = 5
_CLOSE = 0.4
"""Of a step: two ticks that are closer than that would touch."""

_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what is along it, with its unit.
        low: its beginning.
        high: its end.
        ticks: the numbers that are written.
        percent: whether numbers are shares, to be written in percent.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    percent: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, in [0, 1]."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def text(self, value: float) -> str:
        """A tick's number."""
        return f"{round(100 * value, 6):g}" if self.percent else short(value)

    def exactly(self, value: float) -> str:
        """A number of the data."""
        return f"{100 * value:.2f} %" if self.percent else f"{value:,.6g}"


def axis(
    label: str, values: Iterable[float], *, percent: bool = False, whole: bool = False, zero: bool = False
) -> Axis:
    """The axis that holds all of these values.

    Args:
        label: what they are, with their unit.
        values: finite numbers; others are left out.
        percent: they are shares, in [0, 1].
        whole: they count something: the axis ends at the least and the largest, and the ticks are whole numbers.
        zero: the axis begins at zero.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = (0.0 if zero else min(finite)), max(finite)
    if high <= low:
        low, high = (low, low + 1.0) if zero or whole else (low - 0.5, low + 0.5)
    step = _round_up((high - low) / (_TICKS - 1))
    if whole:
        step = max(1.0, math.ceil(step))
        inner = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
        first = [low] if not inner or inner[0] - low >= _CLOSE * step else []
        return Axis(label, low, high, (*first, *inner))
    first_tick, last_tick = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [index * step for index in range(first_tick, last_tick + 1)]
    if percent and low >= 0 and high <= 1:
        ticks = [min(max(tick, 0.0), 1.0) for tick in ticks]
    return Axis(label, ticks[0], ticks[-1], tuple(dict.fromkeys(ticks)), percent)


def short(value: float) -> str:
    """A number in a few characters: 12k, 3.4M."""
    for size, suffix in _SUFFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{round(value, 9):.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _round_up(step: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))
