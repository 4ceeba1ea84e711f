"""Small networks, each with something that a transformation of the graph could get wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.nn import LIF

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """A block as torchvision writes it: one in-place ReLU, called twice."""

    def __init__(self, channels: int, out: int, normalise: bool = True) -> None:
        super().__init__()
        kind: Callable[[int], nn.Module] = nn.BatchNorm2d if normalise else lambda _: nn.Identity()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=not normalise)
        self.bn1 = kind(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=not normalise)
        self.bn2 = kind(out)
        self.shortcut = nn.Conv2d(channels, out, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return self.relu(out)


class Dense(nn.Module):
    """Concatenation, a functional ReLU and a functional pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + 4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        more = functional.relu(self.conv1(x))
        x = torch.cat([x, more], 1)
        return functional.avg_pool2d(functional.relu(self.conv2(x)), 2)


class Twice(nn.Module):
    """One convolution, normalisation and activation, called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.shared(x))


class Careful(nn.Module):
    """Decides by sizes, switches and options, as forwards of one's own do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.linear, self.scale = nn.Linear(4, 5), nn.Parameter(torch.rand(1, 4, 1, 1))

    def forward(self, x: Tensor, mask: Tensor | None = None, return_features: bool = False) -> Tensor:
        assert x.dim() == x.ndim == len(x.shape) == 4
        batch, channels, height, width = x.size()
        assert channels == 3
        x = self.relu(self.norm(self.conv(x)))
        if mask is not None:
            x = x * mask
        if x.shape[-1] > 4 and height == width:
            x = functional.avg_pool2d(x, x.size(2) - 3)
        if self.scale.shape[1] == x.shape[1]:
            x = x * self.scale
        features = x.reshape(batch, x.shape[1], -1).mean(-1)
        return features if return_features else self.linear(features)


def _network(*middle: nn.Module, channels: int, stem: int = 4, normalise: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, stem, 3, padding=1),
        nn.BatchNorm2d(stem) if normalise else nn.Identity(),
        nn.ReLU(),
        *middle,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 5),
    )


def _convolutions(channels: int, **options: object) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, **options), nn.ReLU())  # type: ignore[arg-type]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: _network(_convolutions(4, padding=1), channels=4, normalise=False),
    "normalised": lambda: _network(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), channels=4),
    "normalised without affine": lambda: _network(
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), channels=4
    ),
    "residual": lambda: _network(Residual(4, 6), Residual(6, 4), channels=4),
    "residual without normalisation": lambda: _network(Residual(4, 6, False), channels=6, normalise=False),
    "dense": lambda: _network(Dense(4), Dense(5), channels=5),
    "average pooling": lambda: _network(nn.AvgPool2d(3, 2, 1), _convolutions(4), channels=4),
    "max pooling": lambda: _network(nn.MaxPool2d(3, 2, 1), _convolutions(4), channels=4),
    "shared": lambda: _network(Twice(4), channels=4),
    "grouped": lambda: _network(_convolutions(4, groups=2, stride=2, padding=1), channels=4),
    "dilated": lambda: _network(_convolutions(4, dilation=2, padding=2), channels=4),
    "same padding": lambda: _network(_convolutions(4, padding="same"), channels=4),
    "circular padding": lambda: _network(_convolutions(4, padding=1, padding_mode="circular"), channels=4),
    "dropout": lambda: _network(nn.Dropout(0.4), _convolutions(4), nn.Dropout2d(0.3), channels=4),
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 12), nn.ReLU(), nn.Linear(12, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5)
    ),
}


def network(name: str) -> nn.Module:
    """A new network, its normalisations off their starting point."""
    made = NETWORKS[name]()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.2, 0.5)
    return made


def spiking(name: str, neuron: LIF | None = None, timesteps: int = 4, **options: object) -> SpikingNetwork:
    """The spiking network of a new one, with a threshold at which every layer spikes, in float32."""
    given = neuron or LIF(leak=0.5, threshold=0.15)
    return to_spiking(network(name), neuron=given, timesteps=timesteps, input_shape=SHAPE, **options)  # type: ignore[arg-type]


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Clones of the gradients of all parameters that have one."""
    return {name: item.grad.clone() for name, item in module.named_parameters() if item.grad is not None}
