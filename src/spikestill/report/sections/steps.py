"""What time gives: accuracy at every time step, and where each image stops as soon as the network is sure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from spikestill.report.blocks import Block, Section
from spikestill.report.charts import Line, axis, line_chart
from spikestill.report.shown import Shown, plural, share

__all__ = ["steps"]


def steps(systems: Sequence[Shown]) -> Section:
    """Accuracy over time, and early exit."""
    spiking = [system for system in systems if system.spikes and system.measured.steps]
    title, lead = "Accuracy and time", "The answer after t steps is the largest of the mean of the first t read-outs."
    if not spiking:
        return Section("time", title, "", [], "An ANN answers at once: there are no time steps to show.")
    blocks: list[Block] = [_over_time(spiking, systems)]
    recorded = [system for system in spiking if system.recorded is not None and len(system.recorded.early_exit) > 1]
    missing = ""
    if recorded:
        lead += " An image can also stop earlier, as soon as the answer's softmax probability reaches a threshold."
        blocks.append(_early_exit(recorded))
    else:
        missing = "Early exit is not shown: it was not recorded, or there is but one time step."
    return Section("time", title, lead, blocks, missing)


def _over_time(spiking: Sequence[Shown], systems: Sequence[Shown]) -> Block:
    last = max(system.measured.steps[-1] for system in spiking)
    lines = [_accuracies(system) for system in spiking]
    for place, (name, level) in enumerate(_levels(spiking, systems)):
        ends = [(1, level), (max(last, 2), level)]
        lines.append(Line(name, ends, "ann", dash=1 + place % 3, mark=None, guides=True))
    values = [value for line in lines for _, value in line.points]
    spread = [
        value - deviation for line in lines for (_, value), deviation in zip(line.points, line.spread, strict=False)
    ]
    first = spiking[0]
    reached = share(first.measured.mean_accuracy_at(first.measured.steps[-1]))
    return line_chart(
        "accuracy-over-time",
        "Accuracy at every time step",
        f"Test accuracy against the number of time steps; {first.name} reaches {reached} after "
        f"{first.measured.steps[-1]}.",
        lines,
        axis("time steps", [1, max(last, 2)], whole=True),
        axis("test accuracy, %", [*values, *spread], percent=True),
        note=_bands(spiking),
    )


def _accuracies(system: Shown) -> Line:
    points, spread = [], []
    for step in system.measured.steps:
        values = system.values(lambda result, at=str(step): result["test_accuracy_by_timestep"][at])  # type: ignore[misc]
        if values:
            points.append((float(step), statistics.mean(values)))
            spread.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    return Line(system.name, points, system.colour, spread if any(spread) else (), system.dash, system.mark)


def _levels(spiking: Sequence[Shown], systems: Sequence[Shown]) -> list[tuple[str, float]]:
    """The teachers, each once, and the ANNs among the systems."""
    found = {
        f"{system.name}": level for system in systems if not system.spikes and (level := system.figure("test_accuracy"))
    }
    for system in spiking:
        if system.teacher is not None and round(system.teacher[1], 9) not in {round(one, 9) for one in found.values()}:
            name = system.origin if system.origin not in found else f"{system.origin} of {system.name}"
            found[name] = system.teacher[1]
    return list(found.items())


def _early_exit(recorded: Sequence[Shown]) -> Block:
    lines = []
    for system in recorded:
        exits = sorted(system.recorded.early_exit, key=lambda one: one.mean_steps)  # type: ignore[union-attr]
        points = [(one.mean_steps, one.accuracy) for one in exits]
        remarks = ["" if one.threshold is None else f" (threshold {one.threshold:.3f})" for one in exits]
        lines.append(Line(system.name, points, system.colour, (), system.dash, system.mark, remarks))
    last = max(system.timesteps for system in recorded)
    first = recorded[0].recorded
    assert first is not None
    best = max(first.early_exit, key=lambda one: (one.accuracy, -one.mean_steps))
    reached = f"{share(best.accuracy)} with {best.mean_steps:.2f} of {plural(recorded[0].timesteps, 'step')} on average"
    note = f"{recorded[0].name}: {reached}. The threshold was not chosen on other data: this is what is possible."
    if any(len(system.seeds) > 1 for system in recorded):
        note += " Of several seeds the first is shown."
    return line_chart(
        "early-exit",
        "Stopping when sure",
        f"Test accuracy against the mean number of time steps; {recorded[0].name} reaches {reached}.",
        lines,
        axis("mean time steps", [1, max(last, 2)], whole=last > 2),
        axis("test accuracy, %", [value for line in lines for _, value in line.points], percent=True),
        note=note,
    )


def _bands(systems: Sequence[Shown]) -> str:
    if any(len(system.seeds) > 1 for system in systems):
        return "Lines are means over seeds, bands one standard deviation to each side."
    return ""
