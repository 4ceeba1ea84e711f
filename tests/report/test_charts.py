from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as some

from spikestill.report.charts import Bar, Chart, Line, axis, bar_chart, line_chart, matrix_chart, raster_chart
from spikestill.report.charts.axes import short
from spikestill.report.charts.matrix import STRONGEST
from spikestill.report.charts.svg import WIDTH

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(chart: Chart) -> ElementTree.Element:
    root = ElementTree.fromstring(chart.svg)
    assert root.get("role") == "img"
    title, description = root.find(f"{SPACE}title"), root.find(f"{SPACE}desc")
    assert title is not None
    assert description is not None
    assert title.text == chart.title
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    for row in chart.rows:
        assert len(row) == len(chart.header)
    return root


def all_of(root: ElementTree.Element, kind: str, css: str | None = None) -> list[ElementTree.Element]:
    return [one for one in root.iter(f"{SPACE}{kind}") if css is None or css in (one.get("class") or "").split()]


def lines(*given: Line) -> Chart:
    values = [value for line in given for _, value in line.points]
    return line_chart("c", "Title", "What it shows.", given, axis("t", [1, 4], whole=True), axis("y", values))


@given(some.lists(some.floats(-1e9, 1e9), min_size=1, max_size=8), some.booleans())
def test_an_axis_holds_its_values_between_round_ticks(values: list[float], zero: bool) -> None:
    values = [abs(value) for value in values] if zero else values
    found = axis("y", values, zero=zero)
    slack = 1e-6 * (found.high - found.low)
    assert found.low - slack <= min(values) <= max(values) <= found.high + slack
    assert 2 <= len(found.ticks) <= 8
    assert list(found.ticks) == sorted(set(found.ticks))
    assert found.low == 0 or not zero


@given(some.integers(0, 1000), some.integers(1, 3000))
def test_an_axis_of_counts_has_whole_ticks_and_ends_where_they_do(first: int, length: int) -> None:
    found = axis("t", [first, first + length], whole=True)
    assert (found.low, found.high) == (first, first + length)
    assert all(tick == int(tick) and found.low <= tick <= found.high for tick in found.ticks)
    assert 2 <= len(found.ticks) <= 8


def test_ticks_that_one_expects() -> None:
    assert axis("t", [1, 100], whole=True).ticks == (1, 25, 50, 75, 100)
    assert axis("epoch", [1, 30], whole=True).ticks == (1, 10, 20, 30)
    shares = axis("accuracy", [0.48, 0.991], percent=True)
    assert [shares.text(tick) for tick in shares.ticks] == ["40", "60", "80", "100"]
    assert shares.exactly(0.98765) == "98.77 %"
    assert axis("y", [math.nan, 2.0, math.inf]).low < 2


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (18432, "18.4k"), (1.5e6, "1.5M"), (2e9, "2G"), (-1500, "-1.5k")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_line_goes_through_its_points() -> None:
    root = drawn(lines(Line("a", [(1, 0.0), (2, 5.0), (4, 10.0)], "s0")))
    (path,) = all_of(root, "polyline", "line")
    places = [tuple(map(float, place.split(","))) for place in str(path.get("points")).split()]
    (left, bottom), (middle, half), (right, top) = places
    assert (middle - left) / (right - left) == pytest.approx(1 / 3, abs=0.01)
    assert (bottom - half) / (bottom - top) == pytest.approx(1 / 2, abs=0.01)
    assert 0 < left < right < WIDTH
    assert len(all_of(root, "circle")) == 3


def test_the_band_is_a_deviation_to_each_side_and_stands_in_the_table() -> None:
    chart = lines(Line("a", [(1, 1.0), (2, 2.0)], "s0", spread=(0.0, 0.5)), Line("b", [(1, 1.5), (2, 3.0)], "s1"))
    (band,) = all_of(drawn(chart), "polygon", "band")
    assert len(str(band.get("points")).split()) == 4
    assert chart.header == ["t", "a", "b"]
    assert chart.rows == [["1", "1", "1.5"], ["2", "2 ± 0.5", "3"]]
    assert [key.name for key in chart.legend] == ["a", "b"]


def test_a_level_is_in_every_row() -> None:
    points = [(1.0, 0.5), (2.0, 0.7), (4.0, 0.8)]
    chart = lines(Line("student", points, "s0"), Line("teacher", [(1, 0.9), (4, 0.9)], "ann", mark=None, guides=True))
    assert [row[2] for row in chart.rows] == ["0.9", "0.9", "0.9"]


def test_bars_are_as_long_as_their_values() -> None:
    bars = [Bar("one", (1.0, 4.0), ("1", "4")), Bar("two", (2.0, 0.0), ("2", "0"))]
    series = [("a", "s0"), ("b", "s1")]
    chart = bar_chart("c", "Bars", "What they show.", bars, series, axis("", [4.0], zero=True))
    lengths = [float(one.get("width") or 0) for one in all_of(drawn(chart), "rect") if one.get("rx")]
    assert lengths[1] / lengths[0] == pytest.approx(4, rel=0.01)
    assert lengths[2] / lengths[0] == pytest.approx(2, rel=0.01)
    assert lengths[3] == 0
    assert chart.rows == [["one", "1", "4"], ["two", "2", "0"]]


def test_the_matrix_is_as_strong_as_its_shares() -> None:
    chart = matrix_chart("c", "Matrix", "What it shows.", ["cat", "dog"], [[9, 1], [0, 10]], "s0")
    root = drawn(chart)
    opacities = [float(one.get("fill-opacity") or 0) for one in all_of(root, "rect") if one.get("fill-opacity")]
    assert opacities[0] == pytest.approx(0.9 * STRONGEST, abs=0.01)
    assert opacities[2] == pytest.approx(STRONGEST, abs=0.01)
    assert len(opacities) == 3
    assert max(opacities) <= STRONGEST
    assert "cat taken for dog: 1 of 10" in [one.text for one in all_of(root, "title")]
    assert chart.rows == [["cat", "9", "1"], ["dog", "0", "10"]]


def test_every_spike_is_a_stroke_at_its_step() -> None:
    chart = raster_chart("c", "Raster", "What it shows.", [("layer1", [("0, 1", (1, 4)), ("2, 2", ())])], 4, "s0")
    root = drawn(chart)
    strokes = [one for group in all_of(root, "g") for one in group if group.get("fill")]
    middles = [float(one.get("x") or 0) + float(one.get("width") or 0) / 2 for one in strokes]
    assert middles == pytest.approx([WIDTH / 8, 7 * WIDTH / 8])
    assert chart.rows == [["layer1", "0, 1", "1, 4"], ["layer1", "2, 2", "none"]]


def test_whatever_a_name_says_is_text() -> None:
    evil = '"><script>alert(1)</script>&'
    chart = lines(Line(evil, [(1, 1.0), (2, 2.0)], "s0"), Line("b", [(1, 1.0), (2, 2.0)], "s1"))
    drawn(chart)
    assert "<script" not in chart.svg
    matrix = matrix_chart("m", evil, evil, [evil, "b"], [[1, 1], [1, 1]], "s0")
    drawn(matrix)
    assert not re.search("<script", matrix.svg)
