"""Densely connected networks (Huang et al. 2017, table 1: DenseNet-BC) with a stem for small images.

densenet121 has dense blocks of 6, 12, 24 and 16 layers, growth rate 32, bottlenecks of 4 x 32 channels and transitions
that halve the channels and, by a 2x2 pooling, the map. Its stem is one 3x3 convolution of stride 1 (in the place of the
7x7 one of stride 2 and the pooling behind it), with as many channels as twice the growth rate.

The stages are the modules ``stem``, ``layer1`` .. ``layer4``, ``head``. The published order (normalise, activate,
convolve) is kept, but each transition is divided behind its activation: its first half ends a stage, its convolution
and pooling open the next. So every stage ends in an activation, where a spiking network has its firing rates. (Without
BatchNorm the stem alone ends in its convolution, since the first activation is then that of the first dense layer.)

The width scales the growth rate. Where the map has shrunk to one pixel, a transition's pooling is left out, so every
image size works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikestill.models.layers import convolution, dropout, linear, normalisation, pooling, sequence
from spikestill.models.specification import OPTIONS, Specification

__all__ = ["BLOCKS", "TAKES", "DenseLayer", "build"]

TAKES = OPTIONS - {"stem"}

BLOCKS: dict[str, tuple[int, ...]] = {"densenet121": (6, 12, 24, 16)}
_GROWTH = 32


class DenseLayer(nn.Module):
    """A bottleneck whose new maps are appended to its input: ``[B, C, H, W]`` to ``[B, C + growth, H, W]``.

    Source: Huang et al. 2017, eq. 2 and "Bottleneck layers"; the dropout between the convolutions as in LaSNN,
    section III-A3.
    """

    def __init__(self, spec: Specification, inputs: int, growth: int) -> None:
        """Build the bottleneck: 1x1 convolution to four times the growth, 3x3 convolution to the growth."""
        super().__init__()
        self.branch = sequence(
            {
                "norm1": normalisation(spec, inputs),
                "relu1": nn.ReLU(),
                "conv1": convolution(spec, inputs, 4 * growth, kernel=1),
                "norm2": normalisation(spec, 4 * growth),
                "relu2": nn.ReLU(),
                "dropout": dropout(spec),
                "conv2": convolution(spec, 4 * growth, growth),
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """The input's maps ``[B, C, H, W]`` with the new ones behind them."""
        return torch.cat([images, self.branch(images)], dim=1)


def build(spec: Specification) -> nn.Sequential:
    """The dense network called ``spec.name``: images ``[B, C, H, W]`` to logits ``[B, K]``."""
    growth, size = spec.channels(_GROWTH), spec.image_size
    channels = 2 * growth
    stem: dict[str, nn.Module | None] = {"conv": convolution(spec, spec.in_channels, channels)}
    if spec.batch_norm:
        stem |= {"norm": normalisation(spec, channels), "relu": nn.ReLU()}
    modules: dict[str, nn.Module | None] = {"stem": sequence(stem)}
    for index, layers in enumerate(BLOCKS[spec.name], start=1):
        stage: dict[str, nn.Module | None] = {}
        if index > 1:
            stage["conv"] = convolution(spec, channels, channels // 2, kernel=1)
            stage["pool"], size = pooling(spec, size)
            channels //= 2
        for layer in range(1, layers + 1):
            stage[f"dense{layer}"] = DenseLayer(spec, channels, growth)
            channels += growth
        stage["norm"] = normalisation(spec, channels)
        stage["relu"] = nn.ReLU()
        modules[f"layer{index}"] = sequence(stage)
    modules["head"] = sequence(
        {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": linear(spec, channels, spec.num_classes),
        }
    )
    return sequence(modules)
