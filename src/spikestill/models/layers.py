"""The few layers that every built-in model is made of, and their initialisation."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from spikestill.models.specification import Specification

__all__ = ["convolution", "dropout", "initialise", "linear", "normalisation", "pooling", "sequence"]


def sequence(modules: dict[str, nn.Module | None]) -> nn.Sequential:
    """The named modules one after another; what is None is left out."""
    return nn.Sequential(OrderedDict((name, module) for name, module in modules.items() if module is not None))


def convolution(spec: Specification, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the map's size at stride 1: ``[B, inputs, H, W]`` to ``[B, outputs, H', W']``."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=spec.convolution_bias)


def linear(spec: Specification, inputs: int, outputs: int) -> nn.Linear:
    """A fully connected layer: ``[B, inputs]`` to ``[B, outputs]``."""
    return nn.Linear(inputs, outputs, bias=spec.linear_bias)


def normalisation(spec: Specification, channels: int) -> nn.BatchNorm2d | None:
    """The BatchNorm of ``channels`` maps, or None for a model without."""
    return nn.BatchNorm2d(channels) if spec.batch_norm else None


def dropout(spec: Specification) -> nn.Dropout | None:
    """The dropout between two weight layers, or None at probability 0, so that nothing idle is in the graph."""
    return nn.Dropout(spec.dropout) if spec.dropout > 0 else None


def pooling(spec: Specification, size: int) -> tuple[nn.Module | None, int]:
    """Halve a map of ``size`` x ``size`` pixels; a map of one pixel is left alone.

    Returns:
        The 2x2 pooling of the asked kind, or None, and the size of the map behind it.
    """
    if size < 2:
        return None, size
    return (nn.MaxPool2d(2) if spec.pooling == "max" else nn.AvgPool2d(2)), size // 2


def initialise(model: nn.Module) -> None:
    """Draw every weight as He et al. 2015 (eq. 10, fan-in, normal) and set every bias to 0, in place.

    No BatchNorm's scale starts at 0, as is common for the last one of a residual block: a spiking network would
    start with silent branches, whose surrogate gradients vanish.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
