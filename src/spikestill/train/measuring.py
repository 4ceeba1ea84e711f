"""The figures of a trained network, by ``analysis``, as plain values; and the measuring of a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikestill import analysis
from spikestill.data import DataSet
from spikestill.graph import SpikingNetwork
from spikestill.nn import Poisson
from spikestill.progress import tracked
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription, Recipe, load
from spikestill.report.evidence import Evidence
from spikestill.runs import Run
from spikestill.train.evidence import gathered, guides
from spikestill.train.loaders import load_data, make_batches, resolve_device
from spikestill.train.processes import ALONE, Processes, together
from spikestill.trust import consent
from spikestill.types import InputError

__all__ = ["TEST_SEED", "Measurement", "evaluate", "evidence_of", "examine", "examine_run", "recipe_of"]

TEST_SEED = 0
"""Of the spikes that an encoder draws while a network is measured, so that a second measurement finds the same."""


@dataclass(frozen=True)
class Measurement:
    """What a network did on a set of images.

    Attributes:
        figures: accuracy and, of a spiking network, accuracy at every time step, spikes, firing rates, operations of
            one image and their energy in nJ (estimates, see ``analysis.Operations``), by name.
        answers: to every image, at every time step.
        layers: by neuron layer, how active it was; empty of an ANN.
    """

    figures: dict[str, Any]
    answers: analysis.Answers
    layers: Mapping[str, analysis.LayerActivity]


def examine(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: str,
    device: torch.device,
    processes: Processes,
    timesteps: Sequence[int] | None = None,
    title: str = "measuring the network",
    total: int | None = None,
) -> Measurement:
    """Measure a network.

    What an encoder draws is drawn with ``TEST_SEED``; the random numbers that follow are as if nothing were drawn.

    Args:
        network: in evaluation mode, on ``device``.
        batches: what to measure it on; of several processes each has its shard.
        precision: float32 or bf16.
        device: where.
        processes: those that measure together; every one of them returns the same.
        timesteps: the numbers of steps to read the network out at; by default every one up to its own T.
        title: what is done, for the progress.
        total: how many batches there are, where these do not say so.
    """
    shown = tracked(batches, title, total)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        shared = None if processes.count == 1 else processes
        if not isinstance(network, SpikingNetwork):
            answers = analysis.answers(network, shown, shared)
            return Measurement({"accuracy": answers.accuracy()}, answers, {})
        steps = tuple(timesteps or range(1, network.timesteps + 1))
        with _seeded(network, device, processes):
            found = analysis.evaluate(network, shown, timesteps=steps, processes=shared)
    figures = {
        "accuracy": found.accuracy[max(steps)],
        "accuracy_by_timestep": {str(step): found.accuracy[step] for step in sorted(steps)},
        "spikes_per_neuron": found.spikes_per_neuron,
        "rates": dict(found.rates),
        "synaptic_operations": found.operations.accumulates,
        "multiply_accumulates": found.operations.multiply_accumulates,
        "ann_multiply_accumulates": found.operations.ann_multiply_accumulates,
        "energy_nanojoules": found.operations.energy(),
        "ann_energy_nanojoules": found.operations.ann_energy(),
        "operations_by_layer": {name: dataclasses.asdict(layer) for name, layer in found.operations.layers.items()},
        "operations_not_counted": list(found.operations.uncounted),
    }
    return Measurement(figures, found.answers, found.layers)


@contextlib.contextmanager
def _seeded(network: SpikingNetwork, device: torch.device, processes: Processes) -> Iterator[None]:
    encoder = network.encoder
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(processes.own_seed(TEST_SEED))
        if not isinstance(encoder, Poisson):
            yield
            return
        before, encoder.random_state = encoder.random_state, None
        processes.draw_apart(encoder, device)
        try:
            yield
        finally:
            encoder.random_state = before


def evaluate(
    folder: str | Path,
    *,
    timesteps: Sequence[int] | None = None,
    split: Literal["test", "validation"] = "test",
    data: str | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Measure a run's network; if that is on its own test images at all its time steps, renew its ``analysis.json``.

    Args:
        folder: the run.
        timesteps: as for :func:`examine`.
        split: test or validation.
        data: other data than the run's, with the same classes.
        data_dir: where named data sets lie, if elsewhere than at training.
        device: cpu, cuda or auto.
        precision: float32 or bf16; by default that of the training.
        trust_code: import and call a ``python:`` function that the run names.

    Returns:
        The figures of a :class:`Measurement`, and the number of images.

    Raises:
        InputError: when run or data cannot be used, or do not fit each other.
    """
    run = Run.open(folder)
    recipe = recipe_of(run, data, data_dir)
    processes = together(device)
    images, where = load_data(recipe, processes), resolve_device(device, processes)
    with consent(trust_code=trust_code):
        description, network = _loaded(run, recipe, images, where)
    if processes.is_first:
        _remark_on_steps(run, recipe, description, timesteps)
    measured = _examined(recipe, images, description, network, where, processes, split, timesteps, precision)
    if processes.is_first and split == "test" and data is None and timesteps is None:
        with consent(trust_code=trust_code):
            evidence = evidence_of(recipe, images, description, network, measured, where)
        try:
            evidence.write(run)
        except InputError as error:  # a folder that can only be read: its figures are wanted all the same
            logging.getLogger("spikestill").info("%s", error)
    return measured.figures | {"images": len(getattr(images, split))}


