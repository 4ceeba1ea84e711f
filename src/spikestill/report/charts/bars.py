"""Bars that lie on their side, so that their names can be read at any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from spikestill.report.charts.axes import Axis
from spikestill.report.charts.chart import Chart, Key
from spikestill.report.charts.svg import WIDTH, element, picture

__all__ = ["Bar", "bar_chart"]

_NAME, _GAP = 19, 11
_THICK, _THIN = 11, 9
_MOST_THICK = 2


@dataclass(frozen=True)
class Bar:
    """The bars of one name.

    Attributes:
        name: above them.
        values: one a series.
        texts: what is written beside each.
    """

    name: str
    values: Sequence[float]
    texts: Sequence[str]


def bar_chart(
    slug: str,
    title: str,
    description: str,
    bars: Sequence[Bar],
    series: Sequence[tuple[str, str]],
    x: Axis,
    note: str = "",
) -> Chart:
    """A group of bars a name, one bar a series, all from zero.

    Args:
        slug: the chart's name in the page.
        title: above it.
        description: what it shows, for who cannot see it.
        bars: from top to bottom.
        series: name and colour of each.
        x: the axis of their lengths; only its end counts.
        note: below the chart.
    """
    parts: list[Markup] = []
    top, room = 0.0, WIDTH - 76
    thick = _THICK if len(series) <= _MOST_THICK else _THIN
    for bar in bars:
        parts.append(element("text", bar.name, x=0, y=top + 13, class_="name"))
        top += _NAME
        for value, text, (name, colour) in zip(bar.values, bar.texts, series, strict=True):
            length = max(1.5, x.share(value) * room) if value > 0 else 0
            told = element("title", f"{bar.name}, {name}: {text}")
            drawn = element("rect", x=0, y=top, width=length, height=thick, rx=1.5, fill=f"var(--{colour})")
            track = element("rect", x=0, y=top + thick - 1, width=room, height=1, class_="track")
            parts.append(element("g", told, track, drawn))
            parts.append(element("text", text, x=WIDTH, y=top + thick + 0.5, text_anchor="end", class_="value"))
            top += thick + 6
        top += _GAP
    legend = [Key(name, _sample(colour)) for name, colour in series] if len(series) > 1 else []
    rows = [[bar.name, *bar.texts] for bar in bars]
    svg = picture(title, description, slug, top, *parts)
    return Chart(slug, title, svg, ["layer", *(name for name, _ in series)], rows, legend, note)


def _sample(colour: str) -> Markup:
    bar = element("rect", x=0, y=2, width=18, height=10, rx=1.5, fill=f"var(--{colour})")
    return element("svg", bar, viewBox="0 0 18 14", width=18, height=14, aria_hidden="true")
