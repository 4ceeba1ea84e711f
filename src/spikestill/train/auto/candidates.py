"""What ``auto`` tries: conversions without training, and starts of a training. A new method is a line here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from spikestill.convert import convert
from spikestill.recipes import DistillRecipe
from spikestill.recipes.loading import read_source

__all__ = ["Candidate", "Start", "conversions", "random_start", "starts", "training_fields", "without_blockwise"]

_CALIBRATION = {"images": 256}
_METHODS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("best", "best", {}),
    ("shift 99 %", "shift", {"percentile": 99.0}),
    ("balance-locally", "balance-locally", {}),
    ("shift 97 %", "shift", {"percentile": 97.0}),
    ("shift 99.9 %", "shift", {"percentile": 99.9}),
    ("shift 99 % by layer", "shift", {"percentile": 99.0, "by": "layer"}),
    ("shift", "shift", {}),
    ("calibrate, uncorrected", "calibrate", {"correct": "none"}),
    ("calibrate", "calibrate", {}),
)
"""Name, method and its options; the likeliest first, since the budget may end before the last.

Threshold balancing is not among them: it simulates every layer for a hundred steps, and is never better at few steps;
nor is normalise, which by channel and from half a threshold is shift in another unit.
"""

_QUANTISED: tuple[tuple[str, str, Mapping[str, Any]], ...] = (("quantise", "quantise", {}),)
"""Of an ANN whose activations are quantised: the one conversion that it was trained for."""

_OF_THE_COMMAND = ("student", "timesteps", "epochs", "batch_size")
"""Fields of the preset that the command says."""

_FROM_CONVERSION = {"name": "adamw", "lr": 0.001}
_FROM_WEIGHTS = {"name": "adamw", "lr": 0.003}


@dataclass(frozen=True)
class Candidate:
    """A conversion.

    Attributes:
        name: as the table shows it.
        fields: of the student's recipe.
    """

    name: str
    fields: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        key: a word for names of folders.
        name: as the table shows it.
        fields: of the student's recipe.
    """

    key: str
    name: str
    fields: dict[str, Any] = field(hash=False)


def conversions(*, has_max_pool: bool, levels: int | None) -> list[Candidate]:
    """The conversions to try, the likeliest first.

    Args:
        has_max_pool: of the ANN; each rule for it is then tried.
        levels: of the ANN's quantised activations, if they are.
    """
    known = get_args(get_type_hints(DistillRecipe)["initialise"])
    return [
        Candidate(
            f"{name}, max pooling {rule}" if has_max_pool else name,
            {
                "neuron": {"name": "if"},
                "max_pool": "average" if rule == "average" else "keep",
                "initialise": method,
                "conversion": _CALIBRATION | {"options": dict(options) | of_rule},
            },
        )
        for rule, of_rule in (_rules() if has_max_pool else {"keep": {}}).items()
        for name, method, options in (_QUANTISED if levels else _METHODS)
        if method in known
    ]


def _rules() -> dict[str, dict[str, Any]]:
    """The rules for max pooling, with the conversion's options for each; what changes the ANN's function comes last."""
    if _takes("max_pool"):
        return {"gate": {"max_pool": "gate"}, "keep": {"max_pool": "keep"}, "average": {}}
    return {"keep": {}, "average": {}}


def _takes(option: str) -> bool:
    """Whether every method of conversion takes an option."""
    return option in inspect.signature(convert).parameters


def starts(best: Candidate | None, *, levels: int | None) -> list[Start]:
    """What a training can start from.

    Args:
        best: the best conversion; None where the student is of another architecture than the ANN.
        levels: of the ANN's quantised activations, whose weights fit no student.
    """
    if best is None:
        return [random_start()]
    neuron = read_source(DistillRecipe, "blockwise")["neuron"] | best.fields["neuron"]
    converted = best.fields | {"neuron": neuron, "optimiser": _FROM_CONVERSION}
    # Rate gradients are of the mean of all read-outs.
    first = {"read_out_from": 1} if _takes("read_out_from") else {}
    found = [Start("conversion", best.name, converted | {"conversion": _with_options(best, first)})]
    if _takes("batch_norm"):
        kept = {"conversion": _with_options(best, first | {"batch_norm": "keep"})}
        found.append(Start("kept", f"{best.name}, BatchNorm kept", converted | kept))
    if levels is None:
        weights = {"initialise": "teacher-weights", "optimiser": _FROM_WEIGHTS}
        found.append(Start("weights", "the ANN's weights", weights))
    return found


def _with_options(candidate: Candidate, options: Mapping[str, Any]) -> dict[str, Any]:
    conversion: dict[str, Any] = candidate.fields["conversion"]
    return conversion | {"options": conversion["options"] | dict(options)}


def random_start() -> Start:
    """What a student of another architecture than the ANN's starts from."""
    return Start("random", "random weights", {"initialise": "random"})


def training_fields(start: Start, *, anytime: bool) -> dict[str, Any]:
    """The fields of a student's recipe that is trained from ``start``: block-wise, under rate gradients.

    Args:
        start: what it starts from.
        anytime: whether the number of time steps is drawn for every training step.
    """
    preset = read_source(DistillRecipe, "blockwise")
    fields = {name: value for name, value in preset.items() if name not in _OF_THE_COMMAND}
    fields |= {"train_timesteps": "anytime" if anytime else "all", "schedule": {"name": "cosine"}}
    return fields | start.fields


def without_blockwise(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a pair of networks that cannot be cut: labels and logits alone."""
    return dict(fields) | {"objectives": [term for term in fields["objectives"] if term["name"] != "blockwise"]}
