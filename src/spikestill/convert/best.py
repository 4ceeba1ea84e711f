"""``best``: several conversions are tried, and the one whose network agrees best with the ANN is kept."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikestill.convert.balance_locally import local_thresholds
from spikestill.convert.calibrate import best_thresholds, correct_biases
from spikestill.convert.preparing import Conversion, require_soft_reset
from spikestill.convert.scales import Scale
from spikestill.convert.thresholds import Start, checked_by, checked_start, set_thresholds, start_neurons
from spikestill.convert.values import By, all_percentiles, checked_steps, steps_of
from spikestill.types import InputError

__all__ = ["best"]

_PERCENTILES = (90.0, 95.0, 97.0, 99.0, 99.9, 100.0)
_PASSES = (4, 16)
_MANY_STEPS = 16
"""Beyond so many time steps rates are fine enough for thresholds that clip hardly anything: fewer candidates do, and
what is left of a layer's error is too small to be worth a correction."""
_GRID = 40
_LEAST_SQUARES, _CORRECTED = "least squares", ", biases corrected"
_VALUES_A_CANDIDATE = 2**28
"""How many values a network may compute to score one candidate: of a large network at many steps, on fewer images."""
_FEWEST_IMAGES = 64


@dataclass(frozen=True)
class Candidate:
    """One conversion that is tried.

    Attributes:
        name: what it does.
        thresholds: by neuron layer, in the ANN's unit.
        corrects: whether biases take in the mean error of each layer.
    """

    name: str
    thresholds: Mapping[str, Scale]
    corrects: bool


def best(
    work: Conversion, timesteps: int | None = None, by: By = "channel", start: Start = "half", folds: int = 2
) -> None:
    """Keep, of several conversions, the one whose network agrees best with the ANN at T time steps (methods 8).

    The candidates are thresholds at percentiles of the activation, those that show the activation best in T time steps
    (as ``calibrate``), and those of ``balance-locally``; each as it is and, up to 16 time steps, with the biases
    corrected; each read out from the first time step on, or from a later one. Every candidate is made once for each
    fold, of the calibration images outside it, and scored on those inside: by the mean divergence of the network's
    class probabilities from the ANN's. The chosen one is then made of all images. Labels are not read. ``notes`` have
    the name of the chosen one and all scores.

    Args:
        work: the conversion; its graph is changed.
        timesteps: T, at which the network will be run; by default its own.
        by: one threshold a "channel" or a "layer".
        start: from "half" of the threshold, or from "rest".
        folds: into how many parts the images are divided, at least 2. A single image is scored itself.

    Raises:
        InputError: for an option out of its range, a hard reset, and a layer that no calibration image drives.
    """
    require_soft_reset(work, "best")
    steps = checked_steps(work.timesteps if timesteps is None else timesteps)
    checked_by(by)
    checked_start(start)
    if folds < 2:
        raise InputError(f"folds must be at least 2, not {folds}")
    scores: dict[tuple[str, int], float] = {}
    for part, scored in _folds(work, steps, folds):
        wanted = work.ann(scored).log_softmax(1)
        for candidate in _candidates(part, steps, by, start):
            trial = dataclasses.replace(part, body=copy.deepcopy(work.body))
            _make(trial, candidate, steps, start)
            for first, score in _scores(trial, scored, wanted, steps).items():
                scores[candidate.name, first] = scores.get((candidate.name, first), 0.0) + score / folds
    name, first = min(scores, key=scores.__getitem__)
    (chosen,) = _candidates(work, steps, by, start, only=name)
    _make(work, chosen, steps, start)
    ordered = sorted(scores.items(), key=lambda item: item[1])
    work.notes["chosen"] = name
    work.notes["candidates"] = [
        {"candidate": name, "read_out_from": first, "divergence": score} for (name, first), score in ordered
    ]
    if steps == work.timesteps:
        work.notes["read_out_from"] = first


def _folds(work: Conversion, timesteps: int, folds: int) -> Iterator[tuple[Conversion, Tensor]]:
    """For each fold, the conversion with the images outside it, and the images inside."""
    images = torch.cat(work.images)
    shapes = (node.meta.get("shape", ()) for node in work.body.graph.nodes)
    values = sum(math.prod(shape[1:]) for shape in shapes if shape)
    images = images[: max(_VALUES_A_CANDIDATE // (values * timesteps), _FEWEST_IMAGES)]
    parts = images.chunk(min(folds, len(images)))
    for inside in parts:
        outside = [part for part in parts if part is not inside] or [inside]
        yield dataclasses.replace(work, images=_batches(torch.cat(outside))), inside


def _batches(images: Tensor, size: int = 64) -> list[Tensor]:
    return list(images.split(size))


def _candidates(work: Conversion, timesteps: int, by: By, start: Start, only: str | None = None) -> Iterator[Candidate]:
    """All candidates, or the one of a name."""
    is_long = timesteps > _MANY_STEPS
    for name, thresholds in _thresholds(work, timesteps, by, start, is_long, only):
        for candidate in (Candidate(name, thresholds, False), Candidate(f"{name}{_CORRECTED}", thresholds, True)):
            if candidate.name == only or (only is None and not (is_long and candidate.corrects)):
                yield candidate


def _thresholds(
    work: Conversion, timesteps: int, by: By, start: Start, is_long: bool, only: str | None
) -> Iterator[tuple[str, Mapping[str, Scale]]]:
    """The thresholds of all candidates by name, or those of one."""
    wanted = None if only is None else only.removesuffix(_CORRECTED)
    percentiles = {f"percentile {value:g}": value for value in (_PERCENTILES[-3:] if is_long else _PERCENTILES)}
    passes = {f"balanced locally, {number} passes": number for number in (_PASSES[-1:] if is_long else _PASSES)}
    if wanted is not None:
        percentiles = {name: value for name, value in percentiles.items() if name == wanted}
        passes = {name: number for name, number in passes.items() if name == wanted}
    if percentiles:
        yield from zip(percentiles, all_percentiles(work, list(percentiles.values()), by), strict=True)
    if wanted in (None, _LEAST_SQUARES):
        yield _LEAST_SQUARES, best_thresholds(work, timesteps, _GRID, by, start)
    if passes:
        yield from zip(passes, local_thresholds(work, list(passes.values()), by), strict=True)


def _make(work: Conversion, candidate: Candidate, timesteps: int, start: Start) -> None:
    units = set_thresholds(work, candidate.thresholds)
    start_neurons(work, start)
    if candidate.corrects:
        correct_biases(work, timesteps, units)


def _scores(work: Conversion, images: Tensor, wanted: Tensor, timesteps: int) -> dict[int, float]:
    """By the time step from which on read-outs are averaged, the divergence from the ANN's probabilities."""
    output = next(node for node in work.body.graph.nodes if node.op == "output").args[0]
    parts = [torch.cat(list(steps_of(work, output, some, timesteps))) for some in _batches(images)]
    steps = torch.cat(parts, 1)
    return {first: _divergence(steps[first - 1 :].mean(0), wanted) for first in _delays(timesteps)}


def _divergence(logits: Tensor, wanted: Tensor) -> float:
    given = logits.log_softmax(1)
    return float(nn.functional.kl_div(given, wanted, reduction="batchmean", log_target=True))


def _delays(timesteps: int) -> list[int]:
    """From which time steps on the read-out may be averaged: the first, and an eighth, a quarter and half of T in."""
    return sorted({1, *(timesteps // share + 1 for share in (8, 4, 2) if timesteps // share >= 1)})
