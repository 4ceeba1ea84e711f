"""Networks whose activations are far from degenerate, and such that only a conversion meets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.nn import IF
from tests.graph import networks
from tests.graph.networks import SHAPE

PUBLISHED = {"by": "layer", "start": "rest"}
"""One threshold a layer and a start at rest, as most of the papers have it."""

CONVERGING = [name for name in networks.NETWORKS if name != "max pooling"]
"""The networks that become exact with time: the maximum of spikes is not the spikes' maximum."""


class IdentityShortcut(nn.Module):
    """A residual sum of a convolution and of spikes, which no layer can bring to its scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(x + self.conv2(self.relu1(self.conv1(x))))


class Gathering(nn.Module):
    """Outputs of convolutions, gathered for a BatchNorm that follows no layer of its own (a DenseNet's)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 2, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(5)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv1(x)
        maps = torch.cat([maps, self.conv2(self.relu1(self.norm1(maps)))], 1)
        return self.relu2(self.norm2(maps))


class Arithmetic(nn.Module):
    """Constants that are added, multiplied and divided by; spikes that meet spikes; a bounded activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU6(), nn.ReLU()
        self.gain, self.offset = nn.Parameter(torch.rand(4, 1, 1) + 0.5), nn.Parameter(torch.rand(4, 1, 1) / 10)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.relu1(self.conv1(x) + 0.1), self.relu2(self.conv2(x) * 9)
        return self.relu3(one * self.gain + two / 3 - x + self.offset)


OWN: dict[str, Callable[[], nn.Module]] = {
    "identity shortcut": lambda: networks._network(IdentityShortcut(), IdentityShortcut(), channels=4),
    "gathering": lambda: networks._network(Gathering(), channels=5),
    "arithmetic": lambda: networks._network(Arithmetic(), channels=4),
}
ALL = [*CONVERGING, *OWN]


def trained_like(name: str) -> nn.Module:
    """A network of that name, in evaluation mode, in which every layer is active and no two have the same scale."""
    networks.NETWORKS.update(OWN)
    try:
        ann = networks.network(name).eval()
    finally:
        for own in OWN:
            del networks.NETWORKS[own]
    with torch.no_grad():
        for module in ann.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(1.5)
                if module.bias is not None:
                    module.bias.uniform_(-0.1, 0.2)
    return ann


def pair(name: str, timesteps: int = 8, **options: object) -> tuple[nn.Module, SpikingNetwork]:
    """A trained ANN, and the spiking network to convert, which was made of it."""
    ann = trained_like(name)
    options = {"neuron": IF(), **options}
    return ann, to_spiking(ann, input_shape=SHAPE, timesteps=timesteps, **options).eval()  # type: ignore[arg-type]


def images(count: int = 8) -> Tensor:
    """Calibration images in [0, 1]."""
    return torch.rand(count, *SHAPE)
