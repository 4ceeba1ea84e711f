"""Networks of which an exchange format has to express something that it has no word for."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikestill as ss
from spikestill.graph import SpikingNetwork
from tests.graph import networks

SHAPE = networks.SHAPE


class Function(nn.Module):
    """A function of a signal, as a user writes it in a forward pass."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.gain = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.map = nn.Parameter(torch.rand(4, 8, 8) + 0.5)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def between(
    function: Callable[..., Tensor], channels: int = 4, **modules: Callable[[], nn.Module]
) -> Callable[[], nn.Module]:
    """Networks in which the function stands between two layers of neurons."""

    def make() -> nn.Module:
        own = {name: make_module() for name, make_module in modules.items()}
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            Function(function, **own),
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        )

    return make


def _convolution(kernel: Any = 3, *geometry: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(4, 4, kernel, *geometry, **options)


_CONV = _convolution(padding=1)
_NORM = functools.partial(nn.BatchNorm2d, 4)


EXACT: dict[str, Callable[[], nn.Module]] = {
    "norm behind a sum": between(lambda self, x: self.norm(x + self.conv(x)), conv=_CONV, norm=_NORM),
    "number on a shortcut": between(lambda self, x: 0.7 * x + self.conv(x), conv=_CONV),
    "vector on a shortcut": between(lambda self, x: x * self.gain + self.conv(x), conv=_CONV),
    "map on a shortcut": between(lambda self, x: x * self.map + self.conv(x), conv=_CONV),
    "division": between(lambda self, x: self.conv(x) / 3, conv=_CONV),
    "difference": between(lambda self, x: self.conv(x) - x, conv=_CONV),
    "negation": between(lambda self, x: -x + self.conv(x), conv=_CONV),
    "constants": between(lambda self, x: 0.1 + self.conv(x) - self.gain * 0.2 + x, conv=_CONV),
    "constant on spikes": between(lambda self, x: x + 0.3),
    "the same signal twice": between(lambda self, x: x + x + 0.2),
    "a signal in a sum of sums": between(lambda self, x: x + (self.conv(x) + x), conv=_CONV),
    "in place": between(lambda self, x: operator.iadd(self.conv(x), x), conv=_CONV),
    "concatenation": between(lambda self, x: torch.cat([x, self.conv(x), x], dim=-3), 12, conv=_CONV),
    "padding that does not count": between(
        lambda self, x: self.pool(x), pool=functools.partial(nn.AvgPool2d, 3, 2, 1, count_include_pad=False)
    ),
    "pooling by a function": between(lambda self, x: functional.avg_pool2d(x, 2, stride=2)),
    "divisor of a pooling": between(
        lambda self, x: self.pool(x), pool=functools.partial(nn.AvgPool2d, 2, divisor_override=3)
    ),
    "adaptive pooling to a map": between(lambda self, x: functional.adaptive_avg_pool2d(x, (4, 2))),
    "ceil without an effect": between(
        lambda self, x: self.pool(x), pool=functools.partial(nn.AvgPool2d, 2, ceil_mode=True)
    ),
    "uneven kernel and strides": between(lambda self, x: self.conv(x), conv=_convolution((3, 1), (2, 1), (1, 0))),
    "depthwise": between(lambda self, x: self.conv(x), conv=_convolution(padding=1, groups=4, bias=False)),
    "two readers of a sum": between(
        lambda self, x: self.conv(x + self.norm(x)) + (x + self.norm(x)), conv=_CONV, norm=_NORM
    ),
}

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "maximum": (
        between(lambda self, x: self.pool(x), pool=functools.partial(nn.MaxPool2d, 2)),
        r"'2.pool' \(MaxPool2d\): NIR knows no maximum.*max_pool='average'",
    ),
    "ragged windows": (
        between(lambda self, x: functional.adaptive_avg_pool2d(x, 3)),
        r"'2' \(adaptive_avg_pool2d\): windows of .* differ in size",
    ),
    "windows beyond the map": (
        between(lambda self, x: self.pool(x), pool=functools.partial(nn.AvgPool2d, 3, 3, ceil_mode=True)),
        r"'2.pool' \(AvgPool2d\): .*ceil_mode=False",
    ),
    "padding of one side": (
        between(lambda self, x: self.conv(x), conv=_convolution(2, padding="same")),
        r"'2.conv' \(Conv2d\): its padding differs from side to side",
    ),
    "padding by reflection": (
        between(lambda self, x: self.conv(x), conv=_convolution(padding=1, padding_mode="reflect")),
        r"'2.conv' \(Conv2d\): padding is 0 in the formats, not 'reflect'",
    ),
    "uneven kernel": (
        between(lambda self, x: self.conv(x), conv=_convolution((2, 3))),
        r"'2.conv' \(Conv2d\): NIR's tools take a kernel of \(2, 3\) for a square one",
    ),
    "upsampling": (
        between(lambda self, x: self.up(x), up=functools.partial(nn.Upsample, scale_factor=2)),
        r"'2.up' \(Upsample\): no format has an equivalent",
    ),
    "a constant map": (
        between(lambda self, x: x + self.map),
        r"'2' \(add\): an added constant must be one number a channel",
    ),
    "concatenated rows": (
        between(lambda self, x: torch.cat([x, x], 2)),
        r"'2' \(cat\): only channels can be concatenated",
    ),
    "transposition": (
        between(lambda self, x: x.transpose(2, 3)),
        r"'2' \(transpose\): no format has an equivalent",
    ),
    "sum by stretching": (
        between(lambda self, x: x + functional.adaptive_avg_pool2d(x, 1)),
        r"'2' \(add\): its operands have different shapes",
    ),
}


def unsettled(ann: nn.Module, weight: tuple[float, float], bias: tuple[float, float]) -> nn.Module:
    """The model in evaluation mode, its normalisations off their starting point."""
    with torch.no_grad():
        for module in ann.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.uniform_(*weight)
                module.bias.uniform_(*bias)
    return ann.eval()


def spiking(made: nn.Module, neuron: ss.LIF | None = None, **options: Any) -> SpikingNetwork:
    """The spiking network of a model, in evaluation mode, with statistics off their starting point."""
    made = unsettled(made, (0.5, 1.5), (-0.2, 0.5))
    given = {"neuron": neuron or ss.LIF(0.5, 0.15), "input_shape": SHAPE, **options}
    return ss.to_spiking(made, **given).eval()


def resnet20(neuron: ss.LIF, timesteps: int = 4) -> SpikingNetwork:
    """A CIFAR ResNet-20 whose random weights and statistics let every layer spike."""
    ann = ss.models.create("resnet20", num_classes=10)
    ann = unsettled(ann, (0.8, 1.4), (-0.1, 0.4))
    return ss.to_spiking(ann, neuron=neuron, timesteps=timesteps, input_shape=(3, 32, 32)).eval()
