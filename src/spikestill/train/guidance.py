"""The student's side of a distillation: the student, its teacher and the objectives, checked against each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikestill import graph, objectives
from spikestill.data import Batches, DataSet
from spikestill.nn import Events
from spikestill.recipes import DistillRecipe, NetworkDescription
from spikestill.train.conversion import converted_student
from spikestill.train.learner import DistillLearner
from spikestill.train.loaders import place
from spikestill.train.origins import Meter, origins_of
from spikestill.train.processes import ALONE, Processes
from spikestill.train.teachers import Teacher, find_source, find_teacher, frozen, rescaling
from spikestill.types import InputError

__all__ = ["find_start", "guided_learner", "initial_student", "refuse_unfit"]


def guided_learner(
    recipe: DistillRecipe,
    data: DataSet,
    description: NetworkDescription,
    student: graph.SpikingNetwork | None,
    teacher_ann: nn.Module | None,
    device: torch.device,
    batches: Batches,
    processes: Processes = ALONE,
    meter: Meter | None = None,
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
        processes: those that train together.
        meter: told of the networks that the student comes from, before anything is made of them.

    Raises:
        InputError: when student, teacher, data and objectives do not fit each other.
    """
    teacher = _teacher(recipe, data, teacher_ann)
    source = find_start(recipe, data, description) if student is None else None
    guide = rescale = None
    if teacher is not None:
        guide = place(frozen(teacher.network, data), device, recipe.channels_last)
        refuse_unfit("teacher", guide, data, device)
        rescale = rescaling(description, teacher, device)
    if source is not None:
        refuse_unfit("source", source.network, data, torch.device("cpu"))
    if meter is not None:
        meter.meet(origins_of(recipe, teacher, source))
    if student is None:
        student = initial_student(recipe, data, description, source or teacher, device)
    student = place(student, device, recipe.channels_last)
    refuse_unfit("student", student, data, device)
    terms = [
        objectives.create(term.name, student=student, teacher=guide, input_shape=data.input_shape, **term.options).to(
            device
        )
        for term in recipe.objectives
    ]
    learner = DistillLearner(
        student,
        recipe,
        objectives=terms,
        teacher=guide,
        rescale=rescale,
        batches=batches,
        processes=processes,
    )
    learner.remember_teacher()
    return learner


def _teacher(recipe: DistillRecipe, data: DataSet, ann: nn.Module | None) -> Teacher | None:
    if ann is not None:
        return Teacher(ann, data.mean, data.std)
    if recipe.teacher is None:
        return None
    return find_teacher(recipe.teacher, data, may_spike=recipe.learns_from_spikes, weights=recipe.teacher_weights)


def find_start(recipe: DistillRecipe, data: DataSet, description: NetworkDescription) -> Teacher | None:
    """The ANN that the recipe names as the student's ``source``; None where it names none.

    Raises:
        InputError: as :func:`find_source`.
    """
    if recipe.source is None:
        return None
    return find_source(recipe.source, data, description, new_classifier=not recipe.converts)


def initial_student(
    recipe: DistillRecipe,
    data: DataSet,
    description: NetworkDescription,
    source: Teacher | None,
    device: torch.device,
) -> graph.SpikingNetwork:
    """The student as it is before the first training step: random, with the ANN's weights, or converted.

    Args:
        recipe: with ``initialise``.
        data: whose training images calibrate a conversion.
        description: of the student.
        source: the ANN it starts from: the recipe's source, or else its teacher; None where it starts at random.
        device: where a conversion runs.

    Raises:
        InputError: for a source of another architecture or scale of pixels, and whatever the conversion refuses.
    """
    ann = description.build_ann()
    if recipe.initialise == "random":
        return description.make_spiking(ann)
    assert source is not None
    if recipe.converts and (source.mean, source.std) != (description.mean, description.std):
        raise InputError(_of_another_scale(recipe, source))
    if recipe.initialise == "quantise":  # its activations have parameters of their own
        return converted_student(recipe, data, description, source.network, device)
    try:
        ann.load_state_dict(source.network.state_dict())
    except RuntimeError as error:
        raise InputError(
            f"initialise: {recipe.initialise} needs an ANN of the student's architecture and width; "
            f"{recipe.student} is another ({str(error).splitlines()[1].strip()})"
        ) from error
    if not recipe.converts:
        return description.make_spiking(ann)
    return converted_student(recipe, data, description, ann, device)


def _of_another_scale(recipe: DistillRecipe, source: Teacher) -> str:
    mean, std = (",".join(f"{value:g}" for value in values) for values in (source.mean, source.std))
    way_out = f"convert it with --mean {mean} --std {std}"
    if recipe.pixels == "signed":
        way_out = "train it with --pixel-scale signed"
    return (
        f"the ANN that is converted was trained on pixels of another scale than the student's ({recipe.pixels}): "
        f"{way_out}"
    )


def refuse_unfit(who: str, network: nn.Module, data: DataSet, device: torch.device) -> None:
    """Run one black image through a network to see its classes and whether it takes these images.

    Raises:
        InputError: when it does not, or its classes are not the data's.
    """
    try:
        with graph.evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
            classes = network(_black(network, data).to(device)).shape[-1]
    except RuntimeError as error:
        raise InputError(
            f"the {who} does not take images {data.input_shape} (C, H, W) of {data.name}: {str(error).splitlines()[0]}"
        ) from error
    if classes != data.num_classes:
        raise InputError(f"the {who} has {classes} classes, the data {data.name} has {data.num_classes}")


def _black(network: nn.Module, data: DataSet) -> Tensor:
    """One black image, or the frames of a recording in which nothing happened."""
    black = torch.zeros(1, *data.input_shape)
    takes_frames = isinstance(network, graph.SpikingNetwork) and isinstance(network.encoder, Events)
    return black.expand(data.frames or 1, *black.shape) if takes_frames else black
