"""The data of the LaSNN paper's figures, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spikestill.report.comparison import spread
from spikestill.report.systems import LASNN, Measured
from spikestill.report.table import Table

__all__ = ["attention", "encodings", "layer_wise", "layers"]

_OVER_SEEDS = "mean ± standard deviation over the seeds"
_ATTENTION = {LASNN[0]: "activation", LASNN[1]: "activation, normalised", "LaSNN (gradient attention)": "gradient"}


def layer_wise(found: Sequence[Measured]) -> Table:
    """Fig. 4: validation accuracy after every epoch, with (LaSNN) and without (hybrid) layer-wise distillation.

    The converted network, without either, stands at epoch 0.
    """
    shown = [entry for entry in found if entry.system in (*LASNN, "hybrid", "conversion")]
    curves = [_curve(entry) for entry in shown]
    epochs = sorted({epoch for curve in curves for epoch in curve})
    rows = tuple((str(epoch), *(curve.get(epoch, "") for curve in curves)) for epoch in epochs)
    return Table(
        f"validation accuracy in percent by epoch, {_OVER_SEEDS}", ("epoch", *map(_name, shown)), rows, texts=0
    )


def attention(found: Sequence[Measured]) -> Table:
    """Fig. 5: activation and gradient attention, their accuracy, time and memory."""
    rows = [
        (
            entry.data,
            entry.architecture,
            entry.setting,
            entry.label.replace(entry.system, _ATTENTION[entry.system], 1),
            entry.accuracy,
            entry.figure(lambda result: result["training_seconds"], 1 / 60, 1),
            entry.figure(lambda result: result["training_peak_memory_mib"], 1, 0),
        )
        for entry in sorted(found, key=_place)
        if entry.system in _ATTENTION
    ]
    header = ("data", "student", "setting", "attention", "test accuracy, %", "training, minutes", "peak memory, MiB")
    return Table(_OVER_SEEDS, header, tuple(rows), texts=4)


def encodings(found: Sequence[Measured]) -> Table:
    """Fig. 6: direct and Poisson input, by the number of time steps."""
    shown = sorted((entry for entry in found if entry.timesteps), key=_place)
    steps = sorted({step for entry in shown for step in entry.round_steps})
    rows = [
        (
            entry.data,
            entry.architecture,
            entry.label,
            entry.setting,
            *(entry.accuracy_at(step) for step in steps),
            entry.figure(lambda result: result["test_spikes_per_neuron"], 1, 3),
        )
        for entry in shown
    ]
    header = ("data", "student", "system", "setting", *(f"t = {step}" for step in steps), "spikes per neuron")
    return Table(f"test accuracy in percent, {_OVER_SEEDS}", header, tuple(rows), texts=4)


def layers(found: Sequence[Measured]) -> Table:
    """Fig. 7: the firing rate of every layer (spikes per neuron and time step), and its spikes per neuron over T."""
    rows = []
    for entry in found:
        for layer in entry.runs[0].result.get("test_rates", ()):
            rate, spikes = (_rate(entry, layer, scale) for scale in (1, entry.timesteps))
            rows.append((entry.data, _name(entry), layer, rate, spikes))
    title = f"firing rate, and spikes per neuron in T time steps, {_OVER_SEEDS}"
    return Table(title, ("data", "network", "layer", "rate", "spikes per neuron"), tuple(rows), texts=3)


def _curve(entry: Measured) -> dict[int, str]:
    """Validation accuracy in percent by epoch; of what was not trained, at epoch 0."""
    if not entry.recipe.get("epochs"):
        return {0: entry.figure(lambda result: result["validation_accuracy"], 100, 2)}
    tables = [{int(row["epoch"]): row["validation_accuracy"] for row in run.epochs()} for run in entry.runs]
    common = sorted(set.intersection(*map(set, tables)))
    return {epoch: spread([table[epoch] for table in tables], 100, 2) for epoch in common}


def _rate(entry: Measured, layer: str, scale: float) -> str:
    def read(result: Any) -> float:
        return float(result["test_rates"][layer])

    return entry.figure(read, scale, 3)


def _place(entry: Measured) -> tuple[str, str, str, int]:
    """Where it stands among others: by data, network, input and T."""
    return entry.data, entry.architecture, entry.encoder, entry.timesteps


def _name(entry: Measured) -> str:
    return f"{entry.label} {entry.architecture} ({entry.setting})"
