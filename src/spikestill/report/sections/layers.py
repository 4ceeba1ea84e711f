"""Where the spikes are: rates, silence, operations and the distance from the ANN, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spikestill.report.blocks import Block, Figures, Section
from spikestill.report.charts import Bar, Line, axis, bar_chart, line_chart, raster_chart
from spikestill.report.charts.axes import short
from spikestill.report.evidence import Layer
from spikestill.report.shown import Shown, share

__all__ = ["layers"]

_FEW = 0.01
"""The share of saturated neurons from which on they have a chart."""

_MOST_BARS = 40
"""For more, lines over the depth are drawn: the layers' names are in the table."""


def layers(systems: Sequence[Shown]) -> Section:
    """The layers of every spiking system; those of the same layers in one chart."""
    title, spiking = "Layer by layer", [system for system in systems if system.spikes]
    if not spiking:
        return Section("layers", title, "", [], "An ANN has no spikes to show.")
    groups: dict[tuple[str, ...], list[Shown]] = {}
    for system in spiking:
        groups.setdefault(tuple(_rates(system)), []).append(system)
    blocks: list[Block] = []
    for number, group in enumerate(groups.values()):
        names = ", ".join(system.name for system in group)
        blocks += _of(group, f"layers-{number}", f"{names}: " if len(groups) > 1 else "")
    blocks += [_raster(one, f"{one.name}: " if len(spiking) > 1 else "") for one in spiking if _has_raster(one)]
    without = [system.name for system in spiking if system.recorded is None]
    missing = ""
    if without:
        missing = (
            f"Silent neurons, distances from the ANN and rasters are not shown of {', '.join(without)}: the run has no "
            "analysis.json. The command spikestill evaluate writes it."
        )
    return Section("layers", title, "What every neuron layer and every layer of weights does.", blocks, missing)


@dataclass(frozen=True)
class _Series:
    """One value a layer."""

    name: str
    colour: str
    values: Sequence[float]


def _rates(system: Shown) -> Mapping[str, float]:
    return system.first.result.get("test_rates") or {}


def _has_raster(system: Shown) -> bool:
    return system.recorded is not None and bool(system.recorded.raster)


def _of(group: Sequence[Shown], slug: str, prefix: str) -> list[Block]:
    names = list(_rates(group[0]))
    blocks: list[Block] = []
    if names:
        series = [_Series(one.name, one.colour, list(_rates(one).values())) for one in group]
        note = "The mean over the neurons of a layer and all test images of the share of time steps in which they fire."
        blocks.append(_chart(f"{slug}-rates", f"{prefix}Firing rates", names, series, share, note))
        blocks += _recorded(group, slug, prefix, names)
    operations = [one for one in group if _operations(one)]
    if operations and len({tuple(_operations(one)) for one in operations}) == 1:
        blocks.append(_operation_chart(operations, slug, prefix))
    if operations:
        blocks.append(_energy(operations, prefix))
    return blocks


def _recorded(group: Sequence[Shown], slug: str, prefix: str, names: Sequence[str]) -> list[Block]:
    """What is in the runs' evidence, of those that have it."""

    def series(read: Callable[[Layer], float | None]) -> list[_Series]:
        found = []
        for one in group:
            values = [read(layer) for layer in one.recorded.layers] if one.recorded is not None else []
            if len(values) == len(names) and None not in values:
                found.append(_Series(one.name, one.colour, [value or 0.0 for value in values]))
        return found

    blocks: list[Block] = []
    silent, saturated = series(lambda layer: layer.silent), series(lambda layer: layer.saturated)
    if silent:
        most = max(value for one in saturated for value in one.values)
        few = most < _FEW
        note = "The share of neurons that never fired, at any test image."
        if few:
            note += f" Saturated, firing in at least 95 % of all time steps, are at most {share(most, 2)} of a layer's."
        blocks.append(_chart(f"{slug}-silent", f"{prefix}Silent neurons", names, silent, share, note))
        if not few:
            note = "The share of neurons that fired in at least 95 % of all time steps of all test images."
            blocks.append(_chart(f"{slug}-saturated", f"{prefix}Saturated neurons", names, saturated, share, note))
    if distances := series(lambda layer: layer.rate_error):
        note = (
            "Firing rates beside the activations of the ANN of the same architecture, on the sample images, up to one "
            "scale a layer: 0 where they are proportional, 1 where they have nothing in common."
        )
        title = f"{prefix}Distance from the ANN’s activations"
        blocks.append(_chart(f"{slug}-distance", title, names, distances, "{:.3f}".format, note, longest=1.0))
    return blocks


