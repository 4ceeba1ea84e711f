"""The ANN that ``auto`` is given, whatever names it: a run, a file of weights, a model, or a module in hand."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikestill import models
from spikestill.data import DataSet
from spikestill.data.splits import balanced_subset
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription, as_mapping, load
from spikestill.runs import Run
from spikestill.train.auto.settings import Settings
from spikestill.train.guidance import refuse_unfit
from spikestill.train.loaders import load_data
from spikestill.train.teachers import find_source, find_teacher, names_model, training_it_needs
from spikestill.types import InputError

__all__ = ["DescriptionInHand", "GivenAnn", "find_ann"]

_OF_THE_RUN = (
    *("data", "data_dir", "image_size", "skip_corrupt", "events", "limit_train", "validation", "split_seed"),
    *("augmentation", "width", "model_options"),
)
"""What the student shares with the recipe of the ANN's run."""


@dataclass(frozen=True)
class GivenAnn:
    """A trained ANN and the data that it is shown.

    Attributes:
        network: in evaluation mode.
        fields: those of a student's recipe that say what is the ANN's: data, architecture, teacher.
        data: normalised as the ANN's inputs were.
        run: the folder of its run; None where it has none.
        levels: of its quantised activations; None where they are not quantised.
        in_hand: whether it is a module that no name rebuilds.
    """

    network: nn.Module
    fields: dict[str, Any]
    data: DataSet
    run: str | None = None
    levels: int | None = None
    in_hand: bool = False

    def limited(self, recipe: DistillRecipe) -> DataSet:
        """The data of a recipe with a limit of its own, normalised for the ANN."""
        own = self.fields.get("limit_train")
        if recipe.limit_train == own:
            return self.data
        if own is None and isinstance(recipe.limit_train, int):
            # As data.load does it, without reading everything again.
            images = self.data.train
            rows = balanced_subset(images.labels, min(recipe.limit_train, len(images)), recipe.split_seed, "limit")
            return dataclasses.replace(self.data, train=images.subset(rows))
        return _normalised(load_data(recipe), self.data.mean, self.data.std)


@dataclass(frozen=True, kw_only=True)
class DescriptionInHand(NetworkDescription):
    """The description of a network that is made of a module in hand.

    Attributes:
        ann: the module, which stays as it is.
    """

    ann: nn.Module = field(repr=False)

    def build_ann(self, *, pretrained: bool = False) -> nn.Module:
        """A copy of the module."""
        return copy.deepcopy(self.ann)


def find_ann(settings: Settings, module: nn.Module | None) -> GivenAnn:
    """The ANN and its data.

    Args:
        settings: which one.
        module: a trained network, in place of a name.

    Raises:
        InputError: for what is no trained ANN, and for data that it does not fit.
    """
    found = _found(settings, module)
    refuse_unfit("ANN", found.network, found.data, torch.device("cpu"))
    return found


def _found(settings: Settings, module: nn.Module | None) -> GivenAnn:
    name = settings.ann
    if module is not None:
        return _in_hand(settings, module)
    if models.is_weights_file(name):
        if settings.model is None:
            raise InputError(f"{name} is a file of weights: name their architecture, as in --model resnet18")
        return _from_file(settings, settings.model, name)
    if names_model(name):
        if settings.model is not None:
            raise InputError(f"'{name}' is a model: --model is for a file of weights")
        return _from_model(settings, name)
    if not Path(name).is_dir():
        raise InputError(
            f"'{name}' is no run folder, no file of weights (.safetensors, .pt, .pth) and no model of `spikestill list "
            "models`"
        )
    return _from_run(settings, name)


def _from_run(settings: Settings, folder: str) -> GivenAnn:
    run = Run.open(folder)
    if run.kind != "model":
        raise InputError(f"{folder} holds a spiking network already: give the run of an ANN")
    of_a_model = (settings.model, settings.weights, *settings.model_options) != (None, None) or settings.width != 1
    if of_a_model:
        raise InputError(f"{folder} is a run, which knows its model, weights, width and model_options: leave these out")
    recipe = as_mapping(load(AnnRecipe, run.folder / "recipe.yaml"))
    fields = {name: recipe[name] for name in _OF_THE_RUN} | _data_fields(settings)
    fields |= {"student": recipe["model"], "teacher": folder}
    data = load_data(_recipe(fields))
    description = NetworkDescription.of_run(run)
    found = find_teacher(folder, data, "ANN")
    mean, std = settings.mean or found.mean, settings.std or found.std
    return GivenAnn(found.network, fields, _normalised(data, mean, std), folder, description.levels)


def _from_file(settings: Settings, model: str, path: str) -> GivenAnn:
    fields = _data_fields(settings) | {"student": model, "teacher": model, "teacher_weights": path}
    fields |= {"width": settings.width, "model_options": dict(settings.model_options)}
    recipe = _recipe(fields)
    data = load_data(recipe)
    found = find_source(path, data, NetworkDescription.of(recipe, data), "ANN")
    return GivenAnn(found.network, fields, _normalised(data, settings.mean or data.mean, settings.std or data.std))


def _from_model(settings: Settings, name: str) -> GivenAnn:
    if settings.weights is not None and settings.weights != "pretrained":
        return _from_file(settings, name, settings.weights)
    if settings.weights is None and name in models.names():
        raise InputError(f"{name} is an architecture without weights: give a run of it, or --weights FILE")
    fields = _data_fields(settings) | {"student": name, "teacher": name, "teacher_weights": settings.weights}
    fields |= {"width": settings.width, "model_options": dict(settings.model_options)}
    data = load_data(_recipe(fields))
    if training_it_needs(name, settings.weights, data) is not None:
        raise InputError(
            f"{name} has not learned the {data.num_classes} classes of {data.name}: fine-tune it first (spikestill "
            f"train ann --model {name} --pretrained true --data {data.name}) and give that run"
        )
    found = find_teacher(name, data, "ANN", weights=settings.weights)
    return GivenAnn(found.network, fields, _normalised(data, settings.mean or found.mean, settings.std or found.std))


def _in_hand(settings: Settings, module: nn.Module) -> GivenAnn:
    fields = _data_fields(settings) | {"student": settings.ann, "teacher": settings.ann}
    data = load_data(_recipe(fields))
    data = _normalised(data, settings.mean or data.mean, settings.std or data.std)
    return GivenAnn(copy.deepcopy(module).eval(), fields, data, in_hand=True)


def _data_fields(settings: Settings) -> dict[str, Any]:
    given = {"data": settings.data, "data_dir": settings.data_dir, "image_size": settings.image_size}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "data" not in fields and not Path(settings.ann).is_dir():
        raise InputError("name the data that the ANN was trained for, as in --data cifar10")
    return fields


def _recipe(fields: dict[str, Any]) -> DistillRecipe:
    """A recipe with these fields, by which the data are read."""
    return load(DistillRecipe, {"method": "auto", "objectives": [{"name": "logits"}]} | fields)


def _normalised(data: DataSet, mean: tuple[float, ...], std: tuple[float, ...]) -> DataSet:
    return dataclasses.replace(data, mean=mean, std=std)
