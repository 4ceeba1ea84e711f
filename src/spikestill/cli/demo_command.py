"""``spikestill demo``: the ordinary recipes, with a handful of overrides, on the embedded handwriting."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikestill.cli.signature import call
from spikestill.cli.tables import print_rows

__all__ = ["demo", "run"]

_STUDENTS = ("labels-only", "label-distillation", "blockwise")


def run(words: Sequence[str]) -> None:
    """Parse and show."""
    call(demo, "demo", words)


def demo(out: str = "runs/demo", timesteps: int = 4, epochs: int = 30, seed: int = 0, overwrite: bool = True) -> None:
    """Train a teacher and three spiking students of equal budget on scikit-learn's digits, compare and report them.

    Args:
        out: the folder of the four run folders and of their page, report.html.
        timesteps: T of the students.
        epochs: of the teacher and of each student.
        seed: of all of them.
        overwrite: replace an earlier demo's runs; false refuses to.

    Raises:
        InputError: when a run folder is in use or cannot be written.
    """
    from spikestill.recipes import AnnRecipe, DistillRecipe, load
    from spikestill.report import write_page
    from spikestill.train import train

    began = time.monotonic()
    root = Path(out)
    shared = [
        "--data=digits",
        f"--epochs={epochs}",
        f"--seed={seed}",
        "--batch-size=32",
        "--width=0.5",
        "--optimiser.lr=0.05",
    ]
    teacher = load(AnnRecipe, "ann", [*shared, "--model=vgg7", f"--out={root / 'teacher'}"])
    recipes: list[Any] = [teacher]
    for method in _STUDENTS:
        guided = [] if method == "labels-only" else [f"--teacher={teacher.folder}"]
        words = ["--student=vgg7", f"--timesteps={timesteps}", "--gradient=rate", f"--out={root / method}"]
        recipes.append(load(DistillRecipe, method, [*shared, *words, *guided]))
    results, folders = {}, []
    for recipe in recipes:
        finished = train(recipe, overwrite=overwrite)
        results[recipe.method] = finished.read_json("result.json")
        folders.append(str(finished.folder))
    _show(results, timesteps)
    print(f"report: {write_page(folders, root / 'report.html')}")
    print(f"runs: {root}/{{teacher,{','.join(_STUDENTS)}}}  ({time.monotonic() - began:.0f} s)")


def _show(results: Mapping[str, Mapping[str, Any]], timesteps: int) -> None:
    rows = []
    for method, result in results.items():
        steps = result.get("test_accuracy_by_timestep")
        if steps is None:
            figures = [""] * (timesteps - 1) + [f"{result['test_accuracy']:.2%}", ""]
            rows.append(["teacher (ANN)", *figures])
        else:
            spikes = f"{result['test_spikes_per_neuron']:.2f}"
            rows.append([method, *(f"{value:.2%}" for value in steps.values()), spikes])
    header = ["test accuracy", *(f"t = {step}" for step in range(1, timesteps + 1)), "spikes per neuron"]
    print_rows("test set, read once at the end of each run", header, rows)
