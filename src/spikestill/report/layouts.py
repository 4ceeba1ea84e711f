"""Layouts of the table over several runs: today's plain one, and the tables and figures' data of the LaSNN paper.

Each is a function from run folders to a :class:`Table`. Where a run stands is decided from its recipe alone
(``systems.py``); every figure is the mean ± standard deviation over seeds, and what is missing is an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spikestill.report.comparison import compare, header, steps_of
from spikestill.report.curves import attention, encodings, layer_wise, layers
from spikestill.report.grids import depth, table_1, table_2, table_3, table_4
from spikestill.report.systems import Measured, measured
from spikestill.report.table import Table
from spikestill.types import InputError, unknown_name

__all__ = ["LAYOUTS", "laid_out"]

LAYOUTS = {
    "plain": "every experiment, its accuracy at every time step, spikes, training time",
    "table-1": "conversion at several time steps against LaSNN (Table I)",
    "table-2": "by student: ANN, hybrid training, label distillation, LaSNN (Table II)",
    "table-3": "by student: spike distillation, LaSNN (Table III)",
    "table-4": "by student: ANN, without LaSNN, LaSNN under each teacher (Table IV)",
    "depth": "calibration and LaSNN over the depth of the student (Fig. 3)",
    "layer-wise": "validation accuracy by epoch, with and without layer-wise distillation (Fig. 4)",
    "attention": "activation and gradient attention: accuracy, training time, memory (Fig. 5)",
    "encodings": "direct and Poisson input: accuracy by time step (Fig. 6)",
    "layers": "firing rate and spikes of every layer (Fig. 7)",
}
"""By name, what each shows, and where the paper has it."""

_OF_THE_PAPER: dict[str, Callable[[Sequence[Measured]], Table]] = {
    "table-1": table_1,
    "table-2": table_2,
    "table-3": table_3,
    "table-4": table_4,
    "depth": depth,
    "layer-wise": layer_wise,
    "attention": attention,
    "encodings": encodings,
    "layers": layers,
}


def laid_out(layout: str, folders: Sequence[str]) -> Table:
    """The table of this layout over the runs in these folders.

    Args:
        layout: of :data:`LAYOUTS`.
        folders: of finished runs.

    Raises:
        InputError: for an unknown layout, an unfinished run, two experiments that belong to one cell, and for runs none
            of which the layout has a place for.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if layout == "plain":
        rows = compare(folders)
        title = "test accuracy in percent, mean ± standard deviation over the seeds"
        return Table(title, tuple(header(rows)), tuple(tuple(row.cells(steps_of(rows))) for row in rows))
    table = _OF_THE_PAPER[layout](measured(folders))
    if not table.rows:
        raise InputError(f"none of these runs has a place in the layout {layout}: {LAYOUTS[layout]}")
    return table
