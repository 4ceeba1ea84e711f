"""At which points of student and teacher an objective looks, and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

from torch import fx

from spikestill.graph import Level, Point, levels, named_points
from spikestill.types import InputError, unknown_name

__all__ = ["map_pairs", "named_pairs", "nearest_in_depth", "point_named"]

_LEVELS = 3
"""Low, middle and high."""


def named_pairs(objective: str, points: Sequence[str] | Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs (student's point, teacher's point) as a recipe names them: names of both, or a mapping of one to the other.

    Raises:
        InputError: where there is none.
    """
    if not points:
        raise InputError(f"{objective}: points is empty; name one at least, or leave it out")
    if isinstance(points, Mapping):
        return list(points.items())
    return [(point, point) for point in ([points] if isinstance(points, str) else points)]


def point_named(name: str, known: Mapping[str, Point], who: str, objective: str) -> Point:
    """The point of that name, at which there is a map ``(C, H, W)``.

    Args:
        name: of the point.
        known: the network's points.
        who: student or teacher.
        objective: whose option it is.

    Raises:
        InputError: for a name that is none, and for a feature that is no map.
    """
    if name not in known:
        raise unknown_name(f"point of the {who}", name, known)
    if len(known[name].shape) != 3:
        raise InputError(f"{objective}: the {who}'s feature at '{name}' is no map (C, H, W)")
    return known[name]


def map_pairs(
    objective: str,
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    points: Sequence[str] | Mapping[str, str] | None,
) -> list[tuple[str, str]]:
    """Pairs of points at which both networks have maps: as named, or at three levels, low, middle and high.

    By default: of the student's last neuron layers before every change of resolution, the three that lie the furthest
    apart (the least gap, counted in neuron layers, is largest, then the span); with them, in order, those of the
    teacher whose relative depths differ least in sum. A network with fewer resolutions gives fewer pairs.

    Raises:
        InputError: for points that are none or hold no map, and where a network has no maps.
    """
    if points is None:
        low, high = levels(student), levels(teacher)
        if not low or not high:
            raise InputError(f"{objective}: found no maps to compare; name the points")
        count = min(_LEVELS, len(low), len(high))
        own = _most_spaced(low, count)
        other = nearest_in_depth(own, high)
        return [(here.name, there.name) for here, there in zip(own, other, strict=True)]
    pairs = named_pairs(objective, points)
    known = named_points(student), named_points(teacher)
    for own_name, other_name in pairs:
        point_named(own_name, known[0], "student", objective)
        point_named(other_name, known[1], "teacher", objective)
    return pairs


def _most_spaced(found: Sequence[Level], count: int) -> tuple[Level, ...]:
    def spacing(some: tuple[Level, ...]) -> tuple[int, int]:
        gaps = [b.layers - a.layers for a, b in pairwise(some)]
        return min(gaps, default=0), sum(gaps)

    if count == 1:
        return (found[-1],)
    return max(combinations(found, count), key=spacing)


def nearest_in_depth(wanted: Sequence[Level], found: Sequence[Level]) -> tuple[Level, ...]:
    """As many of ``found`` as there are ``wanted``, in order, whose relative depths differ least from theirs in sum."""

    def difference(some: tuple[Level, ...]) -> float:
        return sum(abs(a.depth - b.depth) for a, b in zip(wanted, some, strict=True))

    return min(combinations(found, len(wanted)), key=difference)
