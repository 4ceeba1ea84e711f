"""Optimisers and learning-rate schedules, the same for teachers and students."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spikestill.recipes import Optimiser, Schedule

__all__ = ["Rate", "is_weight", "make_optimiser", "make_schedule", "parameter_groups"]


def is_weight(parameter: Tensor) -> bool:
    """Whether a parameter is a weight, which decays."""
    return parameter.ndim > 1


def parameter_groups(
    modules: Iterable[nn.Module], weight_decay: float, decays: Callable[[Tensor], bool] = is_weight
) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: weights, which decay, and all others, which do not.

    Weights are what has two axes or more. Biases, the scale and shift of normalisation, thresholds and leaks are
    scalars or vectors: decay would pull a threshold or a scale towards zero, which is no regularisation.
    """
    parameters = dict.fromkeys(parameter for module in modules for parameter in module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    weights = [parameter for parameter in trained if decays(parameter)]
    others = [parameter for parameter in trained if not decays(parameter)]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimiser(
    optimiser: Optimiser, modules: Iterable[nn.Module], decays: Callable[[Tensor], bool] = is_weight
) -> Optimizer:
    """The optimiser of everything trainable in ``modules``, as one fused kernel a step."""
    groups = parameter_groups(modules, optimiser.weight_decay, decays)
    if optimiser.name == "sgd":
        return torch.optim.SGD(
            groups, lr=optimiser.lr, momentum=optimiser.momentum, nesterov=optimiser.nesterov, fused=True
        )
    kind = torch.optim.Adam if optimiser.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=optimiser.lr, fused=True)


@dataclass(frozen=True)
class Rate:
    """The factor on the peak learning rate at each step.

    Attributes:
        schedule: its shape, in epochs.
        epochs: length of the training.
        steps_per_epoch: steps an epoch has.
    """

    schedule: Schedule
    epochs: int
    steps_per_epoch: int

    def __call__(self, step: int) -> float:
        """The factor for the step with this index (from 0)."""
        warmup = round(self.schedule.warmup * self.steps_per_epoch)
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule.name == "constant":
            return 1.0
        if self.schedule.name == "step":
            passed = sum(step >= milestone * self.steps_per_epoch for milestone in self.schedule.milestones)
            return float(self.schedule.factor**passed)
        length = max(self.epochs * self.steps_per_epoch - warmup, 1)
        done = min((step - warmup) / length, 1.0)
        return 1 - done if self.schedule.name == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def make_schedule(schedule: Schedule, optimiser: Optimizer, *, epochs: int, steps_per_epoch: int) -> LambdaLR:
    """The schedule that sets the learning rate of ``optimiser`` at every step."""
    rate = Rate(schedule, epochs, steps_per_epoch)
    # A plain function: an object's fields would go into the checkpoint, which may hold plain values only.
    return LambdaLR(optimiser, lambda step: rate(step))