def _operations(system: Shown) -> Mapping[str, Any]:
    return system.first.result.get("test_operations_by_layer") or {}


def _operation_chart(group: Sequence[Shown], slug: str, prefix: str) -> Block:
    series = []
    for one in group:
        values = [layer["accumulates"] + layer["multiply_accumulates"] for layer in _operations(one).values()]
        series.append(_Series(one.name, one.colour, values))
    layers_of_first = _operations(group[0])
    ann = [layer["ann_multiply_accumulates"] for layer in layers_of_first.values()]
    series.append(_Series("the same as an ANN", "ann", ann))
    uncounted = ", ".join(map(str, group[0].first.result.get("test_operations_not_counted", ())))
    note = (
        "An image, in all time steps: accumulates of spikes and, of analog input, multiply-accumulates; of the ANN "
        "multiply-accumulates." + (f" Not counted: {uncounted}." if uncounted else "")
    )
    return _chart(f"{slug}-operations", f"{prefix}Operations", list(layers_of_first), series, short, note)


def _energy(group: Sequence[Shown], prefix: str) -> Block:
    rows = []
    for one in group:
        result = one.first.result
        counts = [short(result["test_synaptic_operations"]), short(result["test_multiply_accumulates"])]
        rows.append([one.name, *counts, f"{result['test_energy_nanojoules']:,.1f}"])
    result = group[0].first.result
    ann = [short(result["test_ann_multiply_accumulates"]), f"{result['test_ann_energy_nanojoules']:,.1f}"]
    rows.append(["the same as an ANN", "", *ann])
    title = f"{prefix}Energy of an image"
    colours = [*(one.colour for one in group), "ann"]
    note = "At 0.9 pJ an accumulate and 4.6 pJ a multiply-accumulate (MAC): 45 nm, an estimate of what is counted."
    return Figures(title, ["network", "accumulates", "MACs", "energy, nJ"], rows, colours, note, wide=False)


def _raster(system: Shown, prefix: str) -> Block:
    recorded = system.recorded
    assert recorded is not None
    shown = [
        (layer.name, [(", ".join(map(str, train.neuron)), train.spikes) for train in layer.neurons])
        for layer in recorded.raster
    ]
    label = recorded.classes[recorded.samples[0].label] if recorded.samples else ""
    return raster_chart(
        f"{system.slug}-raster",
        f"{prefix}When single neurons fire",
        f"Spikes of a few neurons of {len(shown)} layers over {system.timesteps} time steps.",
        shown,
        recorded.timesteps or system.timesteps,
        system.colour,
        f"A row a neuron, while the network looks at a test image of class {label}; of each layer some between the "
        "most active neuron and the last that fires.",
    )


def _chart(
    slug: str,
    title: str,
    names: Sequence[str],
    series: Sequence[_Series],
    text: Callable[[float], str],
    note: str,
    longest: float = 0.0,
) -> Block:
    """Bars of a few layers, lines over the depth of many."""
    values = [value for one in series for value in one.values]
    said = f"{title}, a value a layer, of {len(names)} layers; the largest is {text(max(values))}."
    if len(names) * len(series) <= _MOST_BARS:
        columns = zip(*(one.values for one in series), strict=True)
        bars = [Bar(name, column, list(map(text, column))) for name, column in zip(names, columns, strict=True)]
        scale = axis("", [*values, longest], zero=True)
        return bar_chart(slug, title, said, bars, [(one.name, one.colour) for one in series], scale, note)
    lines = [
        Line(one.name, [(place + 1.0, value) for place, value in enumerate(one.values)], one.colour, mark=None)
        for one in series
    ]
    percent = text is share
    y = axis("%" if percent else "", values, percent=percent, zero=True)
    chart = line_chart(slug, title, said, lines, axis("layer", [1.0, len(names)], whole=True), y, note)
    named = [[name, *row[1:]] for name, row in zip(names, chart.rows, strict=True)]
    return replace(chart, rows=named)
