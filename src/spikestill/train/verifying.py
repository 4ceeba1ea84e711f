"""Whether a run is what its result says: its files are held against ``result.json``, and its weights measured again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikestill.data import DataSet
from spikestill.recipes import DistillRecipe, Recipe
from spikestill.report.finished import read_result
from spikestill.runs import Run
from spikestill.train.loaders import load_data
from spikestill.train.measuring import examine_run, recipe_of
from spikestill.trust import consent
from spikestill.types import InputError

__all__ = ["Finding", "of_files", "verify"]

_ROUNDING = 0.002
"""Share of the test images that another processor's rounding may decide otherwise."""

_UNSEEDED = 0.01
"""The same where the input is drawn, for runs that were measured before the draws were seeded."""

_RELATIVE = 0.02
"""For spikes and operations, of what is written."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its name.
        written: what the result says.
        found: what was found.
        agrees: whether the two agree, figures of a new measurement within rounding.
    """

    what: str
    written: str
    found: str
    agrees: bool


def verify(
    folder: str | Path,
    *,
    data: str | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    trust_code: bool = False,
) -> list[Finding]:
    """Hold a finished run against its own files and, where its weights are there, against a new measurement.

    The new measurement reads the test set. It agrees with the old one within 0.2 % of the images (1 % where the input
    is drawn and the run does not say by which seed) and 2 % of the spikes and operations.

    Args:
        folder: the run.
        data: where its data lie now, if elsewhere than at training.
        data_dir: likewise, for data sets with a name.
        device: cpu, cuda or auto.
        trust_code: import and call a ``python:`` function that the run names.

    Raises:
        InputError: when the run is not finished, a file is missing or damaged, or the data cannot be read.
    """
    run = Run(Path(folder))
    if not run.finished:
        raise InputError(f"{folder} is no finished run (it has no result.json)")
    result = read_result(run)
    recipe = recipe_of(run, data, data_dir)
    found = [*of_files(run, recipe, result)]
    if run.weights_file is not None:
        images = load_data(recipe)
        found += _of_data(images, result)
        with consent(trust_code=trust_code):
            found += _of_figures(recipe, result, examine_run(run, recipe, images, device).figures)
    return found


def of_files(run: Run, recipe: Recipe, result: Mapping[str, Any]) -> Iterator[Finding]:
    """What the folder's other files say of ``result.json``; neither data nor weights are needed."""
    for name in ("method", "network", "epochs", "seed"):
        yield _same(name, result.get(name), getattr(recipe, name))
    if result.get("epochs"):
        accuracy, epoch = _best(run)
        yield _same("best epoch", result.get("best_epoch"), epoch)
        yield _same("validation accuracy", result.get("validation_accuracy"), accuracy)
    if "weights_fingerprint" in result:
        yield _same("weights (SHA-256)", result["weights_fingerprint"], run.fingerprint)
    if run.weights_file is not None:
        written = sum(tensor.numel() for tensor in run.read_weights().values())
        # Beside the parameters a file holds the statistics of BatchNorm.
        parameters = result.get("parameters", 0)
        yield Finding("parameters", str(parameters), f"at most {written}", 0 < parameters <= written)


def _best(run: Run) -> tuple[float, int]:
    """The best accuracy on the validation images in the table of the epochs, and the last epoch that had it."""
    rows = run.read_table("metrics.csv")
    try:
        return max((float(row["validation_accuracy"]), int(row["epoch"])) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run.folder / 'metrics.csv'} is damaged: {error}") from error


def _of_data(images: DataSet, result: Mapping[str, Any]) -> Iterator[Finding]:
    yield _same("data (SHA-256)", result.get("data_fingerprint"), images.fingerprint)
    yield _same("test images", result.get("images", {}).get("test"), len(images.test))


def _of_figures(recipe: Recipe, result: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Finding]:
    is_drawn = isinstance(recipe, DistillRecipe) and recipe.encoder.name == "poisson"
    near = _UNSEEDED if is_drawn and "test_seed" not in result else _ROUNDING
    yield _near("test accuracy", result.get("test_accuracy"), now["accuracy"], near)
    by_timestep = result.get("test_accuracy_by_timestep", {})
    for step, accuracy in now.get("accuracy_by_timestep", {}).items():
        yield _near(f"test accuracy at step {step}", by_timestep.get(step), accuracy, near)
    for name in ("spikes_per_neuron", "synaptic_operations", "multiply_accumulates", "ann_multiply_accumulates"):
        written = result.get(f"test_{name}")
        if written is not None:
            yield _near(name.replace("_", " "), written, now.get(name), _RELATIVE * abs(written))


def _same(what: str, written: Any, found: Any) -> Finding:
    return Finding(what, str(written), str(found), written == found)


def _near(what: str, written: float | None, found: float | None, margin: float) -> Finding:
    both = written is not None and found is not None
    return Finding(what, str(written), str(found), both and abs(written - found) <= margin)  # type: ignore[operator]
