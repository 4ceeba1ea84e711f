"""The networks, data and measurements that the steps of ``auto`` share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikestill.data import Batches, DataSet
from spikestill.data.splits import balanced_subset
from spikestill.graph import SpikingNetwork
from spikestill.recipes import DistillRecipe, NetworkDescription, load
from spikestill.runs import Run, read_weights
from spikestill.train.auto.ann import DescriptionInHand, GivenAnn
from spikestill.train.auto.settings import Settings
from spikestill.train.callbacks import kept_weights_file
from spikestill.train.guidance import find_start, guided_learner, initial_student
from spikestill.train.learner import DistillLearner
from spikestill.train.loaders import make_batches
from spikestill.train.loop import execute
from spikestill.train.measuring import examine
from spikestill.train.processes import ALONE
from spikestill.train.teachers import Teacher

__all__ = ["Context"]

_BATCH = 100
"""Images that are measured at once: small enough that hundreds of channels over several time steps fit."""


@dataclass(frozen=True)
class Context:
    """What the steps share.

    Attributes:
        settings: what is asked for.
        ann: the trained ANN and its data.
        device: where everything runs.
        folder: where the runs lie.
    """

    settings: Settings
    ann: GivenAnn
    device: torch.device
    folder: Path

    def recipe(self, **fields: Any) -> DistillRecipe:
        """A student's recipe: the ANN's data and architecture, and ``fields``."""
        settings = self.settings
        shared = {"method": "auto", "timesteps": settings.timesteps, "seed": settings.seed, "device": settings.device}
        if settings.student is not None:
            fields |= {"student": settings.student, "width": 1.0, "model_options": {}}
        # A recording is shown as the mean of its frames, as the ANN sees it.
        shared |= {"encoder": {"name": "direct"}}
        unguided = {"objectives": [{"name": "cross-entropy"}]}
        if "mean" in DistillRecipe.__dataclass_fields__:  # so that the recipe alone says how pixels are scaled
            shared |= {"mean": list(self.ann.data.mean), "std": list(self.ann.data.std)}
        found = unguided | shared | self.ann.fields | {"batch_size": settings.batch_size, "logger": "none"} | fields
        return load(DistillRecipe, found)

    def description(self, recipe: DistillRecipe, data: DataSet) -> NetworkDescription:
        """Of the student; one that can build what it is made of."""
        found = NetworkDescription.of(recipe, data)
        return DescriptionInHand(**vars(found), ann=self.ann.network) if self._is_in_hand(recipe) else found

    def student(self, recipe: DistillRecipe, data: DataSet | None = None) -> SpikingNetwork:
        """The student as it is before its first training step, the same every time."""
        data = data or self.ann.limited(recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            description = self.description(recipe, data)
            start = find_start(recipe, data, description) or Teacher(self.ann.network, data.mean, data.std)
            return initial_student(recipe, data, description, start, self.device)

    def trained(self, recipe: DistillRecipe, run: Run) -> SpikingNetwork:
        """The student with the weights that validation chose; its run need not be finished."""
        network = self.student(recipe)
        best = kept_weights_file(run)
        network.load_state_dict(run.read_weights() if best is None else read_weights(best))
        return network.to(self.device).eval()

    def train(self, recipe: DistillRecipe, *, read_test: bool) -> Run:
        """Train as the recipe says, or go on with that; the test set is left for later, or read."""
        data = self.ann.limited(recipe)
        network = self.student(recipe, data) if self._is_in_hand(recipe) else None
        return execute(recipe, resume=True, network=network, teacher=self.ann.network, data=data, read_test=read_test)

    def learner(self, recipe: DistillRecipe) -> tuple[DistillLearner, Batches]:
        """What trains the student, and its batches; nothing is written."""
        data = self.ann.limited(recipe)
        description = self.description(recipe, data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = self.student(recipe, data) if self._is_in_hand(recipe) else None
            batches = make_batches(recipe, data, description, "train", self.device)
            learner = guided_learner(recipe, data, description, network, self.ann.network, self.device, batches)
        return learner, batches

    def validation(self, count: int) -> Batches:
        """As many validation images, all classes alike; fewer lie within more."""
        images = self.ann.data.validation
        rows = balanced_subset(images.labels, min(count, len(images)), self.settings.seed, "auto")
        return self._batches(images.subset(rows))

    def test(self) -> Batches:
        """The test images."""
        return self._batches(self.ann.data.test)

    def _batches(self, images: Any) -> Batches:
        data = self.ann.data
        return Batches(images, batch_size=_BATCH, mean=data.mean, std=data.std, device=self.device, merge_frames=True)

    def measure(
        self, network: nn.Module, batches: Batches, timesteps: tuple[int, ...] | None = None, precision: str = "float32"
    ) -> dict[str, Any]:
        """The figures of a network, as ``train.measuring`` gives them."""
        network = network.to(self.device).eval()
        return examine(
            network, batches, precision=precision, device=self.device, processes=ALONE, timesteps=timesteps
        ).figures

    def _is_in_hand(self, recipe: DistillRecipe) -> bool:
        return self.ann.in_hand and recipe.student == self.ann.fields["student"]

    def limited(self, recipe: DistillRecipe, images: int) -> DistillRecipe:
        """The recipe with that many training images, or those that there are."""
        return replace(recipe, limit_train=images) if images < len(self.ann.data.train) else recipe
