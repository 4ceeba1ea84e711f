"""The course of the training, epoch by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from spikestill.report.blocks import Block, Section
from spikestill.report.charts import Line, axis, line_chart
from spikestill.report.colours import SYSTEMS
from spikestill.report.shown import Shown
from spikestill.types import InputError

__all__ = ["training"]

_CURVES = (
    ("validation_accuracy", "validation accuracy, %", "Validation accuracy"),
    ("train_accuracy", "training accuracy, %", "Training accuracy"),
    ("validation_loss", "validation loss", "Validation loss"),
    ("train_loss", "training loss", "Training loss"),
)
_ENTROPY = "train_cross-entropy"
_NO_TERMS = ("train_loss", "train_accuracy", "train_timesteps")


def training(systems: Sequence[Shown]) -> Section:
    """Curves of accuracy and loss: training beside validation for one system, a chart a curve for several."""
    courses = {system: course for system in systems if (course := _course(system))}
    title = "Training"
    if not courses:
        return Section(
            "training", title, "", [], "There is no course of a training: nothing was trained, or it is lost."
        )
    blocks: list[Block] = []
    if len(courses) == 1:
        ((system, course),) = courses.items()
        lead = _chosen(system)
        blocks = _of_one(system, course)
    else:
        lead = "The weights that did best on validation images were kept; the test images were read once, at the end."
        for name, label, heading in _CURVES:
            lines = [_line(one.name, course, name, one.colour, one.dash) for one, course in courses.items()]
            blocks += _chart(f"training-{name.replace('_', '-')}", heading, label, lines)
    without = [system.name for system in systems if system not in courses]
    return Section("training", title, lead, blocks, f"Without a course: {', '.join(without)}." if without else "")


def _course(system: Shown) -> Sequence[Sequence[Mapping[str, float]]]:
    """The rows of every run's epochs; nothing where one of them has none."""
    try:
        runs = [run.epochs() for run in system.measured.runs]
    except InputError:
        return ()
    return runs if all(runs) else ()


def _chosen(system: Shown) -> str:
    best = system.first.result.get("best_epoch")
    kept = f"The weights of epoch {best} were kept, by the accuracy on validation images" if best else "All was kept"
    return f"{kept}; the test images were read once, at the end."


def _of_one(system: Shown, runs: Sequence[Sequence[Mapping[str, float]]]) -> list[Block]:
    """Training beside validation, where both are the same quantity: a student's loss has other terms than entropy."""

    def lines(trained: str, validated: str) -> list[Line]:
        return [_line("training", runs, trained, "ann", 1), _line("validation", runs, validated, system.colour, 0)]

    accuracies = lines("train_accuracy", "validation_accuracy")
    blocks = _chart("training-accuracy", "Accuracy", "accuracy, %", accuracies)
    columns = runs[0][0].keys()
    terms = [name for name in columns if name.startswith("train_") and name not in _NO_TERMS]
    entropy = _ENTROPY if terms else "train_loss"
    blocks += _chart("training-entropy", "Cross-entropy", "cross-entropy", lines(entropy, "validation_loss"))
    if terms and terms != [_ENTROPY]:
        summed = _line("weighted sum", runs, "train_loss", "ann", 1)
        single = [
            _line(name.removeprefix("train_"), runs, name, f"s{place % SYSTEMS}", 0) for place, name in enumerate(terms)
        ]
        blocks += _chart("training-terms", "Terms of the training loss", "loss", [summed, *single])
    return blocks


def _line(name: str, runs: Sequence[Sequence[Mapping[str, float]]], figure: str, colour: str, dash: int) -> Line:
    points: list[tuple[float, float]] = []
    spread = []
    for rows in zip(*runs, strict=False):
        values = [row[figure] for row in rows if figure in row]
        if values:
            points.append((rows[0].get("epoch", len(points) + 1.0), statistics.mean(values)))
            spread.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    return Line(name, points, colour, spread if any(spread) else (), dash, None if len(points) > 1 else 0)


def _chart(slug: str, heading: str, label: str, lines: Sequence[Line]) -> list[Block]:
    drawn = [line for line in lines if line.points]
    if not drawn:
        return []
    percent = label.endswith("%")
    values = [value for line in drawn for _, value in line.points]
    epochs = [at for line in drawn for at, _ in line.points]
    said = f"{heading} after each of {len(drawn[0].points)} epochs."
    y = axis(label, values, percent=percent, zero=not percent)
    return [line_chart(slug, heading, said, drawn, axis("epoch", [*epochs, 2.0], whole=True), y)]
