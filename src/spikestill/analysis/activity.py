"""Accuracy at every time step, and the spikes and operations it costs (methods, section 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikestill.analysis.operations import Firing, Operations, Reduce, operations
from spikestill.graph import SpikingNetwork, evaluating
from spikestill.nn import Events
from spikestill.types import InputError

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """What a spiking network did on a set of images.

    Attributes:
        accuracy: by number of time steps, the share of images put into their class, in [0, 1].
        spikes_per_neuron: the mean over neurons and images of the spikes in all time steps: at most T. It counts every
            neuron layer of the network; spikes of an encoder are not among them.
        rates: by neuron layer, the mean firing rate, in [0, 1].
        images: how many.
        timesteps: T.
        operations: those of one image in all time steps.
    """

    accuracy: Mapping[int, float]
    spikes_per_neuron: float
    rates: Mapping[str, float]
    images: int
    timesteps: int
    operations: Operations


@torch.no_grad()
def evaluate(
    network: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    timesteps: Sequence[int] | None = None,
    reduced: Reduce | None = None,
) -> Evaluation:
    """Accuracy at several numbers of time steps in one pass, and spikes and operations over the largest.

    After t steps the network's answer is the largest of the mean of its first t read-outs.

    Args:
        network: measured as in evaluation mode; its modes are as before afterwards.
        batches: images ``[B, C, H, W]`` (or events ``[T, B, C, H, W]``) and labels ``[B]``.
        timesteps: where to read; by default at every step up to the network's T.
        reduced: where several processes measure some images each: the sum or maximum of a tensor over all of them.

    Raises:
        InputError: if there are no images, or a number of time steps is below 1.
    """
    wanted = sorted(set(timesteps or range(1, network.timesteps + 1)))
    if wanted[0] < 1:
        raise InputError(f"the number of time steps must be at least 1, not {wanted[0]}")
    firing = Firing(network)
    correct = torch.zeros(len(wanted), dtype=torch.int64)
    images = 0
    with evaluating(network):
        for batch, labels in batches:
            if isinstance(network.encoder, Events):
                batch = batch[: wanted[-1]]
            steps = network.unroll(batch, wanted[-1], watch=firing).float()
            running = steps.cumsum(0)[torch.tensor(wanted, device=steps.device) - 1]
            correct += (running.argmax(-1) == labels).sum(1).cpu()
            images += len(labels)
    if images == 0:
        raise InputError("there are no images to measure on")
    if reduced is not None:
        *correct, images = reduced(torch.tensor([*correct.tolist(), images]), "sum").tolist()  # type: ignore[assignment]
        firing.gather(reduced)
    fired = firing.neurons()
    spikes = {name: float(counts.sum()) for name, counts in fired.items()}
    neurons = {name: counts.numel() for name, counts in fired.items()}
    return Evaluation(
        accuracy={t: int(hits) / images for t, hits in zip(wanted, correct, strict=True)},
        spikes_per_neuron=sum(spikes.values()) / (images * max(sum(neurons.values()), 1)),
        rates={name: spikes[name] / (images * neurons[name] * wanted[-1]) for name in spikes},
        images=images,
        timesteps=wanted[-1],
        operations=operations(network, firing, images, wanted[-1]),
    )
