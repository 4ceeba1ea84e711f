"""Experiment files: the runs of one question, by name and over seeds, checked whole before anything runs.

.. code-block:: yaml

    seeds: [0, 1, 2]
    layout: table-2
    common: {data: cifar10, limit_train: 20000, width: 0.25}     # fields of every run
    anns: {epochs: 20}                                           # of those that `spikestill train` makes
    students: {timesteps: 50}                                    # of those that `spikestill distill` makes
    runs:
      teacher: {recipe: ann, model: vgg16, seeds: [0]}
      vgg5: {recipe: ann, model: vgg5, pixel_scale: signed}
      vgg5/hybrid: {recipe: hybrid, student: vgg5, source: {run: vgg5}}
      vgg5/lasnn: {recipe: lasnn, student: vgg5, source: {run: vgg5}, teacher: {run: teacher}}

A run's fields are those of its recipe (a preset's name or a YAML file's path), then ``common``, then those of its
kind, then its own; mappings are laid over one another entry by entry (see ``overlay.py``). ``teacher``, ``source`` and
``start`` may name another run of the file, as ``{run: NAME}``: the one of the same seed, or the only one. Run NAME of
seed S lies at ``OUT/NAME-sS``, unless its own ``out`` says otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spikestill.recipes.distillation import DistillRecipe
from spikestill.recipes.experiment_file import Entry, read_entries
from spikestill.recipes.loading import as_mapping, differences
from spikestill.recipes.schema import Recipe
from spikestill.types import InputError

__all__ = ["Experiment", "PlannedRun", "load_experiment"]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training of an experiment.

    Attributes:
        name: of the run in the file; of a stage, that of the run it belongs to, and which stage.
        recipe: with seed, folder and the folders of other runs filled in.
        needs: the folders of the runs that must be finished first.
        shown: whether it stands in the experiment's table; stages do not.
    """

    name: str
    recipe: Recipe
    needs: tuple[str, ...]
    shown: bool = True

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.recipe.folder


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What an experiment file asks for.

    Attributes:
        layout: of its table.
        runs: in the order of the file, each with its seeds, stages before those who need them.
    """

    layout: str
    runs: tuple[PlannedRun, ...]

    @property
    def shown(self) -> list[PlannedRun]:
        """The runs of the table, in its order."""
        return [run for run in self.runs if run.shown]

    def only(self, seeds: Iterable[int]) -> Experiment:
        """The runs of these seeds, and those of other seeds that they need.

        Raises:
            InputError: for a seed that no run has.
        """
        chosen = set(seeds)
        known = {run.recipe.seed for run in self.shown}
        if not chosen <= known:
            missing, there = (", ".join(map(str, sorted(group))) for group in (chosen - known, known))
            raise InputError(f"no run of the experiment has seed {missing} (it has {there})")
        kept = {run.folder for run in self.shown if run.recipe.seed in chosen}
        while more := {folder for run in self.runs if run.folder in kept for folder in run.needs} - kept:
            kept |= more
        return dataclasses.replace(self, runs=tuple(run for run in self.runs if run.folder in kept))

    def in_order(self) -> list[PlannedRun]:
        """All runs as they are to be made: seed by seed, what others need before them."""
        ordered: dict[str, PlannedRun] = {}
        by_folder = {run.folder: run for run in self.runs}

        def place(run: PlannedRun) -> None:
            for folder in run.needs:
                place(by_folder[folder])
            ordered.setdefault(run.folder, run)

        for run in sorted(self.shown, key=lambda run: run.recipe.seed):
            place(run)
        return list(ordered.values())


def load_experiment(
    path: str | Path, *, out: str | None = None, data: str | None = None, data_dir: str | None = None
) -> Experiment:
    """Read an experiment file and resolve all its runs.

    Args:
        path: of the file.
        out: the folder of the run folders; by default ``runs/`` and the file's name.
        data: a data set in place of the one that ``common`` names; runs and kinds that name their own keep it.
        data_dir: where named data sets lie, likewise.

    Raises:
        InputError: one line that names every problem of the file.
    """
    place = Path(path)
    fields = {name: value for name, value in (("data", data), ("data_dir", data_dir)) if value is not None}
    contents = read_entries(place, fields)
    problems = list(contents.problems)
    by_name = {entry.name: entry for entry in contents.entries}
    problems += [problem for entry in contents.entries for problem in _wrong_references(entry, by_name)]
    runs: list[PlannedRun] = []
    if not problems:
        root = Path(out) if out is not None else Path("runs") / place.stem
        for entry in contents.entries:
            for seed in entry.seeds:
                runs += _planned(entry, seed, by_name, root)
        problems += _shared_folders(runs)
    if problems:
        raise InputError(f"the experiment {path}: " + "; ".join(problems))
    unique: dict[str, PlannedRun] = {}
    for run in runs:
        unique[run.folder] = run if run.shown else unique.get(run.folder, run)
    return Experiment(layout=contents.layout, runs=tuple(unique.values()))


def _planned(entry: Entry, seed: int, by_name: Mapping[str, Entry], root: Path) -> Iterator[PlannedRun]:
    """The run of one seed, after its stages."""
    folders = {}
    for field, name in entry.references.items():
        other = by_name[name]
        folders[field] = str(_folder(other, seed if seed in other.seeds else other.seeds[0], root))
    recipe = dataclasses.replace(entry.recipe, seed=seed, out=str(_folder(entry, seed, root)), **folders)  # type: ignore[arg-type]
    needs = list(folders.values())
    if isinstance(recipe, DistillRecipe):
        stage: Literal["teacher", "source"]
        for stage in ("teacher", "source"):
            training = recipe.stage(stage)
            if training is None:
                continue
            training = dataclasses.replace(training, out=str(Path(training.folder)))
            yield PlannedRun(name=f"{entry.name} ({stage})", recipe=training, needs=(), shown=False)
            recipe = dataclasses.replace(recipe, **{stage: training.folder})  # type: ignore[arg-type]
            needs.append(training.folder)
    yield PlannedRun(name=entry.name, recipe=recipe, needs=tuple(needs))


def _folder(entry: Entry, seed: int, root: Path) -> Path:
    return Path(entry.recipe.out) if entry.recipe.out is not None else root / f"{entry.name}-s{seed}"


def _wrong_references(entry: Entry, by_name: Mapping[str, Entry]) -> Iterator[str]:
    for field, name in entry.references.items():
        other = by_name.get(name)
        if other is None:
            continue  # read_entries has said so
        missing = sorted(set(entry.seeds) - set(other.seeds))
        if missing and len(other.seeds) > 1:
            yield f"{entry.name}: its {field} '{name}' has no seed {', '.join(map(str, missing))}"
        may_spike = field == "teacher" and isinstance(entry.recipe, DistillRecipe) and entry.recipe.learns_from_spikes
        if isinstance(other.recipe, DistillRecipe) and not may_spike:
            yield f"{entry.name}: its {field} '{name}' is a spiking network: name the run of an ANN"
    if entry.name in _reachable(entry, by_name):
        yield f"{entry.name}: needs itself, by way of {', '.join(sorted(_reachable(entry, by_name)))}"


def _reachable(entry: Entry, by_name: Mapping[str, Entry]) -> set[str]:
    """The names of all runs that this one needs, directly or not."""
    found: set[str] = set()
    waiting = list(entry.references.values())
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found.add(name)
            waiting += by_name[name].references.values()
    return found


def _shared_folders(runs: Iterable[PlannedRun]) -> Iterator[str]:
    """Complaints about runs that are different and would lie in one folder."""
    first: dict[str, PlannedRun] = {}
    for run in runs:
        other = first.setdefault(run.folder, run)
        if type(other.recipe) is not type(run.recipe):
            yield f"{other.name} and {run.name} share the folder {run.folder}"
        elif differing := differences(run.recipe, as_mapping(other.recipe)):
            way_out = "give one another out" if run.shown else "make it a run, and name that as {run: NAME}"
            both = f"{other.name} and {run.name} share the folder {run.folder}"
            yield f"{both} and differ in {', '.join(differing)}: {way_out}"
