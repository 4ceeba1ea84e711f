"""The table of ``auto``: a row a network and number of time steps; its Pareto front; what is said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spikestill.values import record_of

__all__ = ["Row", "best_at", "pareto_front", "rows_from", "shortest_within"]


@dataclass(frozen=True)
class Row:
    """A network read out after some time steps, on validation images.

    Attributes:
        method: what made it.
        timesteps: T.
        accuracy: in [0, 1].
        gap: how far below the ANN's on the same images, in percentage points.
        spikes_per_neuron: in T steps, the mean over neurons and images.
        energy_nanojoules: of one image, an estimate.
        seconds: that it took to make it.
        images: it was measured on.
        trained: whether it was trained, and not only converted.
    """

    method: str
    timesteps: int
    accuracy: float
    gap: float
    spikes_per_neuron: float
    energy_nanojoules: float
    seconds: float
    images: int
    trained: bool = False

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def rows_from(stored: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The inverse of :meth:`Row.as_json`."""
    return [record_of(Row, dict(row)) for row in stored]


def best_at(rows: Sequence[Row], timesteps: int) -> Row | None:
    """The most accurate row at that T, of equal ones that with less energy; None where there is none."""
    at = [row for row in rows if row.timesteps == timesteps]
    return max(at, key=lambda row: (row.accuracy, -row.energy_nanojoules), default=None)


def shortest_within(rows: Sequence[Row], tolerance: float) -> Row | None:
    """Of the rows within the tolerance of the ANN, in points, that with the fewest steps and then the least energy."""
    good = [row for row in rows if row.gap <= tolerance]
    return min(good, key=lambda row: (row.timesteps, row.energy_nanojoules), default=None)


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other one beats in accuracy and energy together, by rising energy.

    A row is beaten by one that is at least as good in both and better in one; of equal ones the first is kept.
    """
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.energy_nanojoules, -row.accuracy, row.timesteps)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return front
