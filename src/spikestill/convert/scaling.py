"""Scales: what of the ANN a value of 1 in the spiking network stands for, and the weights that make it so.

A spike is 1, whatever activation it stands for. So every signal has a *scale*: the ANN's value is the scale times the
spiking network's (its mean over time). The rules, for a signal read at scale ``s_in`` and left at ``s_out``:

- a weighted layer: ``W <- W * s_in / s_out``, ``b <- b / s_out``; a BatchNorm that could not be folded is one such
  layer, its running mean ``<- mean / s_in``.
- a neuron layer with threshold ``theta`` whose current is at scale ``c``: its spikes are at scale ``c * theta``.
- everything else (pooling, sums, concatenations, views) keeps the scale, and all its operands must have the same one.
  An added constant of the ANN's is an operand of scale 1.

Where operands differ, and no weighted layer of its own stands before one to absorb the factor (an identity shortcut, a
concatenation of spikes), an explicit multiplication by ``s_in / s_out`` is put on its edge, as a call of
``operator.mul`` with a number. The other way, one scale for all neurons that a shortcut joins, would need no factor,
but would run every one of them at the rates that fit the most active.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.graph.operations import SCALINGS
from spikestill.graph.trace import module_of
from spikestill.nn import LIF
from spikestill.types import InputError

__all__ = ["is_weighted", "rescale"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear, _BatchNorm)
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, operator.sub, torch.add, torch.sub, "add", "add_", "sub")
_SPLITS: tuple[Any, ...] = (torch.chunk, torch.split, "chunk", "split")


def rescale(
    body: fx.GraphModule,
    at_neuron: Callable[[str, fx.Node, float], float],
    *,
    input_scale: float = 1.0,
    currents: Mapping[str, float] | None = None,
    output: float | None = None,
    align: bool = True,
) -> None:
    """Give every signal of a graph its scale, front to back, in place.

    Args:
        body: the spiking graph; every weighted layer is called once.
        at_neuron: is called with each neuron layer's name, its node and the scale of its current, when everything
            before it has its final weights. It sets the threshold, and returns the scale of the spikes.
        input_scale: of the encoded input.
        currents: by neuron layer, the scale that its current is to have. Without it the weights stay untouched: each
            layer leaves the scale it reads, and of operands that differ, the one that is computed last sets the scale.
        output: the scale that the read-out is to have; None leaves it.
        align: False leaves operands of different scales as they are.

    Raises:
        InputError: for a BatchNorm without running statistics, and for padding with another constant than 0.
    """
    scales: dict[fx.Node, float] = {}
    place = {node: index for index, node in enumerate(body.graph.nodes)}
    wanted = _wanted(body, place, currents or {}, output)
    for node in list(body.graph.nodes):
        module = module_of(body, node)
        if node.op == "placeholder":
            scales[node] = input_scale
        elif node.op == "get_attr":
            scales[node] = 1.0
        elif is_weighted(module):
            before = scales[node.args[0]]
            scales[node] = wanted.get(node, before)
            _scale_layer(str(node.target), module, before, scales[node])
        elif node.op == "output" or _is_signal(node):
            at = wanted.get(node, scales[_last(_operands(node), place)])
            if align:
                _align(body, node, scales, at)
            scales[node] = at_neuron(str(node.target), node, at) if isinstance(module, LIF) else at


def is_weighted(module: nn.Module | None) -> bool:
    """Whether a module has weights that can take a factor."""
    return isinstance(module, _WEIGHTED)


def _wanted(
    body: fx.GraphModule, place: Mapping[fx.Node, int], currents: Mapping[str, float], output: float | None
) -> dict[fx.Node, float]:
    """The scale that each node's readers want of it; where they differ, the first one's. A layer reads any.

    For a neuron layer it is what it wants of its current. What layers gather for layers alone to read (the maps of a
    DenseNet) is wanted in the ANN's own unit.
    """
    found: dict[fx.Node, float] = {}
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
            asked = (found[user] for user in readers if user in found and not is_weighted(module_of(body, user)))
            first = next(asked, None)
            if first is not None:
                found[node] = first
            elif node in gathered:
                found[node] = 1.0
    return found


def _gathered_from_layers(body: fx.GraphModule) -> set[fx.Node]:
    """The values that are made of weighted layers' outputs alone, without spikes among them."""
    found: set[fx.Node] = set()
    for node in body.graph.nodes:
        if node.op in ("placeholder", "get_attr", "output") or isinstance(module_of(body, node), LIF):
            continue
        operands = [item for item in _operands(node) if item.op != "get_attr"]
        if is_weighted(module_of(body, node)) or (operands and all(item in found for item in operands)):
            found.add(node)
    return {node for node in found if not is_weighted(module_of(body, node))}


def _is_signal(node: fx.Node) -> bool:
    return "shape" in node.meta or node.target in _SPLITS


def _operands(node: fx.Node) -> list[fx.Node]:
    """The signals that a node passes on: not the sizes it computes with, nor the constant of a product."""
    found = [item for item in node.all_input_nodes if _is_signal(item)]
    if node.target in SCALINGS and len(found) > 1:
        return [item for item in found if item.op != "get_attr"]
    return found


def _last(nodes: list[fx.Node], place: Mapping[fx.Node, int]) -> fx.Node:
    """The node that is computed last, but constants only where there is nothing else."""
    return max(nodes, key=lambda node: (node.op != "get_attr", place[node]))


def _align(body: fx.GraphModule, node: fx.Node, scales: Mapping[fx.Node, float], at: float) -> None:
    """Bring a node's operands to one scale."""
    _refuse_other_padding(body, node)
    for item in _operands(node):
        factor = scales[item] / at
        if math.isclose(factor, 1.0, rel_tol=1e-9):
            continue
        with body.graph.inserting_before(node):
            product = body.graph.call_function(operator.mul, (item, factor))
        product.meta = copy.copy(item.meta)
        product.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})  # else it would end the other's module
        node.replace_input_with(item, product)
    if node.target in _SUMS:
        numbers = (int, float)
        node.args = tuple(item / at if isinstance(item, numbers) else item for item in node.args)


def _refuse_other_padding(body: fx.GraphModule, node: fx.Node) -> None:
    if node.target is nn.functional.pad:
        value = node.kwargs.get("value", node.args[3] if len(node.args) > 3 else None)
        if value:
            raise InputError(f"conversion has no rule for '{node.name}', which pads with {value}: pad with 0")


def _scale_layer(name: str, layer: Any, before: float, after: float) -> None:
    factor = before / after
    if isinstance(layer, _BatchNorm):
        if layer.running_mean is None or layer.running_var is None:
            raise InputError(f"cannot convert '{name}': it keeps no running statistics")
        layer.running_mean = layer.running_mean / before
        if layer.weight is None and factor != 1:
            layer.weight = nn.Parameter(torch.ones_like(layer.running_mean))
    if layer.weight is not None and factor != 1:
        layer.weight = _like(layer.weight, layer.weight * factor)
    if layer.bias is not None and after != 1:
        layer.bias = _like(layer.bias, layer.bias / after)


def _like(old: nn.Parameter, value: torch.Tensor) -> nn.Parameter:
    """A parameter of its own: one that is tied to another layer's must not be scaled twice."""
    return nn.Parameter(value.detach(), requires_grad=old.requires_grad)
