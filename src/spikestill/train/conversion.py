"""A student that starts from a trained ANN: the recipe's conversion on the recipe's images."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from spikestill.convert import convert
from spikestill.data import Batches, DataSet
from spikestill.graph import SpikingNetwork
from spikestill.recipes import DistillRecipe, NetworkDescription
from spikestill.recipes.networks import build_neuron

__all__ = ["converted_student"]

_BATCH = 64


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
    student = dataclasses.replace(description, spiking=spiking).make_spiking(ann).to(device).eval()
    images = data.train.subset(torch.arange(min(recipe.conversion.images, len(data.train))))
    batches = Batches(images, batch_size=_BATCH, mean=description.mean, std=description.std, device=device)
    with torch.random.fork_rng(devices=[]):  # a drawn encoding leaves the training's random numbers as they were
        convert(student, ann.to(device), batches, recipe.initialise, **recipe.conversion.options)
    for name, converted in list(student.neurons()):
        neuron = build_neuron(recipe.neuron).to(device)
        neuron.set_threshold(converted.threshold.item())
        neuron.set_initial(converted.initial)
        student.body.set_submodule(name, neuron)
    return student.train()
