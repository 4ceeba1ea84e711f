"""The section of the report that shows what ``auto`` tried, beside those of the runs."""

from __future__ import annotations

from spikestill.report.blocks import Block, Facts, Figures, Section
from spikestill.report.charts import Line, axis, line_chart
from spikestill.train.auto.result import HEADER, AutoResult
from spikestill.train.auto.table import Row

__all__ = ["section"]


def section(result: AutoResult, ann_accuracy: float) -> Section:
    """What was tried, the front, and why the student was chosen.

    Args:
        result: of the command; its page need not be there.
        ann_accuracy: on the validation images.
    """
    table = Figures(
        "What was tried",
        HEADER,
        result.cells(result.shown),
        note="On validation images. Gap: points below the ANN. A star: no other row is as accurate with less energy. "
        f"Shown are T = {result.timesteps}, the chosen student and the front; table.csv has all rows.",
    )
    reasons = Facts("Every choice and its reason", [(str(index), text) for index, text in enumerate(result.reasons, 1)])
    blocks: list[Block] = [_front(result, ann_accuracy), table, reasons]
    return Section("auto", "How it was found", result.recommendation, blocks)


def _front(result: AutoResult, ann_accuracy: float) -> Block:
    own = sorted((row for row in result.table if row.method == result.method), key=lambda row: row.energy_nanojoules)
    front = result.front
    lines = [_line("Pareto front", front, "s0", 0), _line(f"chosen: {result.method}", own, "s1", 1)]
    energies = [row.energy_nanojoules for row in (*front, *own)]
    ends = [(min(energies), ann_accuracy), (max(energies), ann_accuracy)]
    lines.append(Line("the ANN", ends, "ann", dash=1, mark=None, guides=True))
    return line_chart(
        "accuracy-and-energy",
        "Accuracy and energy",
        f"Accuracy on validation images against the energy of an image; the front has {len(front)} points.",
        lines,
        axis("energy of an image, nJ (an estimate)", energies, zero=True),
        axis("validation accuracy, %", [ann_accuracy, *(row.accuracy for row in (*front, *own))], percent=True),
    )


def _line(name: str, rows: list[Row], colour: str, mark: int) -> Line:
    return Line(
        name,
        [(row.energy_nanojoules, row.accuracy) for row in rows],
        colour,
        mark=mark,
        dash=mark,
        remarks=[f" ({row.method}, T = {row.timesteps})" for row in rows],
    )
