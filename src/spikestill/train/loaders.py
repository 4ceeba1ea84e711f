"""The recipe's data and device, as the training and the measuring see them."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal, TypeVar

import torch
from torch import nn

from spikestill import data as datasets
from spikestill.data import Batches, DataSet, EventFrames
from spikestill.recipes import NetworkDescription, Recipe
from spikestill.train.processes import ALONE, Processes
from spikestill.types import InputError

__all__ = ["load_data", "make_batches", "normalised_as", "place", "resolve_device"]

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_EVALUATION_BATCH = 500
"""Images in a batch of up to 32x32 pixels where no gradient is needed; of larger ones there are fewer."""

_MOST_WORKERS = 8
"""Processes that decode images, where the recipe does not say how many."""


def load_data(recipe: Recipe, processes: Processes = ALONE) -> DataSet:
    """The recipe's data set; its split depends on ``split_seed`` alone, so teacher and students share it.

    On every machine the first process loads it before the others do: it may have to be downloaded.

    Raises:
        InputError: for data that cannot be used.
    """
    loaded: DataSet | None = None
    for is_next in (processes.local_rank == 0, processes.local_rank > 0) if processes.count > 1 else (True,):
        with processes.agreed():
            if is_next:
                loaded = datasets.load(
                    recipe.data,
                    data_dir=recipe.data_dir,
                    validation=recipe.validation,
                    seed=recipe.split_seed,
                    limit_train=recipe.limit_train,
                    image_size=recipe.image_size,
                    skip_corrupt=recipe.skip_corrupt,
                    events=EventFrames(frames=recipe.event_frames, by=recipe.events.by),
                )
    assert loaded is not None
    return normalised_as(recipe, loaded)


def normalised_as(recipe: Recipe, data: DataSet) -> DataSet:
    """The data with the mean and standard deviation that the recipe gives, if it gives any.

    Raises:
        InputError: where they are not one a channel.
    """
    if recipe.mean is None or recipe.std is None:
        return data
    channels = data.input_shape[0]
    if len(recipe.mean) != channels:
        raise InputError(
            f"mean and std have {len(recipe.mean)} numbers, the images of {data.name} {channels} "
            f"channel{'s' if channels > 1 else ''}: give one a channel"
        )
    return dataclasses.replace(data, mean=recipe.mean, std=recipe.std)


def make_batches(
    recipe: Recipe,
    data: DataSet,
    description: NetworkDescription,
    part: Literal["train", "validation", "test"],
    device: torch.device,
    processes: Processes = ALONE,
) -> Batches:
    """Batches of one part, normalised as ``description`` says; of every batch the process's shard.

    Raises:
        InputError: when the part is empty, or has fewer images than there are processes.
    """
    training = part == "train"
    images = {"train": data.train, "validation": data.validation, "test": data.test}[part]
    return Batches(
        images,
        batch_size=recipe.batch_size if training else _evaluation_batch(recipe, data),
        mean=description.mean,
        std=description.std,
        shuffle=training,
        augmentation=recipe.augmentation if training else None,
        seed=recipe.seed,
        device=device,
        # A last batch of one or two images would give BatchNorm statistics of nothing.
        drop_last=training and len(images) >= recipe.batch_size,
        shard=processes.shard,
        divided=recipe.accumulate if training else 1,
        merge_frames=not description.takes_frames,
        workers=_workers(processes) if recipe.workers is None else recipe.workers,
        unreadable=data.unreadable,
    )


def _workers(processes: Processes) -> int:
    """How many processes decode for this one, where those of one machine share its cores."""
    return min(_MOST_WORKERS, max((os.cpu_count() or 1) // processes.local_count, 1))


def _evaluation_batch(recipe: Recipe, data: DataSet) -> int:
    """How many images fit where no gradient is needed: as in training, or more where they are small."""
    _, height, width = data.input_shape
    return min(_EVALUATION_BATCH, max(recipe.batch_size, _EVALUATION_BATCH * 32 * 32 // (height * width)))


def resolve_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device that ``name`` (auto, cpu, cuda, cuda:1) means here, and for this one of several processes.

    Raises:
        InputError: when there is no such device, or one that several processes would have to share.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}': use cpu, cuda or auto") from error
    if device.type == "cuda":
        index = device.index or 0
        if processes.count > 1:
            if device.index is not None:
                raise InputError(
                    f"'{name}' is one device, {processes.local_count} processes share it: use --device cuda"
                )
            index = processes.local_rank
        if index >= torch.cuda.device_count():
            raise InputError(f"there is no device '{name}' here: use --device cpu")
        return torch.device("cuda", index)
    return device


def place(network: AnyModule, device: torch.device, channels_last: bool) -> AnyModule:
    """The network on its device, its convolution weights in the memory format of the recipe."""
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if channels_last else network
