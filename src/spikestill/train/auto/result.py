"""What ``auto`` gives back: the chosen student, the table, the front, and one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikestill.runs import Run
from spikestill.train.auto.table import Row, pareto_front, shortest_within

if TYPE_CHECKING:
    from spikestill.graph import SpikingNetwork

__all__ = ["HEADER", "AutoResult", "recommendation"]

HEADER = ("method", "T", "accuracy", "gap", "spikes per neuron", "energy, nJ", "of the ANN's", "seconds", "front")
"""The columns of :meth:`AutoResult.cells`."""


@dataclass(frozen=True)
class AutoResult:
    """The outcome of ``auto``.

    Attributes:
        folder: where ``auto.json``, ``table.csv``, the page and the runs lie.
        run: of the chosen student.
        method: of the chosen student, as the table names it.
        timesteps: T that was asked for.
        table: every network at every number of time steps, on validation images.
        ann_energy_nanojoules: the ANN's for one image, an estimate.
        test: accuracy on the test images, which were read once: of the ``student`` and of the ``ann``.
        reasons: every choice and its reason, a sentence each.
        recommendation: one sentence.
        page: the HTML report.
    """

    folder: Path
    run: Run
    method: str
    timesteps: int
    table: tuple[Row, ...]
    ann_energy_nanojoules: float
    test: dict[str, Any]
    reasons: tuple[str, ...]
    recommendation: str
    page: Path
    load: Callable[[], SpikingNetwork] = field(repr=False, compare=False)

    @cached_property
    def student(self) -> SpikingNetwork:
        """The chosen spiking network, in evaluation mode."""
        return self.load()

    @property
    def front(self) -> list[Row]:
        """The rows that no other one beats in accuracy and energy together."""
        return pareto_front(self.table)

    @property
    def shown(self) -> list[Row]:
        """The rows for a terminal: those at T, those of the chosen student, and those on the front."""
        front = self.front
        return [
            row for row in self.table if row.timesteps == self.timesteps or row.method == self.method or row in front
        ]

    def cells(self, rows: Sequence[Row]) -> list[list[str]]:
        """The rows as texts, under :data:`HEADER`."""
        front = self.front
        return [
            [
                row.method,
                str(row.timesteps),
                f"{row.accuracy:.2%}",
                f"{row.gap:.2f}",
                f"{row.spikes_per_neuron:.3f}",
                f"{row.energy_nanojoules:,.0f}",
                f"{row.energy_nanojoules / self.ann_energy_nanojoules:.0%}" if self.ann_energy_nanojoules else "",
                f"{row.seconds:.0f}",
                "*" if row in front else "",
            ]
            for row in rows
        ]

    def __str__(self) -> str:
        """The shown rows and the recommendation."""
        lines = [list(HEADER), *self.cells(self.shown)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([*(text.rstrip() for text in texts), self.recommendation])


def recommendation(
    chosen: Row, rows: Sequence[Row], *, test: dict[str, Any], tolerance: float, energy_share: float, run: str
) -> str:
    """One sentence: what to take, what it reaches on the test images, and what else would do.

    Args:
        chosen: the row of the chosen student at the wanted T.
        rows: the whole table.
        test: accuracy on the test images of the ``student`` and of the ``ann``.
        tolerance: in percentage points.
        energy_share: of the student, relative to the ANN's.
        run: the folder of the chosen student.
    """
    gap = 100 * (test["ann"] - test["student"])
    below = f"{gap:.1f} points below the ANN's {test['ann']:.1%}" if gap > 0 else f"the ANN reaches {test['ann']:.1%}"
    parts = [
        f"take {run} ({chosen.method}): {test['student']:.1%} of the test images at T = {chosen.timesteps}, {below}, "
        f"with {energy_share:.0%} of the ANN's energy"
    ]
    own = [row for row in rows if row.method == chosen.method and row.timesteps < chosen.timesteps]
    shorter = shortest_within(own, tolerance)
    other = shortest_within([row for row in rows if not row.trained and row.method != chosen.method], tolerance)
    if shorter is not None:
        parts.append(f"on validation images T = {shorter.timesteps} is within {tolerance:g} points already")
    if chosen.gap > tolerance:
        parts.append(
            f"the tolerance of {tolerance:g} points is not reached: more --budget, --epochs or --timesteps come nearer"
        )
        if other is not None and shorter is None and other.timesteps > chosen.timesteps:
            parts.append(f"without training, {other.method} is within it at T = {other.timesteps}")
    return "; ".join(parts) + "."
