"""One table over several runs: runs that differ in their seed alone become one row, mean ± standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikestill.runs import Run
from spikestill.types import InputError

__all__ = ["Row", "compare", "markdown"]

_SEEDED = ("seed", "out", "device", "checkpoint_minutes", "teacher", "data_dir")
"""Fields of a recipe in which repetitions of one experiment may differ."""


@dataclass(frozen=True)
class Row:
    """The runs of one experiment.

    Attributes:
        method: the recipe's name, with what sets it apart: the network, where it started, the gradient.
        timesteps: T; None for an ANN.
        seeds: of its runs, sorted.
        accuracy: test accuracy at each number of time steps (an ANN's at 1), each run's in [0, 1].
        spikes_per_neuron: each run's; empty for an ANN.
        training_seconds: each run's.
    """

    method: str
    timesteps: int | None
    seeds: tuple[int, ...]
    accuracy: Mapping[int, tuple[float, ...]]
    spikes_per_neuron: tuple[float, ...]
    training_seconds: tuple[float, ...]

    def cells(self, steps: Sequence[int]) -> list[str]:
        """The row as text: method, seeds, accuracy at each of ``steps``, spikes per neuron, training time."""
        last = self.timesteps or max(steps)
        accuracy = {last: self.accuracy[1]} if self.timesteps is None else self.accuracy
        spikes = _spread(self.spikes_per_neuron, 1.0, 3) if self.spikes_per_neuron else ""
        return [
            self.method,
            ", ".join(map(str, self.seeds)),
            *(_spread(accuracy[step], 100.0, 2) if step in accuracy else "" for step in steps),
            spikes,
            f"{statistics.mean(self.training_seconds) / 60:.1f}",
        ]


def compare(folders: Iterable[str]) -> list[Row]:
    """A row for each experiment among these run folders, in the order in which they are named.

    Raises:
        InputError: for a folder that holds no finished run, and for two runs of one experiment with one seed.
    """
    grouped: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for folder in folders:
        run = Run.open(folder)
        if not run.finished:
            raise InputError(f"{folder} is not finished: spikestill --resume continues it")
        recipe, result = run.read_yaml("recipe.yaml"), run.read_json("result.json")
        same = {name: value for name, value in recipe.items() if name not in _SEEDED}
        grouped.setdefault(json.dumps(same, sort_keys=True), []).append((recipe, result))
    return [_row(runs) for runs in grouped.values()]


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown: accuracies in percent, mean ± standard deviation over the seeds."""
    lines = [header(rows), *(row.cells(steps_of(rows)) for row in rows)]
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def header(rows: Sequence[Row]) -> list[str]:
    """The names of the columns."""
    return ["method", "seeds", *(f"t = {step}" for step in steps_of(rows)), "spikes per neuron", "training, minutes"]


def steps_of(rows: Sequence[Row]) -> list[int]:
    """Every number of time steps at which a row was read out."""
    return sorted({step for row in rows if row.timesteps is not None for step in row.accuracy}) or [1]


def _row(runs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Row:
    runs = sorted(runs, key=lambda run: run[1]["seed"])
    recipe, result = runs[0]
    seeds = tuple(result["seed"] for _, result in runs)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"two runs of method {recipe['method']} have the same seed and recipe: name only one of them")
    timesteps = recipe.get("timesteps")
    if timesteps is None:
        name = f"{recipe['method']} {result['network']} (ANN)"
        accuracy = {1: tuple(result["test_accuracy"] for _, result in runs)}
    else:
        start = "" if recipe["initialise"] == "random" else f", {recipe['initialise']}"
        name = f"{recipe['method']} {result['network']}, {recipe['gradient']}{start}"
        accuracy = {
            int(step): tuple(result["test_accuracy_by_timestep"][step] for _, result in runs)
            for step in result["test_accuracy_by_timestep"]
        }
    spikes = tuple(result["test_spikes_per_neuron"] for _, result in runs if "test_spikes_per_neuron" in result)
    return Row(name, timesteps, seeds, accuracy, spikes, tuple(result["training_seconds"] for _, result in runs))


def _spread(values: Sequence[float], scale: float, digits: int) -> str:
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
