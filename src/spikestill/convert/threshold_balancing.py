"""``threshold-balancing``: the weights stay, and each threshold is the largest current that the layer really sees."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Literal

import torch
from torch import fx

from spikestill.convert.preparing import Conversion, neuron_nodes
from spikestill.convert.scales import Scale, by_channel
from spikestill.convert.scaling import multiply_edge, rescale
from spikestill.convert.thresholds import Start, checked_by, checked_start, set_thresholds, start_neurons
from spikestill.convert.values import (
    By,
    HighestShare,
    alive,
    checked_percentile,
    checked_steps,
    percentile_of,
    require_positive,
    steps_of,
)
from spikestill.graph.trace import calls
from spikestill.progress import Progress
from spikestill.types import InputError

__all__ = ["balance_thresholds"]


def balance_thresholds(
    work: Conversion,
    timesteps: int = 100,
    percentile: float = 100.0,
    factor: float = 1.0,
    layers: Literal["all", "stem"] = "all",
    align: bool = True,
    ann_logits: bool = False,
    by: By = "channel",
    start: Start = "half",
) -> None:
    """Threshold balancing (Sengupta et al. 2019, Rathi et al. 2020; methods 8).

    For one neuron layer after another, the spiking network up to it is driven with the encoded calibration images for
    T_b steps, and the largest current becomes its threshold. Weights stay untouched; biases are divided by the scale of
    the signal that their layer reads, the product of the thresholds up to there. An activation that saturates (ReLU6)
    bounds the threshold too.

    Args:
        work: the conversion; its graph is changed.
        timesteps: T_b (LaSNN takes 2500). Steps are run a few at a time, so memory does not grow with it.
        percentile: in (0, 100]; below 100 the percentile over a batch at one time step, and the largest of these over
            batches and steps (DIET-SNN takes 99.7).
        factor: scales all thresholds in the end, for few time steps (0.7 in Rathi's code).
        layers: "stem" balances only the neuron layers up to the first branch, as Rathi's code does in residual
            networks; the others keep the threshold they have.
        align: put a factor where signals of different scales meet (a residual sum); False adds them up as they are, as
            the published codes do.
        ann_logits: give the read-out's weights the product of the thresholds before it, so that the logits are the
            ANN's; False leaves these weights untouched too, and the logits divided by that product. By channel, they
            are the ANN's in any case.
        by: one threshold a "layer", or a "channel": its share of the current is then in the weights around it, which do
            not stay untouched, and ``factor`` scales each threshold in the ANN's unit.
        start: from "half" of the threshold, or from "rest"; thresholds are found from rest.

    Raises:
        InputError: for an option out of its range, and for a layer that no calibration image drives.
    """
    checked_percentile(percentile)
    checked_steps(timesteps)
    if not 0 < factor < float("inf"):
        raise InputError(f"factor must be positive and finite, not {factor}")
    if layers not in ("all", "stem"):
        raise InputError(f"layers must be 'all' or 'stem', not {layers!r}")
    checked_start(start)
    if checked_by(by) == "channel":
        if layers == "stem" or not align:
            raise InputError("layers: stem and align: false are of one threshold a layer: give by: layer")
        found = _balanced_by_channel(work, timesteps, percentile)
        set_thresholds(work, {name: scale * factor for name, scale in found.items()})
        start_neurons(work, start)
        return
    balanced = _stem(work.body) if layers == "stem" else set(work.activations)
    thresholds = _balanced(work, balanced, timesteps, percentile, align)

    def set_threshold(name: str, node: fx.Node, current: float) -> float:
        if name in balanced:
            work.neuron(name).set_threshold(thresholds[name] * factor)
        return current * work.neuron(name).threshold.item()

    output = 1.0 if ann_logits else None
    rescale(work.body, set_threshold, input_scale=work.input_scale, output=output, align=align)
    start_neurons(work, start)


def _balanced_by_channel(given: Conversion, timesteps: int, percentile: float) -> dict[str, Scale]:
    """The thresholds in the ANN's unit, one a channel, found on a copy of the graph; its neurons' own are 1."""
    work = dataclasses.replace(given, body=copy.deepcopy(given.body))
    found: dict[str, Scale] = {}

    def balance(name: str, node: fx.Node, current: Scale) -> Scale:
        source: Any = node.args[0]
        largest = torch.zeros(())
        for images in work.images:
            for some in steps_of(work, source, images, timesteps):
                for step in some:
                    rows = step.movedim(1, 0).flatten(1)
                    share = HighestShare(rows.shape[1], percentile)
                    share.add(rows)
                    largest = torch.maximum(largest.to(rows.device), share.percentiles(percentile))
        feature = source.meta["shape"][1:]
        threshold = by_channel(alive(name, largest, "current"), feature)
        found[name] = (threshold * current).clamp(max=work.ceiling(name))
        multiply_edge(work.body, node, source, current / found[name])
        work.neuron(name).set_threshold(1.0)
        return found[name]

    currents: dict[str, Scale] = dict.fromkeys(work.activations, 1.0)
    rescale(work.body, balance, input_scale=work.input_scale, currents=currents)
    return found


def _balanced(
    given: Conversion, balanced: set[str], timesteps: int, percentile: float, align: bool
) -> dict[str, float]:
    """The thresholds, found on a copy of the graph: ``factor`` will change the scales of everything after."""
    work = dataclasses.replace(given, body=copy.deepcopy(given.body))
    found: dict[str, float] = {}
    progress = Progress("balancing the thresholds", len(balanced), "layers")

    def balance(name: str, node: fx.Node, current: float) -> float:
        neuron = work.neuron(name)
        if name in balanced:
            source = node.args[0]
            assert isinstance(source, fx.Node)
            largest = max(
                percentile_of(step, percentile)
                for images in work.images
                for some in steps_of(work, source, images, timesteps)
                for step in some
            )
            found[name] = min(require_positive(name, largest, "current"), work.ceiling(name) / current)
            neuron.set_threshold(found[name])
            progress.show(len(found))
        return current * neuron.threshold.item()

    rescale(work.body, balance, input_scale=work.input_scale, align=align)
    return found


def _stem(body: fx.GraphModule) -> set[str]:
    """The neuron layers up to the first value that is read more than once."""
    neurons = {node: str(node.target) for node in neuron_nodes(body)}
    found: set[str] = set()
    for node in calls(body.graph):
        if node in neurons:
            found.add(neurons[node])
        if len(node.users) > 1:
            break
    return found
