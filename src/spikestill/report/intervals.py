"""How sure an accuracy is: the interval of a share of so many images, and of the difference of two."""

from __future__ import annotations

import math

__all__ = ["difference_interval", "wilson"]

_Z = 1.959963984540054
"""Of the normal distribution, for 95 %."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, doi 10.1080/01621459.1927.10502953), within [0, 1].

    Args:
        share: what was found, in [0, 1].
        count: of how many images, at least 1.
    """
    shrink = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / shrink
    reach = _Z / shrink * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def difference_interval(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """The 95 % interval of the first share minus the second (Newcombe 1998, method 10: from both score intervals).

    It takes the two for independent. Two networks on the same images often err on the same ones; the interval is then
    wider than need be, so that a difference is rather missed than invented.

    Args:
        first: a share and its count of images.
        second: likewise.
    """
    (low, high), (other_low, other_high) = wilson(*first), wilson(*second)
    difference = first[0] - second[0]
    below = math.hypot(first[0] - low, other_high - second[0])
    above = math.hypot(high - first[0], second[0] - other_low)
    return difference - below, difference + above
