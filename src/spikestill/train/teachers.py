"""Trained ANNs by name: a run folder, a function of the user's, or published weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from spikestill import models
from spikestill.data import DataSet
from spikestill.recipes import NetworkDescription
from spikestill.runs import Run
from spikestill.types import InputError

__all__ = ["Teacher", "find_teacher"]

_IMAGENET_CLASSES = 1000
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Teacher:
    """A trained network.

    Attributes:
        network: the ANN, or the spiking network, in evaluation mode.
        mean: channel means that its inputs are normalised with, on the [0, 1] scale.
        std: channel standard deviations, likewise.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find_teacher(name: str, data: DataSet, who: str = "teacher", may_spike: bool = False) -> Teacher:
    """The teacher that a recipe names.

    Args:
        name: a run folder; ``python:PACKAGE.MODULE:FUNCTION`` for a function that returns a trained network; for data
            of ImageNet's classes also ``timm:NAME`` and ``torchvision:NAME`` with published weights.
        data: what it is to teach.
        who: what it is called where it is refused.
        may_spike: whether the run may be that of a spiking network.

    Raises:
        InputError: when it is neither, is a spiking network and may not be, or has other classes or channels than the
            data.
    """
    if name.startswith("python:"):
        wanted = NetworkDescription(
            model=name,
            num_classes=data.num_classes,
            input_shape=data.input_shape,
            mean=data.mean,
            std=data.std,
            class_names=data.class_names,
        )
        return Teacher(wanted.build_ann(), data.mean, data.std)
    if name.startswith(("timm:", "torchvision:")):
        return _published_teacher(name, data, who)
    if not Path(name).is_dir():
        raise InputError(f"the {who} '{name}' is no run folder: train one with `spikestill train`")
    run = Run.open(name)
    description = NetworkDescription.of_run(run)
    if description.spiking is not None and not may_spike:
        raise InputError(f"the {who} {name} is a spiking network: give the run of an ANN")
    if description.num_classes != data.num_classes:
        raise InputError(f"the {who} {name} knows {description.num_classes} classes, the data has {data.num_classes}")
    if description.input_shape != data.input_shape:
        raise InputError(
            f"the {who} {name} takes images {description.input_shape} (C, H, W), the data has {data.input_shape}"
        )
    if description.frames != data.frames:
        raise InputError(
            f"the {who} {name} was trained on {_seen(description.frames)}, the data has {_seen(data.frames)}: "
            "give both the same events.frames"
        )
    return Teacher(description.load(run), description.mean, description.std)


def _seen(frames: int | None) -> str:
    return "images" if frames is None else f"{frames} frames a recording"


def _published_teacher(name: str, data: DataSet, who: str) -> Teacher:
    if (data.num_classes, data.input_shape[0]) != (_IMAGENET_CLASSES, 3):
        raise InputError(
            f"the {who} {name} knows the {_IMAGENET_CLASSES} classes of ImageNet, not the {data.num_classes} of "
            f"{data.name}: fine-tune it with `spikestill train --model {name} --pretrained true` and give that run"
        )
    ann = models.create(name, num_classes=_IMAGENET_CLASSES, image_size=data.input_shape[1], pretrained=True)
    # timm says with which statistics each of its weights was trained; torchvision's all share ImageNet's.
    published = getattr(ann, "pretrained_cfg", {})
    mean, std = published.get("mean", _IMAGENET_MEAN), published.get("std", _IMAGENET_STD)
    return Teacher(ann.eval(), tuple(mean), tuple(std))
