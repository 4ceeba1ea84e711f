"""Finished runs as their folders tell them, and which of them are repetitions of one experiment."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spikestill.runs import NETWORKS, WITHOUT_MEANING, Run
from spikestill.types import InputError
from spikestill.values import value_of_type

__all__ = ["Finished", "Origin", "origins", "read_result", "repetitions", "told_apart"]

_SEEDED = ("seed", "data_dir", *WITHOUT_MEANING)
"""Fields of a recipe in which repetitions of one experiment may differ; the networks that it names may too."""

_OPERATIONS = (
    *("test_synaptic_operations", "test_multiply_accumulates", "test_ann_multiply_accumulates"),
    *("test_energy_nanojoules", "test_ann_energy_nanojoules"),
)
"""What a result has where it has the operations of every layer."""


@dataclass(frozen=True)
class _Term:
    """An objective of a recipe."""

    name: str
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """A network that a student comes from.

    Attributes:
        role: teacher or source.
        name: as the recipe names it.
        is_spiking: whether it spikes.
        validation_accuracy: the share of the validation images that it puts into their class.
        gap: by how much that is more than the student's.
    """

    role: str
    name: str
    is_spiking: bool
    validation_accuracy: float
    gap: float


@dataclass(frozen=True)
class _Operations:
    """Those of a layer."""

    accumulates: float
    multiply_accumulates: float
    ann_multiply_accumulates: float


_OF_RECIPE: Mapping[str, Any] = {
    **dict.fromkeys(("method", "data", "model", "student", "gradient", "initialise"), str),
    **dict.fromkeys(NETWORKS, str | None),
    **dict.fromkeys(("seed", "epochs"), int),
    "timesteps": int | None,
    "encoder": dict[str, Any],
    "neuron": dict[str, Any],
    "conversion": dict[str, Any],
    "objectives": tuple[_Term, ...],
    "limit_train": int | float | None,
    "width": float,
}
_OF_RESULT: Mapping[str, Any] = {
    **dict.fromkeys(("method", "network", "data"), str),
    **dict.fromkeys(("seed", "epochs", "parameters", "best_epoch"), int),
    **dict.fromkeys(("validation_accuracy", "test_accuracy", "test_spikes_per_neuron"), float),
    **dict.fromkeys(_OPERATIONS, float),
    **dict.fromkeys(("training_seconds", "training_peak_memory_mib", "test_seconds"), float),
    "images": dict[str, int],
    "test_accuracy_by_timestep": dict[str, float],
    "test_rates": dict[str, float],
    "test_operations_by_layer": dict[str, _Operations],
    "test_operations_not_counted": tuple[str, ...],
    "origins": tuple[Origin, ...],
    "remarks": tuple[str, ...],
}
"""Of the fields that are read here, what they must be where they are there."""


def read_result(run: Run) -> dict[str, Any]:
    """The ``result.json`` of a run.

    Raises:
        InputError: when it is missing or damaged, or a field in it is missing or of another type.
    """
    result = run.read_json("result.json")
    of_operations = _OPERATIONS if result.get("test_operations_by_layer") else ()
    _refuse_others(run.folder / "result.json", result, _OF_RESULT, ("method", "network", "seed", *of_operations))
    steps = result.get("test_accuracy_by_timestep", {})
    if strange := [step for step in steps if not re.fullmatch(r"[1-9][0-9]{0,8}", step)]:
        raise InputError(f"{run.folder / 'result.json'} is damaged: {strange[0]!r:.40} is no time step")
    return result


def origins(result: Mapping[str, Any]) -> tuple[Origin, ...]:
    """The networks that a run's student comes from, of a result that was checked; the one it is judged by first."""
    found: tuple[Origin, ...] = value_of_type(tuple[Origin, ...], result.get("origins", []))
    return found


