"""Chains of convolutions: the small conv net and the VGGs, sized for small images.

Weight layers, by stage (convolutions, each with its ReLU) and head (hidden linear layers, each with its ReLU, then the
classifier); the stages are the modules ``layer1``, ``layer2``, ..., the rest is ``head``:

======  ============================================================  ==================
name    3x3 convolutions, ``|`` between stages                        hidden linear
======  ============================================================  ==================
conv3   64 | 128 | 256                                                512
vgg5    64 | 128 128                                                  512
vgg7    64 | 128 128 | 256 256                                        512
vgg9    64 | 128 256 | 256 512 | 512 512                              512
vgg11   64 | 128 | 256 256 | 512 512 | 512 512                        512 512
vgg13   64 64 | 128 128 | 256 256 | 512 512 | 512 512                 512 512
vgg16   64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512     512 512
wide8   32 64 | 64 256 | 256 256 | 256                                none
======  ============================================================  ==================

So conv3 is "3 conv, 2 linear", and the number in a VGG's name counts its weight layers, classifier included. vgg11,
vgg13 and vgg16 are configurations A, B and D of Simonyan and Zisserman 2015, with 512 instead of 4096 hidden units, as
is usual for CIFAR; LaSNN (Hong et al.) names vgg5, vgg7 and vgg9 without their lists: these are our own, in the manner
of Rathi et al. 2020. wide8 is ours too: seven convolutions whose widths are laid out for speed, in the manner of the
networks that are trained on CIFAR-10 in seconds (Jordan 2024); few wide layers make good use of bf16 and of sparse
convolutions. It averages its last map, where the others flatten it.

A 2x2 pooling opens each stage but the first, and the head. It stands there, and not at the end of a stage, so that
every stage ends in its activation: behind it are the firing rates of a spiking network, at full resolution. Where the
map has shrunk to one pixel, later poolings are left out, so every image size works; the head adapts to what arrives.
Dropout follows each activation that feeds a further weight layer of its stage or the head.
"""

from __future__ import annotations

from torch import nn

from spikestill.models.layers import convolution, dropout, linear, normalisation, pooling, sequence
from spikestill.models.specification import OPTIONS, Specification

__all__ = ["HIDDEN", "STAGES", "TAKES", "build"]

TAKES = OPTIONS - {"stem"}

STAGES: dict[str, tuple[tuple[int, ...], ...]] = {
    "conv3": ((64,), (128,), (256,)),
    "vgg5": ((64,), (128, 128)),
    "vgg7": ((64,), (128, 128), (256, 256)),
    "vgg9": ((64,), (128, 256), (256, 512), (512, 512)),
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "wide8": ((32, 64), (64, 256), (256, 256), (256,)),
}
HIDDEN: dict[str, tuple[int, ...]] = {
    "conv3": (512,),
    "vgg5": (512,),
    "vgg7": (512,),
    "vgg9": (512,),
    "vgg11": (512, 512),
    "vgg13": (512, 512),
    "vgg16": (512, 512),
    "wide8": (),
}


def build(spec: Specification) -> nn.Sequential:
    """The conv net or VGG called ``spec.name``: images ``[B, C, H, W]`` to logits ``[B, K]``.

    Its stages are ``layer1``, ``layer2``, ..., ``head``.
    """
    modules: dict[str, nn.Module | None] = {}
    inputs, size = spec.in_channels, spec.image_size
    for index, widths in enumerate(STAGES[spec.name], start=1):
        opening, size = (None, size) if index == 1 else pooling(spec, size)
        outputs = tuple(spec.channels(width) for width in widths)
        modules[f"layer{index}"] = _stage(spec, opening, inputs, outputs)
        inputs = outputs[-1]
    if HIDDEN[spec.name]:
        opening, size = pooling(spec, size)
    else:
        opening, size = nn.AdaptiveAvgPool2d(1), 1
    modules["head"] = _head(spec, opening, inputs * size * size)
    return sequence(modules)


def _stage(spec: Specification, opening: nn.Module | None, inputs: int, outputs: tuple[int, ...]) -> nn.Sequential:
    modules: dict[str, nn.Module | None] = {"pool": opening}
    for index, channels in enumerate(outputs, start=1):
        modules[f"conv{index}"] = convolution(spec, inputs, channels)
        modules[f"norm{index}"] = normalisation(spec, channels)
        modules[f"relu{index}"] = nn.ReLU()
        # Pooling alone separates two stages: a dropout behind the last activation would hide the stage's rates.
        modules[f"dropout{index}"] = dropout(spec) if index < len(outputs) else None
        inputs = channels
    return sequence(modules)


def _head(spec: Specification, opening: nn.Module | None, inputs: int) -> nn.Sequential:
    modules: dict[str, nn.Module | None] = {"pool": opening, "flatten": nn.Flatten()}
    for index, base in enumerate(HIDDEN[spec.name], start=1):
        units = spec.channels(base)
        modules[f"linear{index}"] = linear(spec, inputs, units)
        modules[f"relu{index}"] = nn.ReLU()
        modules[f"dropout{index}"] = dropout(spec)
        inputs = units
    modules["classifier"] = linear(spec, inputs, spec.num_classes)
    return sequence(modules)
