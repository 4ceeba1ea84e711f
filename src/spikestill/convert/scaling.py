"""Scales: what of the ANN a value of 1 in the spiking network stands for, and the weights that make it so.

A spike is 1, whatever activation it stands for. So every signal has a *scale*, a number or one factor a channel (see
``scales.py``): the ANN's value is the scale times the spiking network's (its mean over time). The rules, for a signal
read at scale ``s_in`` and left at ``s_out``:

- a weighted layer: ``W <- W * s_in / s_out``, input by input and output by output, ``b <- b / s_out``; a BatchNorm that
  is not folded is one such layer, its running mean ``<- mean / s_in``.
- a neuron layer with threshold ``theta`` whose current is at scale ``c``: its spikes are at scale ``c * theta``.
- what rearranges a signal rearranges its scale; a concatenation concatenates the scales.
- everything else (pooling, sums, products with constants) keeps the scale, and all its operands must have the same
  one. An added constant of the ANN's is an operand of scale 1.

Where operands differ, and no weighted layer of its own stands before one to absorb the factor (an identity shortcut),
an explicit multiplication by ``s_in / s_out`` is put on its edge: a call of ``operator.mul`` with a number, or with a
buffer of one factor a channel. The other way, one scale for all neurons that a shortcut joins, would need no factor,
but would run every one of them at the rates that fit the most active.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.convert.scales import (
    Scale,
    carried,
    concatenated,
    is_same,
    of_operand,
    scale_layer,
    takes_input,
    takes_output,
)
from spikestill.graph.operations import CONCATENATIONS, SCALINGS
from spikestill.graph.ops import LAYERS, depends_on_input
from spikestill.graph.trace import module_of
from spikestill.nn import LIF
from spikestill.types import InputError

__all__ = ["is_weighted", "multiply_edge", "rescale"]

_SUMS: tuple[Any, ...] = (operator.add, operator.sub)


def rescale(
    body: fx.GraphModule,
    at_neuron: Callable[[str, fx.Node, Any], Scale],
    *,
    input_scale: float = 1.0,
    currents: Mapping[str, Scale] | None = None,
    output: float | None = None,
    align: bool = True,
) -> None:
    """Give every signal of a graph its scale, front to back, in place.

    Args:
        body: the spiking graph; every weighted layer is called once.
        at_neuron: is called with each neuron layer's name, its node and the scale of its current, when everything
            before it has its final weights. It sets the threshold, and returns the scale of the spikes.
        input_scale: of the encoded input.
        currents: by neuron layer, the scale that its current is to have. Without it the weights stay untouched as long
            as scales are numbers: each layer leaves the scale it reads, and of operands that differ, the one that is
            computed last sets the scale.
        output: the scale that the read-out is to have; None leaves it.
        align: False leaves operands of different scales as they are; all scales must then be numbers.

    Raises:
        InputError: for a BatchNorm without running statistics, and for padding with another constant than 0.
    """
    _Rescaling(body, at_neuron, input_scale, currents or {}, output, align).run()


def is_weighted(module: nn.Module | None) -> bool:
    """Whether a module has weights that can take a factor."""
    return isinstance(module, (*LAYERS, _BatchNorm))


def multiply_edge(body: fx.GraphModule, reader: fx.Node, item: fx.Node, factor: Scale) -> fx.Node:
    """Put the product with a constant on the edge from ``item`` to ``reader``."""
    shape = item.meta.get("shape")
    with body.graph.inserting_before(reader):
        constant: Any = factor
        if isinstance(factor, Tensor):
            name = f"{item.name}_for_{reader.name}"
            like = next(body.parameters(), factor)
            body.register_buffer(name, factor.to(like).clone())
            constant = body.graph.create_node("get_attr", name)
            shape = shape and torch.broadcast_shapes(tuple(shape), tuple(factor.shape))
        product = body.graph.call_function(operator.mul, (item, constant))
    product.meta = {**copy.copy(item.meta), "shape": shape} if shape else copy.copy(item.meta)
    product.meta["nn_module_stack"] = reader.meta.get("nn_module_stack", {})  # else it would end the other's module
    reader.replace_input_with(item, product)
    return product


class _Rescaling:
    """One run of ``rescale``."""

    def __init__(
        self,
        body: fx.GraphModule,
        at_neuron: Callable[[str, fx.Node, Any], Scale],
        input_scale: float,
        currents: Mapping[str, Scale],
        output: float | None,
        align: bool,
    ) -> None:
        self.body, self.at_neuron, self.input_scale, self.align = body, at_neuron, input_scale, align
        self.scales: dict[fx.Node, Any] = {}
        self.place = {node: index for index, node in enumerate(body.graph.nodes)}
        self.wanted = _wanted(body, self.place, currents, output)

    def run(self) -> None:
        for node in list(self.body.graph.nodes):
            module = module_of(self.body, node)
            if node.op == "placeholder":
                self.scales[node] = self.input_scale
            elif not depends_on_input(node):
                self.scales[node] = 1.0
            elif is_weighted(module):
                self._layer(node, module)
            elif node.op == "output" or _is_signal(node):
                self._signal(node, module)

    def _layer(self, node: fx.Node, layer: Any) -> None:
        source: Any = node.args[0]
        if not takes_input(layer, self.scales[source]):
            source = self._brought(node, source, 1.0)
        before = self.scales[source]
        after = self.wanted.get(node, 1.0 if isinstance(before, Tensor) else before)
        if not takes_output(layer, after):
            after = 1.0
        if isinstance(layer, _BatchNorm) and (layer.running_mean is None or layer.running_var is None):
            raise InputError(f"cannot convert '{node.target}': it keeps no running statistics")
        scale_layer(layer, before, after)
        self.scales[node] = after

    def _signal(self, node: fx.Node, module: nn.Module | None) -> None:
        operands = _operands(node)
        _refuse_other_padding(node)
        at = self.wanted.get(node, self.scales[_last(operands, self.place)])
        if node.target is operator.getitem and isinstance(self.scales[operands[0]], tuple):
            self.scales[node] = self.scales[operands[0]][node.args[1]]
            return
        by_channel = any(isinstance(self.scales[item], Tensor) for item in operands)
        if not by_channel and not isinstance(at, Tensor):
            self._aligned(node, at)
        elif node.target in CONCATENATIONS and not (node in self.wanted and self._cat_at(node, at)):
            at = concatenated(self.body, node, self.scales)
        elif node.target not in CONCATENATIONS and len(operands) == 1 and node.op != "output":
            at = self._of_one(node, module, operands[0], at)
        elif node.target not in CONCATENATIONS:
            at = 1.0 if isinstance(at, Tensor) and _has_numbers(node) else at
            self._aligned(node, at)
        self.scales[node] = self.at_neuron(str(node.target), node, at) if isinstance(module, LIF) else at

    def _of_one(self, node: fx.Node, module: nn.Module | None, operand: fx.Node, at: Any) -> Any:
        """The scale of what reads one signal."""
        given = self.scales[operand]
        if isinstance(module, LIF) or (_has_numbers(node) and node.target in _SUMS):
            at = 1.0 if isinstance(at, Tensor) and not isinstance(module, LIF) else at
            self._aligned(node, at)
            return at
        if not isinstance(given, Tensor):
            return given
        found = carried(self.body, node, given, operand)
        if found is not None:
            return found
        self._brought(node, operand, 1.0)
        return 1.0

    def _cat_at(self, node: fx.Node, at: Any) -> bool:
        """Bring the operands of a concatenation to the scale that is wanted of it, if that can be said of each."""
        parts = {item: of_operand(self.body, node, item, at) for item in _operands(node)}
        if any(part is None for part in parts.values()):
            return False
        for item, part in parts.items():
            self._brought(node, item, part)
        return True

    def _aligned(self, node: fx.Node, at: Scale) -> None:
        """Bring a node's operands to one scale."""
        if self.align:
            for item in _operands(node):
                self._brought(node, item, at)
            if node.target in _SUMS and not isinstance(at, Tensor):
                node.args = tuple(item / at if isinstance(item, int | float) else item for item in node.args)

    def _brought(self, node: fx.Node, item: fx.Node, at: Any) -> fx.Node:
        if is_same(self.scales[item], at):
            return item
        product = multiply_edge(self.body, node, item, self.scales[item] / at)
        self.scales[product] = at
        return product


