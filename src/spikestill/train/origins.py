"""The networks that a student comes from, measured on the same validation images: what is the student's to reach."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from spikestill.data import Batches, DataSet
from spikestill.graph import SpikingNetwork
from spikestill.recipes import DistillRecipe, NetworkDescription
from spikestill.train.processes import Processes
from spikestill.train.teachers import Scaled, Teacher

__all__ = ["Measured", "Meter", "Origin", "is_near_chance", "origins_of", "recorded"]

_log = logging.getLogger("spikestill")

_MOST_ABOVE_CHANCE = 0.1
_DOUBT = 0.05


@dataclass(frozen=True)
class Origin:
    """A trained network that a student comes from.

    Attributes:
        role: teacher, or source: what it starts from or is converted from.
        name: as the recipe names it.
        teacher: the network and its scale.
        precision: float32 or bf16.
        converted: whether the student is made of it by a conversion.
    """

    role: Literal["teacher", "source"]
    name: str
    teacher: Teacher
    precision: str
    converted: bool

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        if isinstance(self.teacher.network, SpikingNetwork):
            return f"the spiking {self.role} {self.name}"
        return f"the ANN that is converted, {self.name}," if self.converted else f"the {self.role} {self.name}"


@dataclass(frozen=True)
class Measured:
    """What an origin does.

    Attributes:
        origin: which.
        accuracy: the share of the validation images that it puts into their class.
        remarks: what is to be known about that, a sentence each.
    """

    origin: Origin
    accuracy: float
    remarks: tuple[str, ...]


def origins_of(recipe: DistillRecipe, teacher: Teacher | None, source: Teacher | None) -> tuple[Origin, ...]:
    """The networks that a student comes from and that know its classes; one that is both teacher and source once."""
    found = []
    converts = recipe.converts
    if source is not None and source.knows_classes:
        found.append(Origin("source", str(recipe.source), source, recipe.precision, converts))
    if teacher is not None:
        is_converted = converts and source is None
        found.append(Origin("teacher", str(recipe.teacher), teacher, recipe.teacher_precision, is_converted))
    # An ANN that is converted and not trained any more is what the student is judged by, and else the teacher.
    return tuple(found if converts and not recipe.epochs else reversed(found))


class Meter:
    """Measures the networks that a student comes from on the validation images, and says on the log what was found.

    Args:
        data: with the validation images.
        description: of the student, as whose inputs the images are normalised.
        batches: of the validation images.
        device: where.
        processes: those that measure together.
    """

    def __init__(
        self,
        data: DataSet,
        description: NetworkDescription,
        batches: Batches,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self._data, self._description, self._batches = data, description, batches
        self._device, self._processes = device, processes
        self._waiting: tuple[Origin, ...] = ()
        self._measured: tuple[Measured, ...] = ()

    def meet(self, origins: Sequence[Origin]) -> None:
        """Measure them: at once, or with :meth:`measured` where other processes may have met an error meanwhile."""
        self._waiting = tuple(origins)
        if self._processes.count == 1:
            self.measured()

    def measured(self) -> tuple[Measured, ...]:
        """What was found; of several processes every one has to ask."""
        self._measured += tuple(map(self._measure, self._waiting))
        self._waiting = ()
        return self._measured

    def _measure(self, origin: Origin) -> Measured:
        from spikestill.train.measuring import examine

        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            shown = Scaled.of(origin.teacher, self._data, self._description, self._device)
            figures = examine(
                shown.network,
                ((shown.scaled(images), labels) for images, labels in self._batches),
                precision=origin.precision,
                device=self._device,
                processes=self._processes,
                title=f"asking the {origin.role} about the validation images",
                total=len(self._batches),
            ).figures
        accuracy = float(figures["accuracy"])
        found = Measured(origin, accuracy, tuple(_remarks(origin, accuracy, self._data)))
        if self._processes.is_first:
            count = len(self._data.validation)
            _log.info(f"{origin.words} answers {accuracy:.2%} of the {count} validation images right")
            for remark in found.remarks:
                _log.info(remark)
        return found


def recorded(measured: Sequence[Measured], accuracy: float) -> list[dict[str, Any]]:
    """The origins as ``result.json`` holds them.

    Args:
        measured: the origins.
        accuracy: of the student, on the validation images.
    """
    return [
        {
            "role": one.origin.role,
            "name": one.origin.name,
            "is_spiking": isinstance(one.origin.teacher.network, SpikingNetwork),
            "validation_accuracy": one.accuracy,
            "gap": one.accuracy - accuracy,
        }
        for one in measured
    ]


def is_near_chance(correct: int, images: int, classes: int) -> bool:
    """Whether an accuracy is that of guessing, or hardly more.

    That is: below twice 1/K and below 1/K + 10 points, and by so many images that a network with that accuracy would
    do as badly in less than one of twenty samples of as many images.

    Args:
        correct: the images put into their class.
        images: of how many.
        classes: K.
    """
    limit = min(2 / classes, 1 / classes + _MOST_ABOVE_CHANCE)
    if limit >= 1 or correct >= limit * images:
        return False
    logarithms = (
        math.lgamma(images + 1)
        - math.lgamma(count + 1)
        - math.lgamma(images - count + 1)
        + count * math.log(limit)
        + (images - count) * math.log1p(-limit)
        for count in range(correct + 1)
    )
    return math.fsum(map(math.exp, logarithms)) < _DOUBT


def _remarks(origin: Origin, accuracy: float, data: DataSet) -> list[str]:
    images, classes = len(data.validation), data.num_classes
    if not is_near_chance(round(accuracy * images), images, classes):
        return []
    begin = f"{origin.words} answers hardly more validation images right than guessing would ({1 / classes:.2%}): "
    if Path(origin.name).is_dir():
        return [f"{begin}it has not learned {data.name}; look at its training before a student comes from it"]
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in (origin.teacher.mean, origin.teacher.std))
    return [
        f"{begin}it was probably trained on pixels that were normalised otherwise than here (mean {mean}, std {std}): "
        "give its own with --mean and --std; or its classes are in another order than the data's, or it is not trained"
    ]
