"""What is taken for what, and whether confidence can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.report.blocks import Block, Figures, Section
from spikestill.report.charts import Line, axis, line_chart, matrix_chart
from spikestill.report.evidence import Evidence
from spikestill.report.shown import Shown, plural, share

__all__ = ["answers"]

_MOST_CONFUSED = 8
_MOST_DRAWN = 40


def answers(systems: Sequence[Shown]) -> Section:
    """Confusion matrix and calibration of every system that recorded them."""
    blocks: list[Block] = []
    known = [(system, recorded) for system in systems if (recorded := system.recorded) is not None]
    if known:
        blocks.append(_calibration(known))
    for system, recorded in known:
        prefix = f"{system.name}: " if len(systems) > 1 else ""
        if recorded.confusion and len(recorded.classes) <= _MOST_DRAWN:
            blocks.append(_matrix(system, recorded, prefix))
        elif recorded.confusion:
            blocks.append(_pairs(recorded, prefix))
    without = [system.name for system in systems if system.recorded is None]
    missing = f"Not shown of {', '.join(without)}: the run has no analysis.json." if without else ""
    lead = "The surer a network is, the more often it should be right, neither more nor less often than it says."
    return Section("answers", "Answers", lead if known else "", blocks, missing)


def _calibration(known: Sequence[tuple[Shown, Evidence]]) -> Block:
    lines = [Line("perfectly calibrated", [(0, 0), (1, 1)], "ann", dash=2, mark=None, guides=True)]
    for system, recorded in known:
        points = [(one.confidence, one.accuracy) for one in recorded.bins]
        remarks = [f" ({plural(one.images, 'image')})" for one in recorded.bins]
        name = f"{system.name}, error {share(recorded.calibration_error)}"
        lines.append(Line(name, points, system.colour, (), system.dash, system.mark, remarks))
    first, recorded = known[0]
    return line_chart(
        "calibration",
        "Calibration",
        f"Accuracy against confidence, in 15 intervals; expected calibration error of {first.name}: "
        f"{share(recorded.calibration_error)}.",
        lines,
        axis("confidence, %", [0, 1], percent=True),
        axis("accuracy, %", [0, 1], percent=True),
        note="The expected calibration error is the mean distance of the points from the diagonal, weighted by images.",
    )


def _matrix(system: Shown, recorded: Evidence, prefix: str) -> Block:
    return matrix_chart(
        f"{system.slug}-confusion",
        f"{prefix}Confusion matrix",
        f"What images of each of {len(recorded.classes)} classes were taken for; the diagonal is right.",
        recorded.classes,
        recorded.confusion,
        system.colour,
    )


def _pairs(recorded: Evidence, prefix: str) -> Block:
    """Of many classes, what was confused the most."""
    wrong = [
        (count, row, column)
        for row, line in enumerate(recorded.confusion)
        for column, count in enumerate(line)
        if row != column and count
    ]
    most = sorted(wrong, key=lambda entry: (-entry[0], entry[1:]))[:_MOST_CONFUSED]
    rows = [
        [recorded.classes[row], recorded.classes[column], f"{count} of {sum(recorded.confusion[row])}"]
        for count, row, column in most
    ]
    return Figures(f"{prefix}Most often confused", ["class", "taken for", "images"], rows)
