"""What a finished run is in the words of the papers: its system, architecture and setting, decided from its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spikestill.report.comparison import round_steps, spread
from spikestill.report.finished import Finished, repetitions, told_apart

__all__ = ["LASNN", "Measured", "measured", "system"]

LASNN = ("LaSNN", "LaSNN (normalised maps)")
"""LaSNN by activation attention, as printed and on maps of length 1."""

_UNTRAINED = {"calibrate": "calibration", "quantise": "QCFS"}
"""Conversions with names of their own; any other is a conversion."""

_GUIDES = (
    ("spikes", "spike distillation"),
    ("blockwise", "block-wise"),
    ("gradient-attention", "LaSNN (gradient attention)"),
    ("activation-attention", LASNN[0]),
    ("selective", "selective distillation"),
    ("logits", "label distillation"),
    ("branches", "self-distillation"),
    ("own-ensemble", "own ensemble"),
)
"""By objective, the system it makes; the first that a recipe has says which."""


def system(recipe: Mapping[str, Any]) -> str:
    """The system that a recipe describes: ANN, conversion, calibration, QCFS, hybrid, labels, LaSNN, ..."""
    if recipe.get("timesteps") is None:
        return "ANN"
    start = recipe.get("initialise", "random")
    converted = start not in ("random", "teacher-weights")
    if converted and not recipe.get("epochs"):
        return _UNTRAINED.get(start, "conversion")
    objectives = {term["name"]: term.get("options", {}) for term in recipe.get("objectives", ())}
    name = next((name for objective, name in _GUIDES if objective in objectives), "hybrid" if converted else "labels")
    return LASNN[1] if name == LASNN[0] and objectives["activation-attention"].get("normalise") else name


@dataclass(frozen=True)
class Measured:
    """The runs of one experiment, over its seeds.

    Attributes:
        runs: sorted by seed.
        system: as :func:`system` names it.
        label: the system, and the folder where others of its architecture and setting are the same system.
    """

    runs: tuple[Finished, ...]
    system: str
    label: str

    @property
    def recipe(self) -> Mapping[str, Any]:
        """That of the first seed."""
        return self.runs[0].recipe

    @property
    def data(self) -> str:
        """The data set, without the place where it lies."""
        name: str = self.recipe.get("data", "")
        kind, _, shown = name.partition(":")
        if kind == "images-events":  # simulated events of these images are other data than the images
            return f"{kind}:{_without_place(shown)}"
        return _without_place(name)

    @property
    def architecture(self) -> str:
        """The network, with its width where it is not the published one."""
        width = self.recipe.get("width", 1.0)
        return str(self.runs[0].result["network"]) + (f" × {width:g}" if width != 1 else "")

    @property
    def timesteps(self) -> int:
        """T; 0 for an ANN."""
        return int(self.recipe.get("timesteps") or 0)

    @property
    def encoder(self) -> str:
        """How images become sequences."""
        return str(self.recipe.get("encoder", {}).get("name", "direct"))

    @property
    def setting(self) -> str:
        """What the spiking systems of one row have in common: time steps, input and gradient."""
        converted = f"T = {self.timesteps}, {self.encoder}"
        return f"{converted}, {self.recipe['gradient']}" if self.trained else converted

    @property
    def trained(self) -> bool:
        """Whether a spiking network was trained, and not only converted."""
        return self.timesteps > 0 and self.system not in ("conversion", *_UNTRAINED.values())

    @property
    def depth(self) -> int | None:
        """Weight layers on the longest way: layers of neurons, and the read-out; None where that was not measured."""
        rates = self.runs[0].result.get("test_rates")
        return len(rates) + 1 if rates else None

    @property
    def accuracy(self) -> str:
        """Test accuracy in percent, at T."""
        return self.figure(lambda result: result["test_accuracy"], 100, 2)

    def accuracy_at(self, step: int) -> str:
        """Test accuracy in percent after ``step`` time steps; empty where it was not read out."""
        return self.figure(lambda result: result["test_accuracy_by_timestep"][str(step)], 100, 2)

    def figure(self, read: Callable[[Mapping[str, Any]], float], scale: float, digits: int) -> str:
        """Mean ± standard deviation of a figure of ``result.json``; empty where a run does not have it."""
        try:
            return spread([read(run.result) for run in self.runs], scale, digits)
        except KeyError:
            return ""

    def mean_accuracy_at(self, step: int) -> float:
        """Mean test accuracy in [0, 1] after ``step`` time steps."""
        values = [run.result["test_accuracy_by_timestep"][str(step)] for run in self.runs]
        return float(sum(values) / len(values))

    @property
    def steps(self) -> list[int]:
        """The numbers of time steps at which it was read out."""
        return sorted(map(int, self.runs[0].result.get("test_accuracy_by_timestep", ())))

    @property
    def round_steps(self) -> list[int]:
        """Of those, 1, 2, 5, 10, 20, 50, ... and the last."""
        return round_steps(self.steps, self.steps[-1:])

    def others(self, name: Literal["teacher", "source"]) -> Measured | None:
        """The network it learned from or was converted from, over the seeds of that; None where it is not there."""
        found = {run.folder.resolve(): run for mine in self.runs if (run := mine.other(name)) is not None}
        unique = {run.identity + str(run.recipe["seed"]): run for run in found.values()}
        return _of(tuple(unique.values())) if unique else None

    @property
    def identity(self) -> str:
        """What sets the experiment apart from all others."""
        return self.runs[0].identity


def measured(folders: Iterable[str]) -> list[Measured]:
    """The experiments among these run folders.

    Raises:
        InputError: as :func:`repetitions`.
    """
    found = [_of(runs) for runs in repetitions(folders)]
    places = [f"{entry.data} {entry.architecture} {entry.setting}" for entry in found]
    labels = told_apart([entry.system for entry in found], places, [entry.runs for entry in found])
    return [dataclasses.replace(entry, label=label) for entry, label in zip(found, labels, strict=True)]


def _of(runs: Sequence[Finished]) -> Measured:
    name = system(runs[0].recipe)
    return Measured(tuple(runs), name, name)


def _without_place(data: str) -> str:
    return data.rstrip("/").replace("\\", "/").split("/")[-1].split(":")[-1]
