"""Seconds of a training step, measured: what precision and memory layout are faster, and what the plan rests on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch

from spikestill.graph import SpikingNetwork
from spikestill.recipes import DistillRecipe
from spikestill.train.auto.context import Context
from spikestill.train.optimisation import make_optimiser

__all__ = ["faster_layout", "seconds_per_image_step", "seconds_per_step"]

_IMAGES = 50
_TIMESTEPS = 4

_STEPS = 2
_WORTH_IT = 0.9
"""bf16 is taken where its step needs at most this share of float32's: it rounds, and has to be worth that."""

FLOAT32: dict[str, Any] = {"precision": "float32", "channels_last": False}
BF16: dict[str, Any] = {"precision": "bf16", "channels_last": True}


def faster_layout(context: Context, recipe: DistillRecipe) -> dict[str, Any]:
    """The precision and layout to train in, the seconds of a step in it, and those of the other one."""
    asked = context.settings.precision
    tried = [BF16] if asked == "bf16" else [FLOAT32] if asked == "float32" else [FLOAT32, BF16]
    seconds = {
        layout["precision"]: seconds_per_step(context, dataclasses.replace(recipe, **layout)) for layout in tried
    }
    chosen = tried[0]
    if len(tried) > 1 and seconds["bf16"] <= _WORTH_IT * seconds["float32"]:
        chosen = BF16
    return {"layout": chosen, "seconds": seconds, "seconds_per_step": seconds[chosen["precision"]]}


def seconds_per_image_step(context: Context, network: SpikingNetwork, precision: str = "float32") -> float:
    """What evaluation takes for one image in one time step."""
    batches = context.validation(_IMAGES)
    context.measure(network, batches, (1,), precision)
    began = _now(context.device)
    context.measure(network, batches, (_TIMESTEPS,), precision)
    return (_now(context.device) - began) / (min(_IMAGES, len(context.ann.data.validation)) * _TIMESTEPS)


def seconds_per_step(context: Context, recipe: DistillRecipe) -> float:
    """What one training step of all T takes, its batch included: the mean of a few, after one that warms up."""
    recipe = dataclasses.replace(recipe, train_timesteps="all")
    learner, batches = context.learner(context.limited(recipe, (1 + _STEPS) * recipe.batch_size))
    learner.train()
    optimiser = make_optimiser(recipe.optimiser, learner.trained)
    endless = _endless(batches)
    began = 0.0
    for index in range(1 + _STEPS):
        if index == 1:
            began = _now(context.device)
        loss = learner.training_step(next(endless), index)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return (_now(context.device) - began) / _STEPS


def _endless(batches: Any) -> Iterator[Any]:
    while True:
        yield from batches


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
