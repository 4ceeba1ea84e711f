"""Lines over a common axis, with bands for what varies between seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from spikestill.report.charts.axes import Axis
from spikestill.report.charts.chart import Chart, Key
from spikestill.report.charts.svg import WIDTH, element, picture

__all__ = ["Line", "line_chart"]

_HEIGHT = 272
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 30, 46
_MOST_MARKS = 24
_DASHES = (None, "7 4", "2 4", "10 4 2 4")
_MARKS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: what it shows.
        points: ``(x, y)``, by x.
        colour: the name of a colour of the page.
        spread: at each point, one standard deviation, of several seeds.
        dash: 0 for a continuous line, 1 to 3 for broken ones.
        mark: 0 to 3, the shape of its points; None for a line without.
        remarks: at each point, what more is to be said of it where a mouse points there.
        guides: whether it is there to be compared with, as a level is, and so makes no rows of the table.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    spread: Sequence[float] = ()
    dash: int = 0
    mark: int | None = 0
    remarks: Sequence[str] = ()
    guides: bool = False


def line_chart(
    slug: str, title: str, description: str, lines: Sequence[Line], x: Axis, y: Axis, note: str = ""
) -> Chart:
    """Lines over one pair of axes; the table has a row a place on the x axis.

    Args:
        slug: the chart's name in the page.
        title: above it.
        description: what it shows, for who cannot see it.
        lines: drawn in this order.
        x: the horizontal axis.
        y: the vertical axis; its label stands above it.
        note: below the chart.
    """
    drawn = [*_grid(x, y), *(_band(line, x, y) for line in lines if line.spread), *(_line(one, x, y) for one in lines)]
    header, rows = _table(lines, x, y)
    legend = [Key(line.name, _sample(line)) for line in lines] if len(lines) > 1 else []
    return Chart(slug, title, picture(title, description, slug, _HEIGHT, *drawn), header, rows, legend, note)


def _across(x: Axis, value: float) -> float:
    return _LEFT + x.share(value) * (WIDTH - _LEFT - _RIGHT)


def _up(y: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - y.share(value) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(x: Axis, y: Axis) -> list[Markup]:
    base = _HEIGHT - _BOTTOM
    parts = [element("text", y.label, x=0, y=14, class_="label")]
    for tick in y.ticks:
        height = _up(y, tick)
        parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=height, y2=height, class_="grid"))
        parts.append(element("text", y.text(tick), x=_LEFT - 8, y=height + 4.5, text_anchor="end", class_="tick"))
    parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
    for tick in x.ticks:
        place = _across(x, tick)
        parts.append(element("line", x1=place, x2=place, y1=base, y2=base + 5, class_="axis"))
        parts.append(element("text", x.text(tick), x=place, y=base + 20, text_anchor="middle", class_="tick"))
    parts.append(element("text", x.label, x=WIDTH - _RIGHT, y=_HEIGHT - 6, text_anchor="end", class_="label"))
    return parts


def _band(line: Line, x: Axis, y: Axis) -> Markup:
    around = list(zip(line.points, line.spread, strict=True))
    upper = [(at, value + deviation) for (at, value), deviation in around]
    lower = [(at, value - deviation) for (at, value), deviation in reversed(around)]
    places = " ".join(f"{_across(x, at):.1f},{_up(y, value):.1f}" for at, value in [*upper, *lower])
    return element("polygon", points=places, fill=f"var(--{line.colour})", class_="band")


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    places = [(_across(x, at), _up(y, value)) for at, value in line.points]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
    colour = f"var(--{line.colour})"
    parts = [element("polyline", points=path, stroke=colour, stroke_dasharray=_DASHES[line.dash], class_="line")]
    if line.mark is not None and len(places) <= _MOST_MARKS:
        remarks = line.remarks or [""] * len(places)
        for (at, value), (across, up), remark in zip(line.points, places, remarks, strict=True):
            told = element("title", f"{line.name}: {y.exactly(value)} at {x.label} {x.text(at)}{remark}")
            parts.append(element("g", told, _mark(line.mark, across, up), fill=colour, class_="mark"))
    return element("g", *parts)


def _mark(shape: int, x: float, y: float) -> Markup:
    kind = _MARKS[shape % len(_MARKS)]
    if kind == "circle":
        return element("circle", cx=x, cy=y, r=4)
    if kind == "square":
        return element("rect", x=x - 3.6, y=y - 3.6, width=7.2, height=7.2)
    if kind == "diamond":
        return element(
            "polygon", points=f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
        )
    return element("polygon", points=f"{x:.1f},{y - 5:.1f} {x + 4.6:.1f},{y + 3.6:.1f} {x - 4.6:.1f},{y + 3.6:.1f}")


def _sample(line: Line) -> Markup:
    colour = f"var(--{line.colour})"
    stroke = element("line", x1=0, x2=30, y1=7, y2=7, stroke=colour, stroke_dasharray=_DASHES[line.dash], class_="line")
    mark = [] if line.mark is None else [element("g", _mark(line.mark, 15, 7), fill=colour, class_="mark")]
    return element("svg", stroke, *mark, viewBox="0 0 30 14", width=30, height=14, aria_hidden="true")


def _table(lines: Sequence[Line], x: Axis, y: Axis) -> tuple[list[str], list[list[str]]]:
    """A row for every place at which a line has a point; what guides has a value wherever it is level."""
    known = [dict(line.points) for line in lines]
    spreads = [dict(zip(dict(line.points), line.spread, strict=False)) for line in lines]
    places = sorted({at for line, points in zip(lines, known, strict=True) if not line.guides for at in points})
    rows = []
    for at in places:
        cells = []
        for points, spread in zip(known, spreads, strict=True):
            value = points.get(at, _level(points, at))
            text = "" if value is None else y.exactly(value)
            cells.append(f"{text} ± {y.exactly(spread[at])}" if spread.get(at) else text)
        rows.append([x.exactly(at), *cells])
    return [x.label, *(line.name for line in lines)], rows


def _level(points: dict[float, float], at: float) -> float | None:
    """The height at a place between two points of the same height."""
    around = pairwise(sorted(points.items()))
    return next((value for (left, value), (right, other) in around if left <= at <= right and value == other), None)
