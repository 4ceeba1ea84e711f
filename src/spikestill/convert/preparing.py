"""What all methods start from: a copy of the spiking graph with the ANN's weights, BatchNorm folded."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from spikestill.graph import SpikingNetwork, fold, gate_maxima, separate_calls, trace
from spikestill.graph.operations import ceiling_of, is_activation
from spikestill.graph.trace import calls, module_of
from spikestill.nn import LIF, ClipFloorShift, Encoder, Events, Poisson
from spikestill.types import InputError

__all__ = ["Conversion", "images_of", "neuron_nodes", "prepare", "require_soft_reset", "restructured"]


@dataclass(frozen=True)
class Conversion:
    """A conversion under way.

    Attributes:
        body: the spiking graph that is made; the network's own stays as it is until the end.
        ann: the traced ANN.
        activations: by neuron layer, in the order of the graph, the ANN's node whose values its rate stands for.
        images: the calibration batches, each ``[B, C, H, W]``.
        encoder: of the spiking network.
        timesteps: T of the spiking network.
        notes: what a method writes down about itself; plain values.
    """

    body: fx.GraphModule
    ann: fx.GraphModule
    activations: dict[str, fx.Node]
    images: list[Tensor]
    encoder: Encoder
    timesteps: int
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def input_scale(self) -> float:
        """What of the ANN's input a value of 1 in the encoded input stands for."""
        return self.encoder.scale if isinstance(self.encoder, Poisson) else 1.0

    def neuron(self, name: str) -> LIF:
        """A neuron layer of the graph that is made."""
        module = self.body.get_submodule(name)
        assert isinstance(module, LIF)
        return module

    def ceiling(self, name: str) -> float:
        """The value at which the ANN's activation saturates: 6 for ReLU6, the threshold of a quantised one."""
        node = self.activations[name]
        module = module_of(self.ann, node)
        if isinstance(module, ClipFloorShift):
            return module.threshold.item()
        return ceiling_of(node)


def prepare(
    snn: SpikingNetwork, ann: nn.Module, images: Sequence[Tensor], max_pool: str = "keep", batch_norm: str = "fold"
) -> Conversion:
    """Check that the parts fit, and copy the spiking graph with the ANN's weights in it.

    Args:
        snn: the spiking network.
        ann: the ANN that it was made of.
        images: the calibration batches.
        max_pool: as :func:`restructured` takes it.
        batch_norm: likewise.

    Raises:
        InputError: see :func:`spikestill.convert.convert`.
    """
    if isinstance(snn.encoder, Events):
        raise InputError("conversion calibrates with images, which the ANN reads too: events cannot be converted from")
    if "converted" in snn.body.meta:
        method = snn.body.meta["converted"]["method"]
        raise InputError(f"the spiking network is converted already (by {method}): make a new one by to_spiking")
    for name, neuron in snn.neurons():
        if neuron.leak.item() != 1:
            raise InputError(f"conversion needs neurons without a leak, '{name}' has {neuron.leak.item():g}: use IF")
    shape = images[0].shape[1:]
    traced = trace(copy.deepcopy(ann), shape)
    body = copy.deepcopy(snn.body)
    _take_weights(body, ann)
    activations = [node for node in calls(traced.graph) if _becomes_neuron(traced, node)]
    neurons = [str(node.target) for node in neuron_nodes(body)]
    if len(activations) != len(neurons):
        raise _of_another(f"it has {len(neurons)} neuron layers, the ANN {len(activations)} activations")
    for name in neurons:
        body.get_submodule(name).set_initial(None)  # type: ignore[operator]
    body = restructured(body, max_pool, batch_norm)
    device = next(ann.parameters(), images[0]).device
    moved = [batch.to(device) for batch in images]
    pairs = dict(zip(neurons, activations, strict=True))
    return Conversion(body, traced, pairs, moved, snn.encoder, snn.timesteps)


def restructured(body: fx.GraphModule, max_pool: str = "keep", batch_norm: str = "fold") -> fx.GraphModule:
    """A copy of a spiking graph in which every call has a module of its own.

    Args:
        body: the spiking graph.
        max_pool: "gate" puts a maximum over time in the place of every max pooling.
        batch_norm: "fold" folds the BatchNorms that can be, "keep" leaves them.
    """
    separated = separate_calls(body)
    if max_pool == "gate":
        gate_maxima(separated)
    return fold(separated, strict=False) if batch_norm == "fold" else separated


def images_of(batches: Iterable[Any]) -> list[Tensor]:
    """The images ``[B, C, H, W]`` of batches, which may be pairs of such and labels.

    Raises:
        InputError: where there are none.
    """
    images = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not sum(len(batch) for batch in images):
        raise InputError("conversion needs calibration images: there are none")
    return images


def neuron_nodes(body: fx.GraphModule) -> Iterator[fx.Node]:
    """The calls of neuron layers, in order."""
    return (node for node in calls(body.graph) if isinstance(module_of(body, node), LIF))


def require_soft_reset(work: Conversion, method: str) -> None:
    """Refuse neurons that lose potential when they fire.

    Raises:
        InputError: for a hard reset.
    """
    for name in work.activations:
        if work.neuron(name).rule.reset != "soft":
            raise InputError(f"{method} needs neurons with a soft reset, '{name}' has a hard one: use IF(reset='soft')")


def _becomes_neuron(traced: fx.GraphModule, node: fx.Node) -> bool:
    return is_activation(traced, node) or isinstance(module_of(traced, node), ClipFloorShift)


def _take_weights(body: fx.GraphModule, ann: nn.Module) -> None:
    neurons = tuple(f"{node.target}." for node in neuron_nodes(body))
    own = {key: value for key, value in body.state_dict().items() if not key.startswith(neurons)}
    given = ann.state_dict()
    for key, value in own.items():
        if key not in given:
            raise _of_another(f"the ANN has no '{key}'")
        if given[key].shape != value.shape:
            raise _of_another(f"'{key}' is {list(value.shape)} in it and {list(given[key].shape)} in the ANN")
    body.load_state_dict({key: given[key] for key in own}, strict=False)


def _of_another(reason: str) -> InputError:
    return InputError(f"the spiking network was not made of this ANN: {reason}")
