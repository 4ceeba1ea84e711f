"""What a conversion loses that falls far short of its ANN, measured on a few images, and what to try next."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikestill.data import Batches, DataSet
from spikestill.graph import SpikingNetwork
from spikestill.graph.operations import is_max_pool
from spikestill.graph.trace import calls
from spikestill.recipes import Conversion, DistillRecipe, NetworkDescription
from spikestill.train.conversion import converted_student
from spikestill.train.measuring import examine
from spikestill.train.origins import Measured
from spikestill.train.processes import ALONE
from spikestill.train.teachers import Scaled
from spikestill.types import InputError

__all__ = ["what_costs"]

_log = logging.getLogger("spikestill")

_FAR = 0.03
"""From which share of the validation images on a conversion is far below its ANN."""

_IMAGES, _FEWEST, _BATCH = 256, 48, 32
_SECONDS = 20.0
"""How long a measurement may take, as a first batch foretells."""

_FACTORS = (1, 2, 4)
"""How many times the time steps it is looked at."""


def what_costs(
    recipe: DistillRecipe,
    data: DataSet,
    description: NetworkDescription,
    network: nn.Module,
    origins: Sequence[Measured],
    accuracy: float,
    device: torch.device,
) -> list[str]:
    """What a conversion that is far below its ANN loses, and where; said on the log, a sentence each.

    Looked at are more time steps, another method and, where the network has maxima, averages in place of them: each on
    a few hundred validation images, if that takes seconds.

    Args:
        recipe: of the conversion; nothing is looked at where training follows.
        data: with the validation images.
        description: of the student.
        network: the student, on ``device``.
        origins: the networks it comes from, measured.
        accuracy: of the student, on all validation images.
        device: where.
    """
    far = [one for one in origins if one.origin.converted and one.accuracy - accuracy > _FAR]
    if recipe.epochs or not far or not isinstance(network, SpikingNetwork):
        return []
    scene = _Scene(recipe, data, description, network, far[0], device)
    remarks = [
        f"the conversion by {recipe.initialise} at T = {recipe.timesteps} is {100 * (far[0].accuracy - accuracy):.1f} "
        "points below its ANN on the validation images"
    ]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        remarks += scene.of_steps()
        remarks += scene.of_others()
    options = f"{_as_teacher(recipe, far[0].origin.name)} --data {recipe.data} --timesteps {recipe.timesteps}"
    remarks.append(f"or train it: spikestill distill blockwise --student {recipe.student} {options}")
    for remark in remarks:
        _log.info(remark)
    return remarks


def _as_teacher(recipe: DistillRecipe, name: str) -> str:
    """The options of a command that learns from the ANN."""
    if Path(name).is_dir() or name.startswith("python:"):
        return f"--teacher {name}"
    return f"--teacher {recipe.student} --teacher-weights {name}"


class _Scene:
    """What the measurements share; the arguments are those of :func:`what_costs`, and the ANN."""

    def __init__(
        self,
        recipe: DistillRecipe,
        data: DataSet,
        description: NetworkDescription,
        network: SpikingNetwork,
        ann: Measured,
        device: torch.device,
    ) -> None:
        self._recipe, self._data, self._description = recipe, data, description
        self._network, self._ann, self._device = network.eval(), ann, device
        self._timesteps = recipe.timesteps
        self._step_seconds = self._seconds_of_a_step()

    def of_steps(self) -> Iterator[str]:
        """What more time steps give, where that can be seen in seconds."""
        factors = [factor for factor in _FACTORS if self._images(factor * self._timesteps) >= self._fewest]
        if len(factors) < 2:
            return
        steps = [factor * self._timesteps for factor in factors]
        images = self._images(steps[-1])
        found = self._accuracies(self._network, images, steps)
        ann = self._accuracy_of_ann(images)
        listed = ", ".join(f"{found[step]:.1%} at t = {step}" for step in steps)
        seen = f"of {images} images {listed}, the ANN {ann:.1%}"
        best = next(step for step in steps if found[step] >= max(found.values()) - 0.01)
        if best > self._timesteps:
            gained = 100 * (found[best] - found[steps[0]])
            yield f"the number of time steps costs {gained:.1f} points ({seen}): try --timesteps {best}"
        else:
            yield f"more time steps do not help ({seen})"

    def of_others(self) -> Iterator[str]:
        """What another method gives at the same T and, where there are maxima, averages in place of them."""
        images = self._images(self._timesteps)
        if images < self._fewest or self._recipe.initialise == "quantise":
            return
        conversion = Conversion(images=self._recipe.conversion.images, options={"percentile": 99.0})
        other: dict[str, Any] = {"initialise": "shift", "conversion": conversion}
        before = self._accuracies(self._network, images, [self._timesteps])[self._timesteps]
        words = ""
        if any(getattr(self._recipe, name) != value for name, value in other.items()):
            words = "--initialise shift --conversion.options '{percentile: 99}'"
            after = self._with(other, images)
            yield self._compared(f"the method {self._recipe.initialise}", words, images, before, after)
            before = before if after is None else after
        body = self._network.body
        if any(is_max_pool(body, node) for node in calls(body.graph)):
            after = self._with({**other, "max_pool": "average"}, images)
            words = f"{words} --max_pool average".strip()
            yield self._compared("max pooling", words, images, before, after)

    def _compared(self, cause: str, words: str, images: int, before: float, after: float | None) -> str:
        if after is None:
            return f"whether {cause} costs it could not be tried: {words} is refused"
        seen = f"of {images} images {after:.1%} at t = {self._timesteps} with {words}, {before:.1%} without"
        if after > before + 0.01:
            return f"{cause} costs {100 * (after - before):.1f} points ({seen}): try it"
        return f"{cause} is not what costs it ({seen})"

    def _with(self, fields: dict[str, Any], images: int) -> float | None:
        """The accuracy after another conversion; None where that is refused."""
        recipe = dataclasses.replace(self._recipe, **fields)
        assert self._description.spiking is not None
        spiking = dataclasses.replace(self._description.spiking, max_pool=recipe.max_pool)
        description = dataclasses.replace(self._description, spiking=spiking)
        try:
            other = converted_student(
                recipe, self._data, description, self._ann.origin.teacher.network, self._device
            ).eval()
        except InputError:
            return None
        return self._accuracies(other, images, [self._timesteps])[self._timesteps]

    @property
    def _fewest(self) -> int:
        return min(_FEWEST, len(self._data.validation))

    def _images(self, timesteps: int) -> int:
        """How many images can be shown for so many time steps in the time that a measurement may take."""
        return min(_IMAGES, len(self._data.validation), int(_SECONDS / (timesteps * self._step_seconds)))

    def _seconds_of_a_step(self) -> float:
        """That of one image, from one small batch."""
        images, _ = next(iter(self._batches(_BATCH)))
        with torch.no_grad():
            begun = time.monotonic()
            self._network.unroll(images, self._timesteps).sum().item()
        return max(time.monotonic() - begun, 1e-6) / (len(images) * self._timesteps)

    def _batches(self, images: int) -> Batches:
        """So many of the validation images, evenly among all of them."""
        rows = torch.linspace(0, len(self._data.validation) - 1, min(images, len(self._data.validation)))
        return Batches(
            self._data.validation.subset(rows.round().long()),
            batch_size=_BATCH,
            mean=self._description.mean,
            std=self._description.std,
            device=self._device,
            merge_frames=not self._description.takes_frames,
            unreadable=self._data.unreadable,
        )

    def _accuracies(self, network: nn.Module, images: int, timesteps: Sequence[int]) -> dict[int, float]:
        figures = self._examined(network, self._batches(images), timesteps)
        return {int(step): accuracy for step, accuracy in figures["accuracy_by_timestep"].items()}

    def _accuracy_of_ann(self, images: int) -> float:
        shown = Scaled.of(self._ann.origin.teacher, self._data, self._description, self._device)
        pairs = [(shown.scaled(batch), labels) for batch, labels in self._batches(images)]
        return float(self._examined(shown.network, pairs)["accuracy"])

    def _examined(self, network: nn.Module, batches: Any, timesteps: Sequence[int] | None = None) -> dict[str, Any]:
        return examine(
            network,
            batches,
            precision=self._recipe.precision,
            device=self._device,
            processes=ALONE,
            timesteps=timesteps,
            title="looking for what the conversion loses",
        ).figures
