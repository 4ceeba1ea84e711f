"""What starts from a trained ANN by way of calibration images: converted students, and ANNs that are quantised."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from spikestill.convert import convert, quantised
from spikestill.data import Batches, DataSet
from spikestill.graph import SpikingNetwork
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription
from spikestill.recipes.networks import build_neuron
from spikestill.train.teachers import find_source
from spikestill.types import InputError

__all__ = ["converted_student", "trainable_ann"]

_BATCH = 64
_IMAGES = 256
"""From which the thresholds of quantised activations start."""


def converted_student(
    recipe: DistillRecipe,
    data: DataSet,
    description: NetworkDescription,
    ann: nn.Module,
    device: torch.device,
) -> SpikingNetwork:
    """The student, with the weights, thresholds and potentials that the conversion of ``ann`` gives it.

    Neurons are converted without a leak, and take the recipe's afterwards (methods 4: stages 2 and 3 of LaSNN).

    Args:
        recipe: with an ``initialise`` that converts.
        data: its training images calibrate, the first ones of them, as they are.
        description: of the student.
        ann: trained, of the student's architecture, on inputs scaled as the student's.
        device: where the calibration runs.

    Raises:
        InputError: for whatever the method refuses.
    """
    assert description.spiking is not None
    leakless = dataclasses.replace(recipe.neuron, name="if", learn=())
    spiking = dataclasses.replace(description.spiking, neuron=leakless)
    student = dataclasses.replace(description, spiking=spiking).build().to(device).eval()
    assert isinstance(student, SpikingNetwork)
    batches = _first(data, recipe.conversion.images, description, device)
    # What is trained further is read out from the first step on: rate gradients are of the mean of all.
    options = ({"read_out_from": 1} if recipe.epochs else {}) | recipe.conversion.options
    with torch.random.fork_rng(devices=[]):  # a drawn encoding leaves the training's random numbers as they were
        convert(student, ann.to(device), batches, recipe.initialise, **options)
    for name, converted in list(student.neurons()):
        neuron = build_neuron(recipe.neuron).to(device)
        neuron.set_threshold(converted.threshold.item())
        neuron.set_initial(converted.initial)
        student.body.set_submodule(name, neuron)
    return student.train()


def trainable_ann(recipe: AnnRecipe, data: DataSet, description: NetworkDescription, device: torch.device) -> nn.Module:
    """The ANN that a recipe trains, with the weights it starts from, and quantised where it is to be.

    Raises:
        InputError: for a start of another architecture, and an activation that no image drives.
    """
    ann = description.build_ann(pretrained=recipe.pretrained)
    if recipe.start is not None:
        start = find_source(recipe.start, data, description, "start", new_classifier=True)
        try:
            ann.load_state_dict(start.network.state_dict())
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise InputError(f"the start {recipe.start} is no {recipe.model} of this width ({reason})") from error
    if recipe.levels is None:
        return ann
    batches = _first(data, _IMAGES, description, device)
    return quantised(ann.to(device), batches, levels=recipe.levels).train()


def _first(data: DataSet, count: int, description: NetworkDescription, device: torch.device) -> Batches:
    images = data.train.subset(torch.arange(min(count, len(data.train))))
    return Batches(
        images,
        batch_size=_BATCH,
        mean=description.mean,
        std=description.std,
        device=device,
        merge_frames=not description.takes_frames,
        unreadable=data.unreadable,
    )
