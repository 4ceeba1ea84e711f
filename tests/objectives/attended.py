"""A small student and teacher with maps at three resolutions, for the tests of attention."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from spikestill.graph import SpikingNetwork, to_spiking, trace
from spikestill.nn import LIF

SHAPE = (3, 8, 8)
LABELS = torch.tensor([0, 3, 1, 4])


class Levelled(nn.Module):
    def __init__(self, width: int, first_stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, width, 3, first_stride, 1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()
        self.conv3, self.relu3 = nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * (2 // first_stride) ** 2, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.head(self.relu3(self.conv3(x)))


def pair(gradient: str = "rate", timesteps: int = 3) -> tuple[SpikingNetwork, fx.GraphModule]:
    """A narrow student, and a teacher as ``train`` hands it over: traced, frozen, in evaluation mode."""
    student = to_spiking(
        Levelled(4),
        neuron=LIF(threshold=0.1),
        timesteps=timesteps,
        gradient=gradient,  # type: ignore[arg-type]
        input_shape=SHAPE,
    )
    return student, trace(Levelled(6), SHAPE).eval().requires_grad_(False)


def reached(student: SpikingNetwork) -> set[str]:
    """The layers whose weights have a gradient that is not zero."""
    return {
        name.split(".")[1]
        for name, parameter in student.named_parameters()
        if parameter.grad is not None and float(parameter.grad.abs().sum()) > 0
    }
