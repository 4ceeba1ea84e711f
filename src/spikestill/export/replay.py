"""Two networks on the same input, spike for spike: what a file has to stand."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from spikestill.export.lowering import lower
from spikestill.graph import SpikingNetwork, evaluating
from spikestill.nn import Events
from spikestill.progress import tracked
from spikestill.types import InputError

__all__ = ["Replay", "folded", "replay"]


@dataclass(frozen=True)
class Replay:
    """How two networks compare.

    Attributes:
        differing: the places (neuron, time step, image) at which one fired and the other did not.
        places: how many there were.
        images: how many were shown.
        timesteps: for how long each.
        predictions_differing: the images of which the two name different classes.
        logits: the largest difference of a logit.
    """

    differing: int
    places: int
    images: int
    timesteps: int
    predictions_differing: int
    logits: float

    def __str__(self) -> str:
        """The count and what it is of."""
        return (
            f"{self.differing:,} of {self.places:,} spikes differ ({self.images} images, {self.timesteps} time steps)"
        )


def folded(snn: SpikingNetwork) -> SpikingNetwork:
    """The network as it is exported: BatchNorm and scales folded, in the operations that exchange formats know.

    Raises:
        InputError: for a network that cannot be exported.
    """
    body = lower(copy.deepcopy(snn.body).eval())
    return SpikingNetwork(body, timesteps=snn.timesteps, encoder=snn.encoder).eval()


@torch.no_grad()
def replay(network: SpikingNetwork, other: SpikingNetwork, images: Tensor) -> Replay:
    """Run two networks in evaluation mode on the same encoded images, and count the spikes that differ.

    Args:
        network: its encoder and number of time steps serve for both.
        other: with neuron layers of the same names.
        images: ``[B, C, H, W]``, or events ``[T, B, C, H, W]``. They are shown one by one.

    Raises:
        InputError: where the networks' neuron layers have other names or shapes, and where the first one's logits are
            not finite; those of the other count as another prediction.
    """
    steps = network.timesteps
    encoded = network.encoder(images, steps).expand(steps, *[-1] * (images.dim() - isinstance(network.encoder, Events)))
    differing = places = classes = 0
    furthest = 0.0
    for one in tracked(encoded.split(1, dim=1), "replaying", unit="images"):
        (logits, spikes), (other_logits, other_spikes) = (_run(item, one) for item in (network, other))
        if {name: item.shape for name, item in spikes.items()} != {n: item.shape for n, item in other_spikes.items()}:
            raise InputError("the networks cannot be compared: their neuron layers have other names or shapes")
        differing += sum(int((item != other_spikes[name]).sum()) for name, item in spikes.items())
        places += sum(item.numel() for item in spikes.values())
        if not logits.isfinite().all():
            raise InputError("the network's logits are not finite: there is nothing to compare a file with")
        is_finite = bool(other_logits.isfinite().all())
        classes += int(not is_finite or bool(logits.argmax() != other_logits.argmax()))
        furthest = max(furthest, float((logits - other_logits).abs().max())) if is_finite else math.inf
    return Replay(differing, places, encoded.shape[1], steps, classes, furthest)


def _run(network: SpikingNetwork, sequence: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits ``[1, K]`` and, by layer, spikes ``[T, 1, ...]`` of an encoded sequence ``[T, 1, ...]``."""
    found: defaultdict[str, list[Tensor]] = defaultdict(list)
    bare = SpikingNetwork(network.body, timesteps=len(sequence), encoder=Events())
    with evaluating(network.body):
        steps = bare.eval().unroll(sequence, observe=lambda name, spikes: found[name].append(spikes.bool()))
    return steps.mean(0), {name: torch.cat(parts) for name, parts in found.items()}
