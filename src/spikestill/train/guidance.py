"""The student's side of a distillation: the student, its teacher and the objectives, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from spikestill import graph, models, objectives
from spikestill.data import Batches, DataSet
from spikestill.recipes import DistillRecipe, NetworkDescription
from spikestill.runs import Run
from spikestill.train.conversion import converted_student
from spikestill.train.learner import DistillLearner
from spikestill.train.loaders import place
from spikestill.types import InputError

__all__ = ["Teacher", "find_teacher", "guided_learner"]

_IMAGENET_CLASSES = 1000
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Teacher:
    """A trained ANN.

    Attributes:
        ann: the network, in evaluation mode.
        mean: channel means that its inputs are normalised with, on the [0, 1] scale.
        std: channel standard deviations, likewise.
    """

    ann: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find_teacher(name: str, data: DataSet, who: str = "teacher") -> Teacher:
    """The teacher that a recipe names.

    Args:
        name: a run folder; ``python:PACKAGE.MODULE:FUNCTION`` for a function that returns a trained network; for data
            of ImageNet's classes also ``timm:NAME`` and ``torchvision:NAME`` with published weights.
        data: what it is to teach.
        who: what it is called where it is refused.

    Raises:
        InputError: when it is neither, is a spiking network, or has other classes or channels than the data.
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
    if description.spiking is not None:
        raise InputError(f"the {who} {name} is a spiking network: give the run of an ANN")
    if description.num_classes != data.num_classes:
        raise InputError(f"the {who} {name} knows {description.num_classes} classes, the data has {data.num_classes}")
    if description.input_shape != data.input_shape:
        raise InputError(
            f"the {who} {name} takes images {description.input_shape} (C, H, W), the data has {data.input_shape}"
        )
    return Teacher(description.load(run), description.mean, description.std)


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


def guided_learner(
    recipe: DistillRecipe,
    data: DataSet,
    description: NetworkDescription,
    student: graph.SpikingNetwork | None,
    teacher_ann: nn.Module | None,
    device: torch.device,
    batches: Batches,
) -> DistillLearner:
    """Everything that trains the student, on its device.

    Args:
        recipe: how.
        data: on what.
        description: of the student.
        student: the spiking network; None builds the recipe's.
        teacher_ann: a trained ANN; None loads the recipe's, if it names one.
        device: where.
        batches: of the training images.

    Raises:
        InputError: when student, teacher, data and objectives do not fit each other.
    """
    teacher = _teacher(recipe, data, teacher_ann)
    if student is None:
        student = _student(recipe, data, description, teacher, device)
    student = place(student, device, recipe.channels_last)
    _refuse_unfit("student", student, data, device)
    traced = rescale = None
    if teacher is not None:
        traced = graph.fold(graph.trace(teacher.ann.eval(), data.input_shape).eval(), strict=False)
        traced.requires_grad_(False)
        traced = place(traced, device, recipe.channels_last)
        _refuse_unfit("teacher", traced, data, device)
        rescale = _rescale(description, teacher, device)
    terms = [
        objectives.create(term.name, student=student, teacher=traced, input_shape=data.input_shape, **term.options).to(
            device
        )
        for term in recipe.objectives
    ]
    return DistillLearner(
        student,
        recipe,
        objectives=terms,
        teacher=traced,
        rescale=rescale,
        batches=batches,
    )


def _teacher(recipe: DistillRecipe, data: DataSet, ann: nn.Module | None) -> Teacher | None:
    if ann is not None:
        return Teacher(ann, data.mean, data.std)
    return None if recipe.teacher is None else find_teacher(recipe.teacher, data)


def _student(
    recipe: DistillRecipe,
    data: DataSet,
    description: NetworkDescription,
    teacher: Teacher | None,
    device: torch.device,
) -> graph.SpikingNetwork:
    source = find_teacher(recipe.source, data, "source") if recipe.source is not None else teacher
    ann = description.build_ann()
    if recipe.initialise == "random":
        return description.make_spiking(ann)
    assert source is not None
    try:
        ann.load_state_dict(source.ann.state_dict())
    except RuntimeError as error:
        raise InputError(
            f"initialise: {recipe.initialise} needs an ANN of the student's architecture and width; "
            f"{recipe.student} is another ({str(error).splitlines()[1].strip()})"
        ) from error
    if not recipe.converts:
        return description.make_spiking(ann)
    if (source.mean, source.std) != (description.mean, description.std):
        raise InputError(
            f"the ANN that is converted was trained on pixels of another scale than the student's ({recipe.pixels}): "
            f"train it with --pixel-scale {recipe.pixels}"
        )
    return converted_student(recipe, data, description, ann, device)


def _refuse_unfit(who: str, network: nn.Module, data: DataSet, device: torch.device) -> None:
    """Run one black image through a network to see its classes and whether it takes these images.

    Raises:
        InputError: when it does not, or its classes are not the data's.
    """
    try:
        with graph.evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
            classes = network(torch.zeros(1, *data.input_shape, device=device)).shape[-1]
    except RuntimeError as error:
        raise InputError(
            f"the {who} does not take images {data.input_shape} (C, H, W) of {data.name}: {str(error).splitlines()[0]}"
        ) from error
    if classes != data.num_classes:
        raise InputError(f"the {who} has {classes} classes, the data {data.name} has {data.num_classes}")


def _rescale(student: NetworkDescription, teacher: Teacher, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Factor and shift ``[C, 1, 1]`` from the student's normalisation to the teacher's; None where they agree."""
    if (student.mean, student.std) == (teacher.mean, teacher.std):
        return None
    own_mean, own_std, mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None]
        for values in (student.mean, student.std, teacher.mean, teacher.std)
    )
    factor, shift = own_std / std, (own_mean - mean) / std
    return factor.float().to(device), shift.float().to(device)
