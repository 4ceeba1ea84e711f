"""When single neurons fire."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from spikestill.report.charts.axes import axis
from spikestill.report.charts.chart import Chart
from spikestill.report.charts.svg import WIDTH, element, picture

__all__ = ["raster_chart"]

_NAME, _ROW, _GAP, _BOTTOM = 20, 7, 10, 40
_STROKE = 9


def raster_chart(
    slug: str,
    title: str,
    description: str,
    layers: Sequence[tuple[str, Sequence[tuple[str, Sequence[int]]]]],
    timesteps: int,
    colour: str,
    note: str = "",
) -> Chart:
    """A row a neuron and a stroke a spike, layer by layer.

    Args:
        slug: the chart's name in the page.
        title: above it.
        description: what it shows, for who cannot see it.
        layers: the name of each layer, and of some of its neurons the name and the time steps (from 1) of its spikes.
        timesteps: T.
        colour: the name of a colour of the page.
        note: below the chart.
    """
    step = WIDTH / timesteps
    stroke = min(_STROKE, 0.84 * step)
    parts: list[Markup] = []
    rows = []
    top = 0.0
    for layer, neurons in layers:
        parts.append(element("text", layer, x=0, y=top + 14, class_="name"))
        top += _NAME
        for neuron, spikes in neurons:
            parts.append(element("rect", x=0, y=top, width=WIDTH, height=_ROW - 1, class_="ground"))
            strokes = [
                element("rect", x=(at - 0.5) * step - stroke / 2, y=top, width=stroke, height=_ROW - 1) for at in spikes
            ]
            parts.append(element("g", *strokes, fill=f"var(--{colour})"))
            rows.append([layer, neuron, ", ".join(map(str, spikes)) or "none"])
            top += _ROW
        top += _GAP
    parts += [
        element("text", f"{at:g}", x=(at - 0.5) * step, y=top + 8, text_anchor="middle", class_="tick")
        for at in axis("time step", [1, max(timesteps, 2)], whole=True).ticks
        if at <= timesteps
    ]
    parts.append(element("text", "time step", x=WIDTH, y=top + 28, text_anchor="end", class_="label"))
    svg = picture(title, description, slug, top + _BOTTOM - 8, *parts)
    return Chart(slug, title, svg, ["layer", "neuron", "time steps of its spikes"], rows, note=note)