def _wanted(
    body: fx.GraphModule, place: Mapping[fx.Node, int], currents: Mapping[str, Scale], output: float | None
) -> dict[fx.Node, Any]:
    """The scale that each node's readers want of it; where they differ, the first one's. A layer reads any.

    For a neuron layer it is what it wants of its current. What layers gather for layers alone to read (the maps of a
    DenseNet) is wanted in the ANN's own unit.
    """
    found: dict[fx.Node, Any] = {}
    gathered = _gathered_from_layers(body) if currents else set()
    for node in reversed(body.graph.nodes):
        if node.op == "output":
            if output is not None:
                found[node] = output
        elif isinstance(module_of(body, node), LIF):
            if str(node.target) in currents:
                found[node] = currents[str(node.target)]
        else:
            readers = sorted(node.users, key=place.__getitem__)
            asking = (user for user in readers if user in found and not is_weighted(module_of(body, user)))
            asked = (of_operand(body, user, node, found[user]) for user in asking)
            first = next((scale for scale in asked if scale is not None), None)
            if first is not None and not (isinstance(first, Tensor) and _has_numbers(node)):
                found[node] = first
            elif node in gathered:
                found[node] = 1.0
    return found


def _has_numbers(node: fx.Node) -> bool:
    """Whether a node adds a number, which has the ANN's unit."""
    return node.target in _SUMS and any(isinstance(item, int | float) for item in node.args)


def _gathered_from_layers(body: fx.GraphModule) -> set[fx.Node]:
    """The values that are made of weighted layers' outputs alone, without spikes among them."""
    found: set[fx.Node] = set()
    for node in body.graph.nodes:
        if node.op in ("placeholder", "output") or not depends_on_input(node) or isinstance(module_of(body, node), LIF):
            continue
        operands = [item for item in _operands(node) if depends_on_input(item)]
        if is_weighted(module_of(body, node)) or (operands and all(item in found for item in operands)):
            found.add(node)
    return {node for node in found if not is_weighted(module_of(body, node))}


def _is_signal(node: fx.Node) -> bool:
    return "shape" in node.meta or node.target is torch.split


def _operands(node: fx.Node) -> list[fx.Node]:
    """The signals that a node passes on: not the sizes it computes with, nor the constant of a product."""
    found = [item for item in node.all_input_nodes if _is_signal(item)]
    if node.target in SCALINGS and len(found) > 1:
        return [item for item in found if depends_on_input(item)]
    return found


def _last(nodes: list[fx.Node], place: Mapping[fx.Node, int]) -> fx.Node:
    """The node that is computed last, but constants only where there is nothing else."""
    return max(nodes, key=lambda node: (depends_on_input(node), place[node]))


def _refuse_other_padding(node: fx.Node) -> None:
    if node.target is nn.functional.pad:
        value = node.args[3]
        if value:
            raise InputError(f"conversion has no rule for '{node.name}', which pads with {value}: pad with 0")
