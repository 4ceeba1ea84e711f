"""What a conversion changed in a graph, as plain values: a converted network is rebuilt from them without its data."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from spikestill.convert.preparing import neuron_nodes, restructured
from spikestill.graph import SpikingNetwork
from spikestill.types import InputError

__all__ = ["changes", "restore"]

_FUNCTIONS: dict[str, Callable[..., Any]] = {"add": operator.add, "mul": operator.mul}
"""What a conversion puts into a graph; a file can name nothing else."""


def changes(before: fx.GraphModule, after: fx.GraphModule) -> dict[str, Any]:
    """What leads from one graph to the other, but for the values of their tensors; ready for JSON.

    Args:
        before: a spiking graph as ``prepare`` leaves it.
        after: the same, converted.
    """
    old = {node.name: node for node in before.graph.nodes}
    nodes: list[dict[str, Any]] = []
    rewired: list[list[str]] = []
    numbers: dict[str, dict[str, float]] = {}
    following = ""
    for node in reversed(after.graph.nodes):
        if node.name not in old:
            nodes.insert(0, _described(node, following))
            rewired += [[user.name, _origin(node, old), node.name] for user in node.users if user.name in old]
            continue
        following = node.name
        changed = {str(i): arg for i, arg in enumerate(node.args) if isinstance(arg, int | float)}
        if changed and changed != {str(i): arg for i, arg in enumerate(old[node.name].args) if str(i) in changed}:
            numbers[node.name] = changed
    return {
        "nodes": nodes,
        "rewired": rewired,
        "numbers": numbers,
        "parameters": _new_tensors(dict(before.named_parameters()), after.named_parameters()),
        "buffers": _new_tensors(dict(before.named_buffers()), _own_buffers(after)),
    }


def restore(snn: SpikingNetwork, found: Mapping[str, Any]) -> None:
    """Give a spiking network, in place, the graph of a converted one; its tensors are still to be loaded.

    Args:
        snn: made by ``to_spiking`` of the ANN's architecture, as before the conversion.
        found: the ``meta["converted"]`` of the converted network's body: the method's name and its ``changes``.

    Raises:
        InputError: for changes that do not fit this network.
    """
    body = restructured(snn.body, found.get("max_pool", "keep"), found.get("batch_norm", "fold"))
    try:
        _replay(body, found["changes"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"the description of the conversion does not fit the network: {error}") from error
    body.meta["converted"] = dict(found)
    snn.body = body
    snn.read_out_from = int(found.get("read_out_from", 1))


def _replay(body: fx.GraphModule, found: Mapping[str, Any]) -> None:
    for kind, register in (("parameters", _add_parameter), ("buffers", _add_buffer)):
        for path, shape in found[kind].items():
            owner, _, name = path.rpartition(".")
            register(body.get_submodule(owner), name, shape)
    nodes = {node.name: node for node in body.graph.nodes}
    for entry in found["nodes"]:
        arguments = tuple(nodes[arg["node"]] if isinstance(arg, Mapping) else arg for arg in entry["args"])
        with body.graph.inserting_before(nodes[entry["before"]]):
            if entry["op"] == "get_attr":
                made = body.graph.create_node("get_attr", entry["target"], name=entry["name"])
            else:
                function = _FUNCTIONS[entry["target"]]
                made = body.graph.create_node("call_function", function, arguments, name=entry["name"])
                made.meta = copy.copy(arguments[0].meta)
        made.meta["nn_module_stack"] = nodes[entry["before"]].meta.get("nn_module_stack", {})
        nodes[entry["name"]] = made
    for reader, source, made in found["rewired"]:
        nodes[reader].replace_input_with(nodes[source], nodes[made])
    for name, values in found["numbers"].items():
        node = nodes[name]
        node.args = tuple(values.get(str(i), arg) for i, arg in enumerate(node.args))
    body.graph.lint()
    body.recompile()


def _described(node: fx.Node, before: str) -> dict[str, Any]:
    target = str(node.target) if node.op == "get_attr" else _name_of(node.target)
    arguments = [{"node": arg.name} if isinstance(arg, fx.Node) else arg for arg in node.args]
    return {"name": node.name, "op": node.op, "target": target, "args": arguments, "before": before}


def _name_of(function: Any) -> str:
    return next(name for name, known in _FUNCTIONS.items() if known is function)


def _origin(node: fx.Node, old: Mapping[str, fx.Node]) -> str:
    """The name of the older node whose readers a new one has taken over."""
    while node.name not in old and node.args:
        assert isinstance(node.args[0], fx.Node)
        node = node.args[0]
    return node.name


def _new_tensors(old: Mapping[str, torch.Tensor], new: Any) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in new if name not in old or old[name].shape != value.shape}


def _own_buffers(body: fx.GraphModule) -> Iterator[tuple[str, torch.Tensor]]:
    """The buffers but for the neurons', which make place for theirs when they are loaded."""
    neurons = tuple(f"{node.target}." for node in neuron_nodes(body))
    return ((name, value) for name, value in body.named_buffers() if not name.startswith(neurons))


def _add_parameter(owner: nn.Module, name: str, shape: list[int]) -> None:
    like = next(owner.parameters(), torch.empty(0))
    owner.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=like.dtype, device=like.device)))


def _add_buffer(owner: nn.Module, name: str, shape: list[int]) -> None:
    owner.register_buffer(name, torch.zeros(shape))
