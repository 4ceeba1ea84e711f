"""The runs of an experiment file: those that are finished are kept, the others trained, each after what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from spikestill.recipes import as_mapping
from spikestill.recipes.experiment import Experiment, PlannedRun
from spikestill.runs import HeldError, Run
from spikestill.text import visible
from spikestill.train.api import train
from spikestill.train.processes import was_launched
from spikestill.train.provenance import recipe_changes
from spikestill.trust import code_names, consent, require_consent
from spikestill.types import InputError

__all__ = ["carry_out", "refuse_other_runs", "unfinished"]


def carry_out(experiment: Experiment, *, trust_code: bool = False) -> None:
    """Train what is not finished, and say how far it is.

    An interrupted run goes on where it was. Several processes may work on one experiment: what another trains is left
    to it, and waited for when nothing else is left to do.

    Args:
        experiment: what to train.
        trust_code: import and call ``python:`` functions that the experiment or a run names.

    Raises:
        InputError: before anything runs, for a folder that holds another run or other files; later, with the run's
            name, for whatever its training refuses.
    """
    if was_launched():
        raise InputError("an experiment's runs are shared out otherwise: start `spikestill compare` several times")
    refuse_other_runs(experiment.runs)
    with consent(trust_code=trust_code):
        _carry_out(experiment)


def _carry_out(experiment: Experiment) -> None:
    runs = experiment.in_order()
    for planned in runs:
        for name in () if _is_finished(planned.folder) else code_names(as_mapping(planned.recipe)):
            require_consent(name)
    labels = {
        planned.folder: f"run {number} of {len(runs)}: {planned.folder}" for number, planned in enumerate(runs, 1)
    }
    for planned in runs:
        if _is_finished(planned.folder):
            print(visible(f"{labels[planned.folder]} is finished"), flush=True)
    left = [planned for planned in runs if not _is_finished(planned.folder)]
    while left:
        others = [planned for planned in left if not _made(planned, labels[planned.folder], wait=False)]
        if len(others) == len(left):
            print(visible(f"{labels[left[0].folder]} is being trained by another process"), flush=True)
            _made(left[0], labels[left[0].folder], wait=True)
        left = others


def _made(planned: PlannedRun, label: str, *, wait: bool) -> bool:
    """Train a run if it is not finished; whether it is now. One that needs another that is not finished has to wait."""
    if not all(map(_is_finished, planned.needs)):
        return False
    run = Run(Path(planned.folder))
    with run.held(wait=wait) as free:
        if not free:
            return False
        begun = (run.folder / "recipe.yaml").exists()
    if run.finished:
        return True
    print(visible(f"{label}{' goes on' if begun else ''}"), flush=True)
    try:
        train(planned.recipe, resume=True)
    except HeldError:  # another process was faster
        return False
    except InputError as error:
        raise InputError(f"{planned.name}, seed {planned.recipe.seed}: {error}") from error
    return True


def _is_finished(folder: str) -> bool:
    return Run(Path(folder)).finished


def unfinished(experiment: Experiment) -> list[PlannedRun]:
    """The runs of the experiment's table that are not finished.

    Raises:
        InputError: for a finished run that the file does not describe.
    """
    finished = {planned.folder for planned in experiment.runs if _is_finished(planned.folder)}
    refuse_other_runs([planned for planned in experiment.runs if planned.folder in finished])
    return [planned for planned in experiment.shown if planned.folder not in finished]


def refuse_other_runs(runs: Iterable[PlannedRun]) -> None:
    """Compare what lies in the folders with what the file says.

    Where its data and the networks that it learned from lie does not count (see :func:`recipe_changes`).

    Raises:
        InputError: naming the runs that were made otherwise, and the fields in which they differ.
    """
    found: dict[str, list[str]] = {}
    for planned in runs:
        run = Run.refuse_used(planned.folder, resume=True)
        if not (run.folder / "recipe.yaml").exists():
            continue
        if other := recipe_changes(planned.recipe, run):
            found.setdefault(", ".join(other), []).append(planned.folder)
    if found:
        complaints = [f"{_few(folders)} made with other values of {fields}" for fields, folders in found.items()]
        raise InputError("; ".join(complaints) + ": change the file back, remove the runs, or choose another --out")


def _few(folders: Sequence[str]) -> str:
    return f"{folders[0]} was" if len(folders) == 1 else f"{folders[0]} and {len(folders) - 1} more were"
