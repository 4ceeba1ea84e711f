"""One table over several runs: runs that differ in their seed alone become one row, mean ± standard deviation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spikestill.report.finished import Finished, origins, repetitions, told_apart
from spikestill.report.table import comma_separated_lines
from spikestill.types import InputError

__all__ = ["Row", "comma_separated", "compare", "header", "round_steps", "spread", "steps_of"]

_MOST_STEPS = 16
_ROUND = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))

_GAP = "validation gap, points"
_OPTIONAL = {"SynOps, millions": "synaptic_operations", "peak memory, MiB": "peak_memory", _GAP: "gap"}
"""Columns that a table has where one of its rows has them: the results of earlier versions do not."""

_DIGITS = {"spikes per neuron": 3, "SynOps, millions": 3, "training, minutes": 1, "peak memory, MiB": 0}
_DIGITS_OF_ACCURACY = 2


@dataclass(frozen=True)
class Row:
    """The runs of one experiment.

    Attributes:
        method: the recipe's name, with what sets it apart: the network, where it started, the gradient; and the
            folder, where that is not enough.
        timesteps: T; None for an ANN.
        seeds: of its runs, sorted.
        accuracy: test accuracy at each number of time steps (an ANN's at 1), each run's in [0, 1].
        spikes_per_neuron: each run's; empty for an ANN.
        training_seconds: each run's.
        synaptic_operations: accumulates an image, each run's; empty for an ANN, and where the results lack them.
        peak_memory: of the training, in MiB, each run's; empty where the results lack it.
        gap: by how much the teacher, or the ANN that was converted, puts more of the validation images into their
            class, each run's in [-1, 1]; empty where the results lack it.
        optional: which of the columns that not every table has are in this row's table.
    """

    method: str
    timesteps: int | None
    seeds: tuple[int, ...]
    accuracy: Mapping[int, tuple[float, ...]]
    spikes_per_neuron: tuple[float, ...]
    training_seconds: tuple[float, ...]
    synaptic_operations: tuple[float, ...] = ()
    peak_memory: tuple[float, ...] = ()
    gap: tuple[float, ...] = ()
    optional: tuple[str, ...] = ()

    def cells(self, steps: Sequence[int]) -> list[str]:
        """The row as text: method, seeds and figures, as mean ± standard deviation (the training time as its mean)."""
        shown = self.figures(steps)
        shown["training, minutes"] = (statistics.mean(shown["training, minutes"]),)
        texts = [spread(values, 1.0, _DIGITS.get(name, _DIGITS_OF_ACCURACY)) for name, values in shown.items()]
        return [self.method, ", ".join(map(str, self.seeds)), *texts]

    def figures(self, steps: Sequence[int]) -> dict[str, tuple[float, ...]]:
        """Each run's figures by column, accuracy in percent at each of ``steps`` first; empty where there are none."""
        last = self.timesteps or max(steps)
        accuracy = {last: self.accuracy[1]} if self.timesteps is None else self.accuracy
        found = {f"t = {step}": tuple(100 * share for share in accuracy.get(step, ())) for step in steps}
        found["spikes per neuron"] = self.spikes_per_neuron
        found["SynOps, millions"] = tuple(count / 1e6 for count in self.synaptic_operations)
        found["training, minutes"] = tuple(seconds / 60 for seconds in self.training_seconds)
        found["peak memory, MiB"] = self.peak_memory
        found[_GAP] = tuple(100 * share for share in self.gap)
        return {name: values for name, values in found.items() if name not in _OPTIONAL or name in self.optional}


def compare(folders: Iterable[str]) -> list[Row]:
    """A row for each experiment among these run folders, in the order in which they are named.

    Raises:
        InputError: for a folder that holds no finished run, and for two runs of one experiment with one seed.
    """
    experiments = repetitions(folders)
    rows = []
    for runs in experiments:
        try:
            rows.append(_row([(run.recipe, run.result) for run in runs]))
        except (KeyError, ValueError) as error:
            raise InputError(f"a result.json in {_listed(runs)} is damaged: it lacks {error}") from error
    names = told_apart([row.method for row in rows], [str(row.timesteps) for row in rows], experiments)
    present = tuple(name for name, field in _OPTIONAL.items() if any(getattr(row, field) for row in rows))
    return [replace(row, method=name, optional=present) for row, name in zip(rows, names, strict=True)]


def comma_separated(rows: Sequence[Row]) -> str:
    """The table as CSV in full precision, with a column for each mean and each standard deviation."""
    columns = header(rows)
    of_figures = [f"{name} {kind}" for name in columns[2:] for kind in ("mean", "standard deviation")]
    lines = [[*columns[:2], *of_figures]]
    for row in rows:
        figures = row.figures(steps_of(rows)).values()
        parts = (part for values in figures for part in _mean_and_deviation(values))
        lines.append([row.method, ", ".join(map(str, row.seeds)), *parts])
    return comma_separated_lines(lines)


def header(rows: Sequence[Row]) -> list[str]:
    """The names of the columns."""
    return ["method", "seeds", *rows[0].figures(steps_of(rows))]


def steps_of(rows: Sequence[Row]) -> list[int]:
    """The numbers of time steps to show: every one at which a row was read out or, of many, round ones and each T."""
    steps = sorted({step for row in rows if row.timesteps is not None for step in row.accuracy}) or [1]
    return steps if len(steps) <= _MOST_STEPS else round_steps(steps, [row.timesteps or 1 for row in rows])


def round_steps(steps: Iterable[int], besides: Iterable[int]) -> list[int]:
    """Of these numbers of time steps, 1, 2, 5, 10, 20, 50, ..., and those of ``besides``."""
    kept = {*_ROUND, *besides}
    return [step for step in steps if step in kept]


def _row(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Row:
    recipe, result = runs[0]
    seeds = tuple(result["seed"] for _, result in runs)
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
    operations = tuple(result["test_synaptic_operations"] for _, result in runs if "test_synaptic_operations" in result)
    memory = tuple(result["training_peak_memory_mib"] for _, result in runs if "training_peak_memory_mib" in result)
    gaps = tuple(known[0].gap for known in (origins(result) for _, result in runs) if known)
    seconds = tuple(result["training_seconds"] for _, result in runs)
    return Row(name, timesteps, seeds, accuracy, spikes, seconds, operations, memory, gaps)


def _listed(runs: Sequence[Finished]) -> str:
    return ", ".join(str(run.folder) for run in runs)


def _mean_and_deviation(values: Sequence[float]) -> tuple[str, str]:
    mean = repr(statistics.mean(values)) if values else ""
    return mean, repr(statistics.stdev(values)) if len(values) > 1 else ""


def spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Mean ± standard deviation of ``scale`` times the values, of several; one value as it is; nothing of none."""
    if not values:
        return ""
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
