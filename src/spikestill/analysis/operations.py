"""Operations and energy: accumulates of spikes, multiply-accumulates of analog values (methods, section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from spikestill.analysis.answers import Processes
from spikestill.analysis.arrivals import Arrivals, ArrivalsRun
from spikestill.dynamics import spike_counts
from spikestill.graph import SpikingNetwork
from spikestill.graph.operations import is_max_pool
from spikestill.graph.sequence import Signal
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, Direct, Events

__all__ = ["Firing", "LayerOperations", "Operations", "operations"]

_PICOJOULES_OF_MULTIPLY_ACCUMULATE = 4.6
_PICOJOULES_OF_ACCUMULATE = 0.9
"""32-bit floating point at 45 nm (Horowitz 2014)."""


@dataclass(frozen=True)
class LayerOperations:
    """The operations of one layer, a mean over the images.

    Attributes:
        accumulates: the sum over its input spikes, in all time steps, of each spike's fan-out.
        multiply_accumulates: those of the analog values in its input: at every time step, but once for an input that is
            the same at every step.
        ann_multiply_accumulates: those of the same layer in an ANN.
    """

    accumulates: float
    multiply_accumulates: float
    ann_multiply_accumulates: float


@dataclass(frozen=True)
class Operations:
    """The operations of a spiking network, an image.

    Attributes:
        layers: by convolution or linear layer, its operations; a layer that is called several times has the sum.
        uncounted: what the network computes besides, by name: neurons, BatchNorm, pooling, sums, biases.
    """

    layers: Mapping[str, LayerOperations]
    uncounted: tuple[str, ...]

    @property
    def accumulates(self) -> float:
        """The synaptic operations: the sum over all spikes of each spike's fan-out."""
        return sum(layer.accumulates for layer in self.layers.values())

    @property
    def multiply_accumulates(self) -> float:
        """Those of the analog values that enter layers: of images under direct encoding, above all."""
        return sum(layer.multiply_accumulates for layer in self.layers.values())

    @property
    def ann_multiply_accumulates(self) -> float:
        """Those of the ANN with the same layers."""
        return sum(layer.ann_multiply_accumulates for layer in self.layers.values())

    def energy(
        self,
        multiply_accumulate: float = _PICOJOULES_OF_MULTIPLY_ACCUMULATE,
        accumulate: float = _PICOJOULES_OF_ACCUMULATE,
    ) -> float:
        """An estimate of the energy of the counted operations, in nJ an image.

        Args:
            multiply_accumulate: the energy of one, in pJ; the default is that of 45 nm (Horowitz 2014).
            accumulate: likewise.
        """
        return (self.multiply_accumulates * multiply_accumulate + self.accumulates * accumulate) / 1000

    def ann_energy(self, multiply_accumulate: float = _PICOJOULES_OF_MULTIPLY_ACCUMULATE) -> float:
        """The same for the ANN, in nJ an image."""
        return self.ann_multiply_accumulates * multiply_accumulate / 1000


class Firing:
    """How often each neuron fired, gathered while a network runs: its calls are the ``watch`` of ``unroll``.

    Args:
        network: whose runs it watches.

    Attributes:
        counts: by node, for neuron layers and maxima: how often each place was not zero, in all images and time steps,
            float64 ``[...]``.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.counts: dict[fx.Node, Tensor] = {}
        self._body, self._is_analog = network.body, network.encoder.constant
        self._input: Tensor | None = None
        self._in_wholes = torch.tensor(True)
        self._largest = torch.tensor(0.0)

    def __call__(self, node: fx.Node, signal: Signal) -> None:
        """Takes note of a node's value, if it is one that counts."""
        if isinstance(module_of(self._body, node), LIF):
            self._add(node, signal.value)
        elif is_max_pool(self._body, node):
            self._add(node, (signal.value != 0).to(signal.value.dtype))
        elif node.op == "placeholder":
            self._add_input(signal)

    def _add(self, node: fx.Node, spikes: Tensor) -> None:
        counts = spike_counts(spikes.detach())
        self.counts[node] = self.counts[node] + counts if node in self.counts else counts

    def _add_input(self, signal: Signal) -> None:
        value = signal.value.detach()
        self._is_analog |= not signal.moves
        if self._input is None:
            self._input = value.new_zeros(value.shape[1:], dtype=torch.float64)
        if not self._is_analog and value.numel():
            size = value.abs().double()
            self._input += size.sum(0)
            self._in_wholes = self._in_wholes.to(size.device) & (size == size.round()).all()
            self._largest = torch.maximum(self._largest.to(size), size.max())

    def gather(self, processes: Processes) -> None:
        """Take in what the other processes counted, each on its own images; some may have had none."""
        own = {node.name: tuple(counts.shape) for node, counts in self.counts.items()}
        told = processes.gathered((own, None if self._input is None else tuple(self._input.shape), self._is_analog))
        shapes, of_input, _ = next(one for one in told if one[1] is not None)
        self._is_analog = any(is_analog for *_, is_analog in told)
        if self._input is None:
            here = next(self._body.parameters()).device
            nodes = {node.name: node for node in self._body.graph.nodes}
            zeros = {name: torch.zeros(shape, dtype=torch.float64, device=here) for name, shape in shapes.items()}
            self.counts = {nodes[name]: counts for name, counts in zeros.items()}
            self._input = torch.zeros(of_input, dtype=torch.float64, device=here)
        self.counts = {node: processes.reduced(counts, "sum") for node, counts in self.counts.items()}
        self._input = processes.reduced(self._input, "sum")
        # "All are whole" is "none is broken".
        self._in_wholes = processes.reduced(1 - self._in_wholes.double().to(self._input.device), "max") == 0
        self._largest = processes.reduced(self._largest.to(self._input), "max")

    def neurons(self) -> dict[str, Tensor]:
        """The counts ``[...]`` of every neuron layer by its name."""
        layers = {node: module_of(self._body, node) for node in self.counts}
        return {str(node.target): self.counts[node] for node, layer in layers.items() if isinstance(layer, LIF)}

    def input(self) -> Arrivals:
        """What arrived at the network's input: spikes (whole numbers that move), else analog values."""
        assert self._input is not None
        counts = self._input.cpu()
        if self._is_analog or not self._in_wholes:
            return Arrivals.of_values(counts, move=not self._is_analog)
        return Arrivals.of_spikes(counts, is_single=bool(self._largest <= 1))


def operations(network: SpikingNetwork, firing: Firing, images: int, timesteps: int) -> Operations:
    """The operations of a network, an image, from how often its neurons fired.

    Args:
        network: the spiking network.
        firing: what watched it.
        images: how many it was shown.
        timesteps: T, over which it was watched.
    """
    run = ArrivalsRun(network.body, {node: counts.cpu() for node, counts in firing.counts.items()})
    run.count(firing.input())
    drawn = () if isinstance(network.encoder, Direct | Events) else (type(network.encoder).__name__,)
    return Operations(
        {
            path: LayerOperations(found.accumulates / images, found.still + found.moving * timesteps, found.dense)
            for path, found in run.layers.items()
        },
        (*drawn, *run.uncounted),
    )