def _remark_on_steps(
    run: Run, recipe: Recipe, description: NetworkDescription, timesteps: Sequence[int] | None
) -> None:
    """Say that a network is shown images for longer than it was trained for; a conversion alone is no training."""
    if description.spiking is None or not recipe.epochs or max(timesteps or [0]) <= description.spiking.timesteps:
        return
    own = description.spiking.timesteps
    logging.getLogger("spikestill").info(
        f"{run.folder} was trained for {own} time step{'s' * (own > 1)}: what it answers at t > {own} it has not "
        "learned, and it can be worse"
    )


def recipe_of(run: Run, data: str | None = None, data_dir: str | None = None) -> Recipe:
    """The recipe of a run, with data that may lie elsewhere now."""
    recipe = load(AnnRecipe if run.kind == "model" else DistillRecipe, run.folder / "recipe.yaml")
    return dataclasses.replace(recipe, data=data or recipe.data, data_dir=data_dir or recipe.data_dir)


def examine_run(run: Run, recipe: Recipe, images: DataSet, device: str = "auto") -> Measurement:
    """What a run's network does on its test images, which are loaded already; nothing is written."""
    where = resolve_device(device)
    description, network = _loaded(run, recipe, images, where)
    return _examined(recipe, images, description, network, where)


def _examined(
    recipe: Recipe,
    images: DataSet,
    description: NetworkDescription,
    network: nn.Module,
    device: torch.device,
    processes: Processes = ALONE,
    split: Literal["test", "validation"] = "test",
    timesteps: Sequence[int] | None = None,
    precision: str | None = None,
) -> Measurement:
    batches = make_batches(recipe, images, description, split, device, processes)
    precision = precision or recipe.precision
    return examine(network, batches, precision=precision, device=device, processes=processes, timesteps=timesteps)


def evidence_of(
    recipe: Recipe,
    data: DataSet,
    description: NetworkDescription,
    network: nn.Module,
    measured: Measurement,
    device: torch.device,
    teacher: nn.Module | None = None,
) -> Evidence:
    """What ``analysis.json`` holds.

    Args:
        recipe: of the run.
        data: with the test images.
        description: of the network.
        network: in evaluation mode, on ``device``.
        measured: what it did on the test images.
        device: where.
        teacher: a trained ANN that was given in place of a run's name.
    """
    with _seeded(network, device, ALONE) if isinstance(network, SpikingNetwork) else contextlib.nullcontext():
        return gathered(recipe, data, description, network, measured, guides(recipe, data, teacher), device)


def _loaded(run: Run, recipe: Recipe, images: DataSet, device: torch.device) -> tuple[NetworkDescription, nn.Module]:
    description = NetworkDescription.of_run(run)
    network = description.load(run).to(device)
    if (images.num_classes, images.input_shape) != (description.num_classes, description.input_shape):
        raise InputError(
            f"{run.folder} takes images {description.input_shape} (C, H, W) of {description.num_classes} classes, "
            f"{recipe.data} has {images.input_shape} of {images.num_classes}"
        )
    if description.frames != images.frames:
        raise InputError(f"{run.folder} was trained on {description.frames} frames, {recipe.data} has {images.frames}")
    return description, network
