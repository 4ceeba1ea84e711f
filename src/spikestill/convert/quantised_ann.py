"""The ANN of quantised activations, which is fine-tuned before ``quantise`` converts it (QCFS; methods 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from spikestill.convert.preparing import images_of, neuron_nodes, prepare
from spikestill.convert.scales import Scale
from spikestill.convert.values import activation_percentiles
from spikestill.graph import evaluating, to_spiking
from spikestill.nn import IF, ClipFloorShift

__all__ = ["quantised", "quantised_structure"]


def quantised(ann: nn.Module, batches: Iterable[Any], *, levels: int = 4, percentile: float = 99.9) -> fx.GraphModule:
    """A copy of an ANN in which every activation is quantised (Bu et al. 2022), to be fine-tuned as any ANN.

    Its thresholds start from a percentile of the activation over calibration images, and are learned.

    Args:
        ann: any that ``to_spiking`` accepts; it stays as it is, and is run in evaluation mode.
        batches: calibration images ``[B, C, H, W]``, or pairs of such and labels (which are not read).
        levels: L, of every activation; the number of time steps at which the spiking network is to be most exact.
        percentile: in (0, 100]; 100 is the largest activation.

    Returns:
        A module of the same images and logits, with the ANN's modules under their own names and a
        :class:`spikestill.nn.ClipFloorShift` for every call of an activation, named as ``to_spiking`` names neurons.

    Raises:
        InputError: for an ANN that ``to_spiking`` refuses, an option out of its range, no images, and an activation
            that no image drives.
    """
    images = images_of(batches)
    snn = to_spiking(ann, input_shape=images[0].shape[1:], neuron=IF())
    work = prepare(snn, ann, images)
    with torch.no_grad(), evaluating(work.ann):
        thresholds = activation_percentiles(work, percentile)
    return _with_levels(snn.body, levels, thresholds)


def quantised_structure(ann: nn.Module, input_shape: Sequence[int], *, levels: int = 4) -> fx.GraphModule:
    """What :func:`quantised` returns, but for the thresholds, which are 1: to load a ``state_dict`` into.

    Args:
        ann: as for :func:`quantised`.
        input_shape: of one image, ``(C, H, W)``.
        levels: L.

    Raises:
        InputError: for an ANN that ``to_spiking`` refuses, and for fewer levels than 1.
    """
    return _with_levels(to_spiking(ann, input_shape=input_shape, neuron=IF()).body, levels, {})


def _with_levels(body: fx.GraphModule, levels: int, thresholds: Mapping[str, Scale]) -> fx.GraphModule:
    """A spiking graph with quantised activations in the place of its neurons."""
    device = next(body.parameters(), torch.empty(0)).device
    for node in list(neuron_nodes(body)):
        name = str(node.target)
        activation = ClipFloorShift(levels, float(thresholds.get(name, 1.0)))
        body.set_submodule(name, activation.to(device).train(body.training))
    return body
