"""What a run records beside its result: how its network answers, layer by layer and sample by sample.

A few samples serve for what is dear: of all that is here only the teacher's answers need another pass over the images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx, nn

from spikestill import analysis, graph
from spikestill.analysis import Answers
from spikestill.data import DataSet
from spikestill.graph.cut import node_named
from spikestill.objectives import Guide
from spikestill.objectives.points import map_pairs
from spikestill.progress import Progress, tracked
from spikestill.recipes import DistillRecipe, NetworkDescription, Recipe
from spikestill.report import evidence
from spikestill.report.evidence import Evidence, Picture
from spikestill.train.loaders import make_batches
from spikestill.train.pictures import images_at, map_picture, pictures
from spikestill.train.teachers import Scaled, Teacher, find_teacher
from spikestill.types import InputError

if TYPE_CHECKING:
    from spikestill.train.measuring import Measurement

__all__ = ["Guides", "gathered", "guides"]

_SAMPLES = 8
_MISTAKES = 24
_LARGEST_MAP = 28
_MOST_CLASSES = 128
"""Up to which the confusion matrix is kept."""
_RASTER_LAYERS = 4


@dataclass(frozen=True)
class Guides:
    """The networks that a student comes from, where they are at hand.

    Attributes:
        teacher: whose answers and attention are shown: the teacher, or else what was converted; one of the origins.
        origins: with whose activations the rates may be compared, the most likely one first.
    """

    teacher: Teacher | None = None
    origins: tuple[Teacher, ...] = ()


def guides(recipe: Recipe, data: DataSet, teacher: nn.Module | None = None) -> Guides:
    """The networks that a recipe names as runs.

    Args:
        recipe: of the student, or of an ANN, which has none.
        data: that they are shown.
        teacher: a trained ANN that was given in place of a name.
    """
    if not isinstance(recipe, DistillRecipe):
        return Guides()
    source = _found(recipe.source, data, "source")
    taught = Teacher(teacher, data.mean, data.std) if teacher is not None else _found(recipe.teacher, data, "teacher")
    return Guides(taught or source, tuple(one for one in (source, taught) if one is not None))


def gathered(
    recipe: Recipe,
    data: DataSet,
    description: NetworkDescription,
    network: nn.Module,
    measured: Measurement,
    known: Guides,
    device: torch.device,
) -> Evidence:
    """The evidence of a network.

    Args:
        recipe: of its run.
        data: with the test images.
        description: of the network.
        network: in evaluation mode, on ``device``.
        measured: what it did on the test images.
        known: the networks that it comes from.
        device: where it is.
    """
    answers = measured.answers
    calibration = analysis.calibration(answers.confidence[-1], answers.correct[-1])
    origins = [Scaled.of(one, data, description, device) for one in known.origins]
    teacher = None if known.teacher is None else origins[known.origins.index(known.teacher)]
    taught = None if teacher is None else _answers_of(teacher, recipe, data, description, device)
    found = Evidence(
        images=len(answers.labels),
        classes=data.class_names,
        calibration_error=calibration.error,
        bins=tuple(evidence.ConfidenceBin(**dataclasses.asdict(one)) for one in calibration.bins),
        confusion=_confusion(answers, data.num_classes),
    )
    if taught is not None and isinstance(recipe, DistillRecipe):
        agreement = (taught.predicted[-1] == answers.predicted[-1]).double().mean().item()
        name = str(recipe.teacher or recipe.source)
        found = dataclasses.replace(found, teacher=evidence.Teacher(name, taught.accuracy(), agreement))
    if isinstance(network, graph.SpikingNetwork):
        found = _of_spikes(found, network, measured)
    # Where files were left out, an answer's place is not its image's any more.
    return (
        found
        if len(answers.labels) < len(data.test)
        else _of_images(found, data, description, network, answers, taught, teacher, origins, device)
    )


def _of_images(
    found: Evidence,
    data: DataSet,
    description: NetworkDescription,
    network: nn.Module,
    answers: Answers,
    taught: Answers | None,
    teacher: Scaled | None,
    origins: Sequence[Scaled],
    device: torch.device,
) -> Evidence:
    """With what is shown of single test images: samples, their maps and spikes, and mistakes."""
    rows, wrong = _sample_rows(answers.labels), _surest_mistakes(answers)
    images, progress = images_at(data, description, rows, device), Progress("looking at single images", 3, "parts")
    with torch.no_grad():
        found = dataclasses.replace(
            found,
            samples=tuple(
                evidence.Sample(picture, **_said(row, answers, taught))
                for row, picture in zip(rows.tolist(), pictures(images, description), strict=True)
            ),
            attention=_attention(network, teacher, images, data),
        )
        progress.show(1)
        if len(wrong):
            shown = pictures(images_at(data, description, wrong, device), description)
            mistakes = tuple(
                evidence.Mistake(
                    picture,
                    **_said(row, answers, taught),
                    confidence=round(answers.confidence[-1, row].item(), 6),
                )
                for row, picture in zip(wrong.tolist(), shown, strict=True)
            )
            found = dataclasses.replace(found, mistakes=mistakes)
        progress.show(2)
        if isinstance(network, graph.SpikingNetwork):
            found = _of_spiking_images(found, network, origins, images)
        progress.show(3)
    return found


def _found(name: str | None, data: DataSet, who: Literal["teacher", "source"]) -> Teacher | None:
    """The network of a run that is still there; published weights are not fetched again for this."""
    if name is None or not Path(name).is_dir():
        return None
    try:
        return find_teacher(name, data, who, may_spike=True)
    except InputError:
        return None


def _answers_of(
    teacher: Scaled, recipe: Recipe, data: DataSet, description: NetworkDescription, device: torch.device
) -> Answers | None:
    """None where every image would have to be decoded once more for it."""
    batches = make_batches(recipe, data, description, "test", device)
    if not batches.holds_images:
        return None
    shown = tracked(batches, "asking the teacher about the test images")
    return analysis.answers(teacher.network, ((teacher.scaled(images), labels) for images, labels in shown))


def _confusion(answers: Answers, num_classes: int) -> tuple[tuple[int, ...], ...]:
    if num_classes > _MOST_CLASSES:
        return ()
    counts = analysis.confusion_matrix(answers.predicted[-1], answers.labels, num_classes)
    return tuple(map(tuple, counts.tolist()))


def _surest_mistakes(answers: Answers) -> Tensor:
    """The images of which it is wrong with the highest confidence, int64."""
    wrong = (~answers.correct[-1]).nonzero().flatten()
    return wrong[answers.confidence[-1][wrong].argsort(descending=True, stable=True)][:_MISTAKES]


def _sample_rows(labels: Tensor) -> Tensor:
    """The first image of each class, of as many classes as there are samples."""
    rows = [int((labels == label).nonzero()[0]) for label in labels.unique().tolist()[:_SAMPLES]]
    return torch.tensor(rows)


def _said(row: int, answers: Answers, taught: Answers | None) -> dict[str, Any]:
    """What an image is, and what student and teacher take it for."""
    return {
        "label": int(answers.labels[row]),
        "predicted": int(answers.predicted[-1, row]),
        "teacher_predicted": None if taught is None else int(taught.predicted[-1, row]),
    }


def _of_spikes(found: Evidence, network: graph.SpikingNetwork, measured: Measurement) -> Evidence:
    """With what only a spiking network has."""
    exits = analysis.early_exit(measured.answers)
    return dataclasses.replace(
        found,
        timesteps=network.timesteps,
        early_exit=tuple(evidence.EarlyExit(**dataclasses.asdict(one)) for one in exits),
        layers=tuple(evidence.Layer(name, **dataclasses.asdict(one)) for name, one in measured.layers.items()),
    )


def _of_spiking_images(
    found: Evidence, network: graph.SpikingNetwork, origins: Sequence[Scaled], images: Tensor
) -> Evidence:
    """With the distance of rates and activations, and a raster."""
    rates = analysis.firing_rates(network, images)
    errors: Mapping[str, float] = {}
    for origin in origins:
        if not errors and isinstance(origin.network, fx.GraphModule):
            errors = analysis.rate_errors(rates, origin.network, origin.scaled(images))
    names = [layer.name for layer in found.layers]
    spread = torch.linspace(0, len(names) - 1, min(_RASTER_LAYERS, len(names))).round().long().unique().tolist()
    raster = analysis.spike_raster(network, images, [names[place] for place in spread])
    return dataclasses.replace(
        found,
        layers=tuple(dataclasses.replace(layer, rate_error=errors.get(layer.name)) for layer in found.layers),
        raster=tuple(
            evidence.RasterLayer(name, tuple(evidence.SpikeTrain(*train) for train in neurons.items()))
            for name, neurons in raster.items()
        ),
    )


def _attention(
    network: nn.Module, teacher: Scaled | None, images: Tensor, data: DataSet
) -> tuple[evidence.MapPair, ...]:
    """Maps at the network's levels and at those of the teacher that correspond; none where there are no maps."""
    try:
        own = network if isinstance(network, graph.SpikingNetwork) else graph.trace(network, data.input_shape).eval()
        other = own if teacher is None else teacher.network
        pairs = map_pairs("report", _graph_of(own), _graph_of(other), None)
    except InputError:
        return ()
    here = _maps(own, images, [point for point, _ in pairs])
    there = {} if teacher is None else _maps(other, teacher.scaled(images), [point for _, point in pairs])
    return tuple(
        evidence.MapPair(point, here[point], None if teacher is None else mate, there.get(mate, ()))
        for point, mate in pairs
    )


def _graph_of(network: Guide) -> fx.GraphModule:
    return network.body if isinstance(network, graph.SpikingNetwork) else network


def _maps(network: Guide, images: Tensor, points: Sequence[str]) -> dict[str, tuple[Picture, ...]]:
    if isinstance(network, graph.SpikingNetwork):
        rates = analysis.firing_rates(network, images)
        features = {point: rates[str(node_named(network.body, point).target)] for point in points}
    else:
        features = dict(graph.record(network, images, taps=points).features)
    return {point: tuple(map(map_picture, analysis.attention_map(features[point], _LARGEST_MAP))) for point in points}
