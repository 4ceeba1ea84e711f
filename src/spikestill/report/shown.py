"""The systems of one page: finished runs, those of one experiment together, with their colours and their evidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spikestill.report.colours import SYSTEMS
from spikestill.report.evidence import Evidence
from spikestill.report.finished import Finished
from spikestill.report.intervals import difference_interval, wilson
from spikestill.report.systems import Measured, measured
from spikestill.runs import Run

__all__ = ["Shown", "plural", "share", "shown"]

_MARKS = 4


@dataclass(frozen=True, eq=False)
class Shown:
    """One system of the page: the runs of one experiment, over its seeds.

    Attributes:
        slug: its name in the page.
        name: its name to a reader.
        measured: its runs.
        evidence: of each run; None of those that recorded none.
        colour: the name of its colour in the page.
        place: its number among the systems, from 0.
    """

    slug: str
    name: str
    measured: Measured
    evidence: tuple[Evidence | None, ...]
    colour: str
    place: int

    @property
    def first(self) -> Finished:
        """The run of the first seed, of which single images are shown."""
        return self.measured.runs[0]

    @property
    def recorded(self) -> Evidence | None:
        """What the first of its runs that recorded something recorded."""
        return next((one for one in self.evidence if one is not None), None)

    @property
    def spikes(self) -> bool:
        """Whether it is a spiking network."""
        return bool(self.first.recipe.get("timesteps"))

    @property
    def timesteps(self) -> int:
        """T."""
        return int(self.first.recipe["timesteps"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(int(run.recipe["seed"]) for run in self.measured.runs)

    @property
    def mark(self) -> int:
        """The shape of its points."""
        return self.place % _MARKS

    @property
    def dash(self) -> int:
        """Of its lines: broken where its colour is another system's too."""
        return self.place // SYSTEMS % _MARKS

    def values(self, read: Callable[[Mapping[str, Any]], float]) -> list[float]:
        """A figure of each run's result; of none where one of them does not have it."""
        try:
            return [float(read(run.result)) for run in self.measured.runs]
        except (KeyError, TypeError):
            return []

    def figure(self, name: str) -> float | None:
        """The mean over the runs of a figure of their results."""
        found = self.values(lambda result: result[name])
        return statistics.mean(found) if found else None

    def spread(self, name: str) -> float | None:
        """Its standard deviation, of several runs."""
        found = self.values(lambda result: result[name])
        return statistics.stdev(found) if len(found) > 1 else None

    @property
    def tested(self) -> tuple[float, int] | None:
        """The mean test accuracy over the runs, and of how many images; None where a result lacks one of them.

        Several seeds see the same images, so they do not make more of them.
        """
        counts = self.values(lambda result: result["images"]["test"])
        accuracy = self.figure("test_accuracy")
        if accuracy is None or not counts or not 0 <= accuracy <= 1 or not 1 <= min(counts) < math.inf:
            return None
        return accuracy, int(min(counts))

    @property
    def interval(self) -> str:
        """The 95 % interval of its test accuracy, in percent; empty where that is not known."""
        if self.tested is None:
            return ""
        low, high = wilson(*self.tested)
        return f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}"

    def is_apart(self, accuracy: float) -> bool:
        """Whether another accuracy on the same images differs from its own by more than chance; True if unknown."""
        if self.tested is None or not 0 <= accuracy <= 1:
            return True
        low, high = difference_interval(self.tested, (accuracy, self.tested[1]))
        return not low <= 0 <= high

    @cached_property
    def teacher(self) -> tuple[str, float] | None:
        """The name and test accuracy of whom it learned from, or was converted from; None where that is not known."""
        for recorded in self.evidence:
            if recorded is not None and recorded.teacher is not None:
                return recorded.teacher.name, recorded.teacher.accuracy
        other = self.first.other("teacher") or self.first.other("source")
        if other is None or "test_accuracy" not in other.result:
            return None
        return str(other.folder), float(other.result["test_accuracy"])

    @property
    def origin(self) -> str:
        """What the network that it comes from is called."""
        return "teacher" if self.first.recipe.get("teacher") else "ANN"

    @property
    def energy_share(self) -> float | None:
        """Its energy as a share of that of an ANN with the same layers; None where it was not counted."""
        own, ann = self.figure("test_energy_nanojoules"), self.figure("test_ann_energy_nanojoules")
        return own / ann if own is not None and ann else None


def shown(folders: Iterable[str]) -> tuple[Shown, ...]:
    """The systems among these run folders, in the order in which they are named.

    Raises:
        InputError: for a folder that holds no finished run, two runs of one experiment with one seed, a damaged file.
    """
    systems, spiking = [], 0
    for place, found in enumerate(measured(folders)):
        recorded = tuple(Evidence.read(Run(run.folder)) for run in found.runs)
        colour = "ann"
        if found.recipe.get("timesteps"):
            colour, spiking = f"s{spiking % SYSTEMS}", spiking + 1
        systems.append(Shown(f"system-{place}", found.label, found, recorded, colour, max(spiking - 1, 0)))
    return tuple(systems)


def share(value: float, digits: int = 1) -> str:
    """A share in percent."""
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def plural(count: int, one: str, several: str | None = None) -> str:
    """A count and its noun."""
    return f"{count}\N{NO-BREAK SPACE}{one if count == 1 else several or one + 's'}"
