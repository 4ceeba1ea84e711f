"""Accuracy at every time step, and the spikes and operations it costs (methods, section 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spikestill.analysis.answers import Answers, Processes, gathered
from spikestill.analysis.operations import Firing, Operations, operations
from spikestill.graph import SpikingNetwork, evaluating
from spikestill.nn import Events
from spikestill.types import InputError

__all__ = ["Evaluation", "LayerActivity", "evaluate"]

_SATURATED = 0.95
"""The firing rate from which on a neuron counts as saturated: it could hardly say more."""


@dataclass(frozen=True)
class LayerActivity:
    """How active the neurons of one layer were.

    Attributes:
        neurons: how many there are.
        rate: their mean firing rate, in [0, 1].
        silent: the share of them that never fired, at any image and time step.
        saturated: the share of them that fired in at least 95 % of all time steps of all images.
    """

    neurons: int
    rate: float
    silent: float
    saturated: float

    @classmethod
    def of(cls, counts: Tensor, steps: int) -> LayerActivity:
        """From how often each neuron fired.

        Args:
            counts: ``[...]``.
            steps: the number of images times the number of time steps.
        """
        rates = counts.double() / steps
        silent, saturated = (rates == 0).double().mean(), (rates >= _SATURATED).double().mean()
        return cls(rates.numel(), rates.mean().item(), silent.item(), saturated.item())


@dataclass(frozen=True)
class Evaluation:
    """What a spiking network did on a set of images.

    Attributes:
        accuracy: by number of time steps, the share of images put into their class, in [0, 1].
        spikes_per_neuron: the mean over neurons and images of the spikes in all time steps: at most T. It counts every
            neuron layer of the network; spikes of an encoder are not among them.
        layers: by neuron layer, how active its neurons were.
        answers: to every image, at every time step up to T.
        images: how many.
        timesteps: T.
        operations: those of one image in all time steps.
    """

    accuracy: Mapping[int, float]
    spikes_per_neuron: float
    layers: Mapping[str, LayerActivity]
    answers: Answers = field(compare=False)
    images: int
    timesteps: int
    operations: Operations

    @property
    def rates(self) -> Mapping[str, float]:
        """By neuron layer, the mean firing rate, in [0, 1]."""
        return {name: layer.rate for name, layer in self.layers.items()}


@torch.no_grad()
def evaluate(
    network: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    timesteps: Sequence[int] | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Accuracy at several numbers of time steps in one pass, and spikes and operations over the largest.

    After t steps the network's answer is the largest of the mean of its first t read-outs (those from the network's
    ``read_out_from`` on, once there are any).

    Args:
        network: measured as in evaluation mode; its modes are as before afterwards.
        batches: images ``[B, C, H, W]`` (or events ``[T, B, C, H, W]``) and labels ``[B]``.
        timesteps: where to read; by default at every step up to the network's T.
        processes: those that measure a shard of every batch each; all of them return the same.

    Raises:
        InputError: if there are no images, or a number of time steps is below 1.
    """
    wanted = sorted(set(timesteps or range(1, network.timesteps + 1)))
    if wanted[0] < 1:
        raise InputError(f"the number of time steps must be at least 1, not {wanted[0]}")
    firing = Firing(network)
    parts = []
    with evaluating(network):
        for batch, labels in batches:
            if isinstance(network.encoder, Events):
                batch = batch[: wanted[-1]]
            parts.append(Answers.of(network.unroll(batch, wanted[-1], watch=firing), labels, network.read_out_from))
    answers = gathered(parts, processes)
    images = len(answers.labels)
    if processes is not None:
        firing.gather(processes)
    fired = firing.neurons()
    neurons = sum(counts.numel() for counts in fired.values())
    return Evaluation(
        accuracy={t: answers.accuracy(t) for t in wanted},
        spikes_per_neuron=sum(float(counts.sum()) for counts in fired.values()) / (images * max(neurons, 1)),
        layers={name: LayerActivity.of(counts, images * wanted[-1]) for name, counts in fired.items()},
        answers=answers,
        images=images,
        timesteps=wanted[-1],
        operations=operations(network, firing, images, wanted[-1]),
    )
