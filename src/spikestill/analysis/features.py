"""What happens inside: firing rates of single images, attention maps, the distance from an ANN's activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx
from torch.nn import functional

from spikestill.graph import SpikingNetwork, evaluating, named_points, record

__all__ = ["attention_map", "firing_rates", "rate_error", "rate_errors", "spike_raster"]


@torch.no_grad()
def firing_rates(network: SpikingNetwork, images: Tensor) -> dict[str, Tensor]:
    """By neuron layer, the firing rate ``[B, ...]`` of every neuron for every image, in [0, 1].

    Args:
        network: measured as in evaluation mode.
        images: ``[B, C, H, W]`` or events ``[T, B, C, H, W]``.
    """
    counts: dict[str, Tensor] = {}

    def add(name: str, spikes: Tensor) -> None:
        some = spikes.float().sum(0)
        counts[name] = counts[name] + some if name in counts else some

    with evaluating(network):
        network.unroll(images, observe=add)
    return {name: count / network.timesteps for name, count in counts.items()}


def attention_map(feature: Tensor, most: int | None = None) -> Tensor:
    """``[B, H, W]``, the mean over channels of the squares of a rate or activation ``[B, C, H, W]`` (LaSNN, eq. 6).

    Args:
        feature: of the layer.
        most: the most rows and columns wanted; a larger map is averaged over what falls into a pixel.
    """
    maps = feature.float().square().mean(1)
    if most is None or max(maps.shape[1:]) <= most:
        return maps
    return functional.adaptive_avg_pool2d(maps, (min(most, maps.shape[1]), min(most, maps.shape[2])))


def rate_error(rate: Tensor, activation: Tensor) -> float:
    """How far the firing rates of a layer are from being the activations of an ANN, up to one scale for the layer.

    That is ``min over s >= 0 of |a - s r| / |a|``, in [0, 1]: 0 where they are proportional, 1 where they have nothing
    in common. The scale is left open since a threshold, or the weights of the next layer, can hold any.

    Args:
        rate: ``[B, ...]``.
        activation: ``[B, ...]``, of the same shape.
    """
    r, a = rate.double().flatten(), activation.double().flatten()
    lengths = torch.linalg.vector_norm(r) * torch.linalg.vector_norm(a)
    if not lengths:  # both silent agree, one silent does not
        return float(bool(torch.linalg.vector_norm(a)))
    cosine = (r @ a / lengths).clamp(0, 1)
    return (1 - cosine.square()).clamp(min=0).sqrt().item()


@torch.no_grad()
def rate_errors(rates: Mapping[str, Tensor], ann: fx.GraphModule, images: Tensor) -> dict[str, float]:
    """The :func:`rate_error` of every neuron layer against the activation in whose place it is.

    Args:
        rates: of the neuron layers, as :func:`firing_rates` gives them.
        ann: a traced ANN in evaluation mode.
        images: ``[B, C, H, W]``, the same, normalised as the ANN takes them.

    Returns:
        By layer; nothing where the ANN is of another architecture, so that a layer has no activation of its name and
        shape.
    """
    known = named_points(ann)
    for name, rate in rates.items():
        point = known.get(name)
        if point is None or not point.is_activation or tuple(point.shape) != tuple(rate.shape[1:]):
            return {}
    activations = record(ann, images, taps=tuple(rates)).features
    return {name: rate_error(rate, activations[name]) for name, rate in rates.items()}


@torch.no_grad()
def spike_raster(
    network: SpikingNetwork, images: Tensor, layers: Sequence[str], neurons: int = 8
) -> dict[str, dict[tuple[int, ...], tuple[int, ...]]]:
    """When a few neurons fire while the network looks at the first of these images.

    Of each layer those neurons are shown that stand, in the order of their number of spikes, evenly between the most
    active one and the last one that fires at all; where fewer fire, silent ones are among them.

    Args:
        network: measured as in evaluation mode.
        images: ``[B, C, H, W]`` or events ``[T, B, C, H, W]``.
        layers: names of neuron layers.
        neurons: how many of each.

    Returns:
        By layer and neuron (its index in the layer), the time steps of its spikes, counted from 1.
    """
    parts: dict[str, list[Tensor]] = {}

    def add(name: str, spikes: Tensor) -> None:
        if name in layers:
            parts.setdefault(name, []).append(spikes[:, 0] != 0)

    with evaluating(network):
        network.unroll(images, observe=add)
    return {name: _some(torch.cat(parts[name]).cpu(), neurons) for name in layers}


def _some(fired: Tensor, count: int) -> dict[tuple[int, ...], tuple[int, ...]]:
    flat = fired.flatten(1)
    totals = flat.sum(0)
    order = totals.argsort(descending=True, stable=True)
    last = min(len(order), max(int((totals > 0).sum()), count)) - 1
    places = torch.linspace(0, last, min(count, len(order))).round().long().unique()
    found = {}
    for neuron in order[places].tolist():
        index = tuple(int(part) for part in torch.unravel_index(torch.tensor(neuron), fired.shape[1:]))
        found[index] = tuple(step + 1 for step in flat[:, neuron].nonzero().flatten().tolist())
    return found
