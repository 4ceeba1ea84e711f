"""Residual networks of basic blocks, with stems for small and for large images.

The stages are the modules ``stem``, ``layer1``, ``layer2``, ..., ``head``; each but the head ends in its activation:

========  ==================  ===================  ==================================================
name      blocks by stage     channels by stage    source
========  ==================  ===================  ==================================================
resnet12  1, 1, 1, 1          64 128 256 512       LaSNN (Hong et al.): three-conv stem, 3 + 8 + 1
resnet18  2, 2, 2, 2          64 128 256 512       He et al. 2016, table 1
resnet19  3, 3, 2             128 256 512          Zheng et al. 2021: hidden linear layer of 256 units
resnet20  3, 3, 3             16 32 64             He et al. 2016, section 4.2
resnet34  3, 4, 6, 3          64 128 256 512       He et al. 2016, table 1
========  ==================  ===================  ==================================================

Stems, each with as many channels as the first stage:

- ``cifar``: one 3x3 convolution of stride 1; the default for images of up to 64 pixels.
- ``imagenet``: one 7x7 convolution of stride 2; then a pooling by 2: 3x3 overlapping for ``max``, as published, 2x2 for
  ``average``. The default for larger images.
- ``three-conv``: three 3x3 convolutions of stride 1 with a dropout between two (LaSNN, section III-A3, in the place of
  the 7x7 one), then a 2x2 pooling; the default of resnet12, whose name counts it.

The stem's pooling opens ``layer1``, so that the stem, too, ends in its activation; it is left out for an image of one
pixel. Strided convolutions are padded, so every image size works. A block is conv, activation, dropout, conv, plus the
block's input (through a 1x1 convolution where the shape changes), into one activation (LaSNN, section III-A3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from spikestill.models.layers import convolution, dropout, linear, normalisation, pooling, sequence
from spikestill.models.specification import OPTIONS, Specification
from spikestill.types import InputError

__all__ = ["PLANS", "TAKES", "BasicBlock", "Plan", "build"]

TAKES = OPTIONS


@dataclass(frozen=True)
class Plan:
    """A residual network's blocks and channels by stage, its hidden linear units (0: none) and its default stem."""

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: int = 0
    stem: str | None = None


PLANS: dict[str, Plan] = {
    "resnet12": Plan((1, 1, 1, 1), (64, 128, 256, 512), stem="three-conv"),
    "resnet18": Plan((2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet19": Plan((3, 3, 2), (128, 256, 512), hidden=256),
    "resnet20": Plan((3, 3, 3), (16, 32, 64)),
    "resnet34": Plan((3, 4, 6, 3), (64, 128, 256, 512)),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, summed into one activation: ``[B, C, H, W]`` to ``[B, C', H', W']``.

    Source: He et al. 2016, fig. 2; the dropout between the convolutions as in LaSNN, section III-A3.
    """

    def __init__(self, spec: Specification, inputs: int, outputs: int, stride: int) -> None:
        """Build the block; the shortcut is the input itself where the shape stays."""
        super().__init__()
        self.branch = sequence(
            {
                "conv1": convolution(spec, inputs, outputs, stride=stride),
                "norm1": normalisation(spec, outputs),
                "relu": nn.ReLU(),
                "dropout": dropout(spec),
                "conv2": convolution(spec, outputs, outputs),
                "norm2": normalisation(spec, outputs),
            }
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = convolution(spec, inputs, outputs, kernel=1, stride=stride)
            self.shortcut = sequence({"conv": projection, "norm": normalisation(spec, outputs)})
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """The block's activation for feature maps ``[B, C, H, W]``."""
        return self.relu(self.branch(images) + self.shortcut(images))


def build(spec: Specification) -> nn.Sequential:
    """The residual network called ``spec.name``: images ``[B, C, H, W]`` to logits ``[B, K]``.

    Raises:
        InputError: max pooling where the stem has no pooling, so that the option would do nothing.
    """
    plan = PLANS[spec.name]
    spec = replace(spec, stem=spec.stem or plan.stem or ("cifar" if spec.image_size <= 64 else "imagenet"))
    if spec.stem == "cifar" and spec.pooling == "max":
        raise InputError(
            f"model '{spec.name}' has no pooling behind its 'cifar' stem: leave out pooling='max' or change the stem"
        )
    channels = [spec.channels(base) for base in plan.channels]
    modules: dict[str, nn.Module | None] = {"stem": _stem(spec, channels[0])}
    inputs = channels[0]
    for index, (blocks, outputs) in enumerate(zip(plan.blocks, channels, strict=True), start=1):
        stage: dict[str, nn.Module | None] = {"pool": _stem_pooling(spec) if index == 1 else None}
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and index > 1 else 1
            stage[f"block{block}"] = BasicBlock(spec, inputs, outputs, stride)
            inputs = outputs
        modules[f"layer{index}"] = sequence(stage)
    modules["head"] = _head(spec, inputs, plan.hidden)
    return sequence(modules)


def _stem(spec: Specification, outputs: int) -> nn.Sequential:
    if spec.stem != "three-conv":
        kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
        conv = convolution(spec, spec.in_channels, outputs, kernel=kernel, stride=stride)
        return sequence({"conv": conv, "norm": normalisation(spec, outputs), "relu": nn.ReLU()})
    modules: dict[str, nn.Module | None] = {}
    inputs = spec.in_channels
    for index in (1, 2, 3):
        modules[f"conv{index}"] = convolution(spec, inputs, outputs)
        modules[f"norm{index}"] = normalisation(spec, outputs)
        modules[f"relu{index}"] = nn.ReLU()
        modules[f"dropout{index}"] = dropout(spec) if index < 3 else None
        inputs = outputs
    return sequence(modules)


def _stem_pooling(spec: Specification) -> nn.Module | None:
    if spec.stem == "cifar":
        return None
    if spec.stem == "three-conv":
        return pooling(spec, spec.image_size)[0]
    halved = (spec.image_size + 1) // 2
    if spec.pooling == "max" and halved > 1:
        return nn.MaxPool2d(3, stride=2, padding=1)
    return pooling(spec, halved)[0]


def _head(spec: Specification, inputs: int, hidden: int) -> nn.Sequential:
    modules: dict[str, nn.Module | None] = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    if hidden:
        units = spec.channels(hidden)
        modules |= {"linear": linear(spec, inputs, units), "relu": nn.ReLU(), "dropout": dropout(spec)}
        inputs = units
    modules["classifier"] = linear(spec, inputs, spec.num_classes)
    return sequence(modules)