def _refuse_others(path: Path, fields: Mapping[str, Any], types: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Raise InputError for a field that is missing or of another type."""
    missing = [name for name in needed if name not in fields]
    if missing:
        raise InputError(f"{path} is damaged: it has no {', '.join(missing)}")
    for name in types.keys() & fields.keys():
        try:
            value_of_type(types[name], fields[name])
        except TypeError as error:
            raise InputError(f"{path} is damaged: {name}: {error}") from error


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: where it lies.
        recipe: its ``recipe.yaml``.
        result: its ``result.json``.
    """

    folder: Path
    recipe: Mapping[str, Any]
    result: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Finished:
        """The run in this folder.

        Raises:
            InputError: when there is none, or it is not finished.
        """
        run = Run.open(folder)
        if not run.finished:
            raise InputError(f"{folder} is not finished: spikestill --resume continues it")
        recipe, result = run.read_yaml("recipe.yaml"), read_result(run)
        of_student = ("gradient", "initialise") if recipe.get("timesteps") is not None else ()
        _refuse_others(run.folder / "recipe.yaml", recipe, _OF_RECIPE, ("method", "seed", *of_student))
        return cls(run.folder, recipe, result)

    def other(self, name: Literal["teacher", "source", "start"]) -> Finished | None:
        """The run that the recipe names in this field, where it is named or beside this one; None where it is not."""
        named = self.recipe.get(name)
        if not isinstance(named, str):
            return None
        places = (Path(named), self.folder.parent / Path(named).name)
        there = filter(_is_finished, places)
        return next((Finished.open(place) for place in there if place.resolve() != self.folder.resolve()), None)

    def epochs(self) -> list[Mapping[str, float]]:
        """The rows of ``metrics.csv``, one an epoch; none of a network that was not trained.

        Raises:
            InputError: when the file is missing or damaged.
        """
        if not self.recipe.get("epochs"):
            return []
        try:
            rows = Run(self.folder).read_table("metrics.csv")
            return [{name: float(cell) for name, cell in row.items()} for row in rows]
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.folder / 'metrics.csv'} is damaged: {error}") from error

    @property
    def identity(self) -> str:
        """What repetitions of one experiment have in common, of this run and of the networks it learned from."""
        return self._identity(frozenset())

    def _identity(self, learners: frozenset[Path]) -> str:
        """As ``identity``; a network that is said to have learned from one of its ``learners`` is not looked at."""
        learners |= {self.folder.resolve()}
        others = {*_SEEDED, *NETWORKS}
        # A field that holds nothing counts as one that an older version did not know yet.
        same = {name: value for name, value in self.recipe.items() if name not in others and value is not None}
        for name in NETWORKS:
            other = self.other(name)  # type: ignore[arg-type]
            if other is None or other.folder.resolve() in learners:
                # Of a network that is not there any more only is known that there was one.
                same[name] = self.recipe.get(name) is not None
            else:
                same[name] = other._identity(learners)
        return json.dumps(same, sort_keys=True)


def _is_finished(place: Path) -> bool:
    try:
        return Run(place).finished
    except OSError:  # no name of a file
        return False


def repetitions(folders: Iterable[str | Path]) -> list[tuple[Finished, ...]]:
    """The runs in these folders, those of one experiment together, sorted by seed; experiments in the order named.

    Raises:
        InputError: for a folder that holds no finished run, and for two runs of one experiment with one seed.
    """
    grouped: dict[str, list[Finished]] = {}
    for folder in folders:
        run = Finished.open(folder)
        grouped.setdefault(run.identity, []).append(run)
    for runs in grouped.values():
        seeds = [run.recipe["seed"] for run in runs]
        if len(set(seeds)) < len(seeds):
            method = runs[0].recipe["method"]
            raise InputError(f"two runs of method {method} have the same seed and recipe: name only one of them")
    return [tuple(sorted(runs, key=lambda run: int(run.recipe["seed"]))) for runs in grouped.values()]


def told_apart(labels: Sequence[str], places: Sequence[str], experiments: Sequence[Sequence[Finished]]) -> list[str]:
    """The labels, and with those that several experiments share in one place their folder's name without its seed.

    Args:
        labels: of each experiment.
        places: of each, what else stands beside its label.
        experiments: the runs of each.
    """
    count = Counter(zip(labels, places, strict=True))
    return [
        f"{label} ({re.sub(r'-s[0-9]+$', '', runs[0].folder.name)})" if count[label, place] > 1 else label
        for label, place, runs in zip(labels, places, experiments, strict=True)
    ]
