"""Trained ANNs by name: a run folder, a model with weights from a file or as published, or a function of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikestill import graph, models
from spikestill.data import DataSet
from spikestill.objectives import Guide
from spikestill.recipes import NetworkDescription
from spikestill.runs import Run
from spikestill.types import InputError

__all__ = [
    "PUBLISHED",
    "Scaled",
    "Teacher",
    "find_source",
    "find_teacher",
    "frozen",
    "names_model",
    "rescaling",
    "training_it_needs",
]

PUBLISHED = "pretrained"
"""In the place of a file: the weights that timm and torchvision publish."""

_IMAGENET_CLASSES = 1000
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_LIBRARIES = ("timm:", "torchvision:")


@dataclass(frozen=True)
class Teacher:
    """A trained network.

    Attributes:
        network: the ANN, or the spiking network, in evaluation mode.
        mean: channel means that its inputs are normalised with, on the [0, 1] scale.
        std: channel standard deviations, likewise.
        knows_classes: whether it has learned the data's classes; otherwise its classifier is a new one.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    knows_classes: bool = True


@dataclass(frozen=True)
class Scaled:
    """A trained network that is shown a student's images, at the scale that it knows.

    Attributes:
        network: the ANN's graph, or the spiking network.
        rescale: factor and shift ``[C, 1, 1]``; None where both scales are the same.
    """

    network: Guide
    rescale: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, teacher: Teacher, data: DataSet, student: NetworkDescription, device: torch.device) -> Scaled:
        """The teacher of a student, on a device."""
        return cls(frozen(teacher.network, data).to(device), rescaling(student, teacher, device))

    def scaled(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` or ``[T, B, C, H, W]``, normalised for the student, as this network takes them."""
        if images.ndim == 5 and not isinstance(self.network, graph.SpikingNetwork):
            images = images.mean(0)  # an ANN sees all that happened as one image
        return images if self.rescale is None else images * self.rescale[0] + self.rescale[1]


def names_model(name: str) -> bool:
    """Whether ``name`` is that of an architecture, and not of a run."""
    return name.startswith((*_LIBRARIES, "python:")) or name in models.names()


def training_it_needs(name: str, weights: str | None, data: DataSet) -> dict[str, Any] | None:
    """What a model must learn before it can teach: fields of an ANN's recipe; None where its weights know the classes.

    Args:
        name: of a model (see :func:`names_model`).
        weights: a file, "pretrained", or None.
        data: what it is to teach.

    Raises:
        InputError: for a file that cannot be read or does not fit the model.
    """
    if weights is not None and weights != PUBLISHED:
        ann = _described(name, data).build_ann()
        fresh = models.fitted_weights(ann, weights, num_classes=data.num_classes).classifier
        return None if fresh is None else {"model": name, "start": weights}
    if not name.startswith(_LIBRARIES) or _is_imagenet(data):
        return None
    return {"model": name, "pretrained": weights == PUBLISHED}


def find_teacher(
    name: str, data: DataSet, who: str = "teacher", may_spike: bool = False, weights: str | None = None
) -> Teacher:
    """The teacher that a recipe names.

    Args:
        name: a run folder; a model, whose ``weights`` are named beside it; ``python:PACKAGE.MODULE:FUNCTION`` for a
            function that returns a trained network; for data of ImageNet's classes also ``timm:NAME`` and
            ``torchvision:NAME`` alone, with published weights.
        data: what it is to teach.
        who: what it is called where it is refused.
        may_spike: whether the run may be that of a spiking network.
        weights: of a model: a file, whose network takes pixels normalised as the data's are, or "pretrained".

    Raises:
        InputError: when it is neither, is a spiking network and may not be, or has other classes or channels than the
            data.
    """
    if weights is not None and not names_model(name):
        raise InputError(f"{who}_weights are those of a model, such as timm:resnet18, but the {who} is '{name}'")
    if weights is not None and weights != PUBLISHED:
        return find_source(weights, data, _described(name, data), who)
    if name.startswith(_LIBRARIES):
        return _published_teacher(name, data, who)
    if name.startswith("python:") or weights == PUBLISHED:
        ann = _described(name, data).build_ann(pretrained=weights == PUBLISHED)
        return Teacher(ann.eval(), data.mean, data.std)
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


def find_source(
    name: str, data: DataSet, wanted: NetworkDescription, who: str = "source", *, new_classifier: bool = False
) -> Teacher:
    """The trained ANN, of a known architecture, that another training starts from.

    Args:
        name: a run folder, a file of weights, "pretrained", or python:PACKAGE.MODULE:FUNCTION, which returns it.
        data: what the training is on.
        wanted: the architecture, and how its pixels are normalised.
        who: what it is called where it is refused.
        new_classifier: whether a classifier that does not know the data's classes may be replaced by a new one (which
            is said).

    Raises:
        InputError: as :func:`find_teacher`, and where the classifier may not be replaced.
    """
    if name == PUBLISHED:
        if not new_classifier and not _is_imagenet(data):
            raise InputError(_untaught(f"the {who}, published weights of {wanted.model},", _IMAGENET_CLASSES, data))
        ann = wanted.build_ann(pretrained=True)
        mean, std = _published_scale(ann) if data.input_shape[0] == 3 else (wanted.mean, wanted.std)
        return Teacher(ann.eval(), mean, std, knows_classes=_is_imagenet(data))
    if name == wanted.model and name.startswith("python:"):  # with the options and the width that are wanted
        return Teacher(wanted.build_ann().eval(), wanted.mean, wanted.std)
    if not models.is_weights_file(name):
        return find_teacher(name, data, who)
    ann = wanted.build_ann()
    fitted = models.load_weights(ann, name, num_classes=data.num_classes)
    if fitted.classifier is not None and not new_classifier:
        raise InputError(_untaught(f"the {who} {name}", "other", data))
    return Teacher(ann.eval(), wanted.mean, wanted.std, knows_classes=fitted.classifier is None)


def _described(name: str, data: DataSet) -> NetworkDescription:
    return NetworkDescription(
        model=name,
        num_classes=data.num_classes,
        input_shape=data.input_shape,
        mean=data.mean,
        std=data.std,
        class_names=data.class_names,
        frames=data.frames,
    )


def _published_teacher(name: str, data: DataSet, who: str) -> Teacher:
    if not _is_imagenet(data):
        raise InputError(_untaught(f"the {who} {name}", _IMAGENET_CLASSES, data))
    ann = _described(name, data).build_ann(pretrained=True)
    return Teacher(ann.eval(), *_published_scale(ann))


def _published_scale(ann: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that published weights were trained with.

    timm says which for each of its weights; torchvision's all share ImageNet's.
    """
    published: Any = getattr(ann, "pretrained_cfg", {})
    return tuple(published.get("mean", _IMAGENET_MEAN)), tuple(published.get("std", _IMAGENET_STD))


def _is_imagenet(data: DataSet) -> bool:
    return (data.num_classes, data.input_shape[0]) == (_IMAGENET_CLASSES, 3)


def _untaught(what: str, classes: object, data: DataSet) -> str:
    known = f"the {classes} classes of ImageNet" if classes == _IMAGENET_CLASSES else "other classes"
    return (
        f"{what} knows {known}, not the {data.num_classes} of {data.name}: fine-tune it with `spikestill train` "
        "(--pretrained true, or --start FILE) and give that run"
    )


def frozen(network: nn.Module, data: DataSet) -> Guide:
    """A teacher as objectives take it: the ANN's graph with its BatchNorm folded, or the spiking network."""
    network.eval()
    if not isinstance(network, graph.SpikingNetwork):
        network = graph.fold(graph.trace(network, data.input_shape).eval(), strict=False)
    return network.requires_grad_(False)


def rescaling(student: NetworkDescription, teacher: Teacher, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Factor and shift ``[C, 1, 1]`` from the student's normalisation to the teacher's; None where they agree."""
    if (student.mean, student.std) == (teacher.mean, teacher.std):
        return None
    own_mean, own_std, mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None]
        for values in (student.mean, student.std, teacher.mean, teacher.std)
    )
    factor, shift = own_std / std, (own_mean - mean) / std
    return factor.float().to(device), shift.float().to(device)
