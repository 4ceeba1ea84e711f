"""A square matrix of counts: what a network says of the images of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from spikestill.report.charts.chart import Chart
from spikestill.report.charts.svg import WIDTH, element, picture

__all__ = ["STRONGEST", "matrix_chart"]

STRONGEST = 0.45
"""The opacity of the fullest cell: the ink of its number is then still readable."""

_MOST_NAMED, _MOST_COUNTED = 26, 14
_LONGEST = 9
_LETTER = 8.3
"""The width of one, at the size that it has on a phone."""
_SLANT = 50


def matrix_chart(
    slug: str, title: str, description: str, names: Sequence[str], counts: Sequence[Sequence[int]], colour: str
) -> Chart:
    """Counts ``[row][column]``, each cell as strong as its share of the row; those off the diagonal in a second colour.

    Args:
        slug: the chart's name in the page.
        title: above it.
        description: what it shows, for who cannot see it.
        names: of rows and columns alike.
        counts: how many of the row's images were taken for the column's class.
        colour: of the diagonal, the name of a colour of the page.
    """
    shown = [_short(name) for name in names] if len(names) <= _MOST_NAMED else []
    length = _LETTER * max(map(len, shown), default=0)
    slanted = length > 2 * _LETTER
    left, top = max(46.0, length + 12), 44 + (length * math.sin(math.radians(_SLANT)) if slanted else 8)
    right = length * math.cos(math.radians(_SLANT)) if slanted else 0
    size = (WIDTH - left - right) / len(names)
    parts = [
        element("text", "taken for", x=left, y=13, class_="label"),
        element("text", "class", x=0, y=top - 8, class_="label"),
    ]
    parts += _names(shown, left, top, size, slanted)
    for row, line in enumerate(counts):
        total = max(sum(line), 1)
        for column, count in enumerate(line):
            if count:
                place = (left + column * size, top + row * size)
                told = f"{names[row]} taken for {names[column]}: {count} of {sum(line)}"
                strength = _strength(count / total, row == column)
                fill = f"var(--{colour})" if row == column else "var(--wrong)"
                parts.append(_cell(place, size, told, count if len(names) <= _MOST_COUNTED else None, strength, fill))
    edge = size * len(names)
    parts.append(element("rect", x=left, y=top, width=edge, height=edge, class_="frame"))
    rows = [[names[row], *map(str, line)] for row, line in enumerate(counts)]
    svg = picture(title, description, slug, top + edge + 2, *parts)
    return Chart(slug, title, svg, ["class", *names], rows)


def _strength(share: float, right: bool) -> float:
    """Of errors, which are few, more than their share: 1 in 100 is to be seen."""
    return STRONGEST * share if right else STRONGEST * (0.3 + 0.7 * share**0.5)


def _cell(place: tuple[float, float], size: float, told: str, count: int | None, strength: float, fill: str) -> Markup:
    x, y = place
    parts = [
        element("title", told),
        element("rect", x=x, y=y, width=size, height=size, fill=fill, fill_opacity=strength),
    ]
    if count is not None:
        middle = (x + size / 2, y + size / 2 + 4.5)
        parts.append(element("text", str(count), x=middle[0], y=middle[1], text_anchor="middle", class_="tick strong"))
    return element("g", *parts)


def _short(name: str) -> str:
    """A name of a few letters, from its two ends: classes often differ at the last."""
    half = (_LONGEST - 1) // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"


def _names(shown: Sequence[str], left: float, top: float, size: float, slanted: bool) -> list[Markup]:
    parts = []
    for index, text in enumerate(shown):
        middle = index * size + size / 2
        parts.append(element("text", text, x=left - 7, y=top + middle + 4.5, text_anchor="end", class_="tick"))
        if slanted:
            turned = f"translate({left + middle + 4:.1f} {top - 7:.1f}) rotate(-{_SLANT})"
            parts.append(element("text", text, transform=turned, class_="tick"))
        else:
            parts.append(element("text", text, x=left + middle, y=top - 8, text_anchor="middle", class_="tick"))
    return parts
