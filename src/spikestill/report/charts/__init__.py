"""Charts as inline SVG: lines, bars, a matrix and a raster, each with the table of its data."""

from spikestill.report.charts.axes import Axis, axis
from spikestill.report.charts.bars import Bar, bar_chart
from spikestill.report.charts.chart import Chart, Key
from spikestill.report.charts.lines import Line, line_chart
from spikestill.report.charts.matrix import matrix_chart
from spikestill.report.charts.raster import raster_chart

__all__ = [
    "Axis",
    "Bar",
    "Chart",
    "Key",
    "Line",
    "axis",
    "bar_chart",
    "line_chart",
    "matrix_chart",
    "raster_chart",
]
