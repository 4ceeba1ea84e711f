"""``cut``: a graph into head and tail at a point where exactly one tensor is alive; and the names of such points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from torch import fx

from spikestill.graph.operations import is_activation, is_concatenation_of
from spikestill.graph.trace import calls, scope_of, shape_of
from spikestill.types import InputError, unknown_name

__all__ = [
    "CutPoint",
    "Level",
    "Point",
    "cut",
    "cut_points",
    "levels",
    "named_points",
    "node_named",
    "output_shape",
    "stage_points",
    "stages",
]


@dataclass(frozen=True)
class CutPoint:
    """A place at which all that comes after depends on one tensor alone.

    Attributes:
        name: the outermost module that ends here (``layer2``); where none does, the graph's name of the call.
        names: every module that ends here, outermost first (``layer2``, ``layer2.1``, ``layer2.1.relu``).
        shape: of the tensor, without the batch.
    """

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """A value that has a name, and so can be tapped.

    Attributes:
        shape: of the value, without the batch; empty for what is no tensor.
        is_activation: whether an activation gives it, or, in a spiking graph, a neuron layer.
    """

    shape: tuple[int, ...]
    is_activation: bool


@dataclass(frozen=True)
class Level:
    """The last activated cut point at one resolution.

    Attributes:
        name: of the point.
        shape: of the map, ``(C, H, W)``.
        layers: how many activations (or neuron layers) the graph calls up to there.
        depth: the same as a share of all its activations, in (0, 1].
    """

    name: str
    shape: tuple[int, ...]
    layers: int
    depth: float


def cut_points(traced: fx.GraphModule) -> list[CutPoint]:
    """The single-tensor points of a traced graph, in order; its last value is none."""
    names = _names_by_node(traced.graph)
    return [
        CutPoint(names[node][0], tuple(names[node]), shape_of(node) or ())
        for node in _single_tensor_nodes(traced.graph)
        if node in names
    ]


def named_points(traced: fx.GraphModule) -> dict[str, Point]:
    """Every name that :func:`node_named` knows, with what is there."""
    return {
        name: Point(shape_of(node) or (), is_activation(traced, node))
        for node, names in _names_by_node(traced.graph).items()
        for name in names
    }


def output_shape(traced: fx.GraphModule) -> tuple[int, ...]:
    """The shape of what a graph returns, without the batch: ``(K,)`` of logits."""
    (returned,) = next(node for node in traced.graph.nodes if node.op == "output").all_input_nodes
    return shape_of(returned) or ()


def levels(traced: fx.GraphModule) -> list[Level]:
    """The last activated cut point before every change of resolution, from fine to coarse; one pixel is no map."""
    total = sum(is_activation(traced, node) for node in calls(traced.graph))
    found = []
    for _, group in groupby(_activated_points(traced), key=lambda item: item[0].shape[1:]):
        point, count = list(group)[-1]
        found.append(Level(point.name, point.shape, count, count / total))
    return found


def stage_points(traced: fx.GraphModule) -> list[str]:
    """The names of the ends of the main stages, see :func:`stages`."""
    return [end.name for end in stages(traced)]


def stages(traced: fx.GraphModule) -> list[Level]:
    """The ends of the main stages: the last activated cut point at every resolution, from fine to coarse.

    A stem of a single neuron layer is no stage, nor is what comes after the last map larger than one pixel.
    """
    ends = levels(traced)
    if len(ends) > 1 and ends[0].layers < 2 and any(b.layers - a.layers > 1 for a, b in pairwise(ends)):
        ends = ends[1:]
    return ends


def cut(traced: fx.GraphModule, at: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Head and tail of a graph: ``tail(head(x))`` is the whole, to the last bit. Both share its modules.

    Args:
        traced: from ``trace``, or the ``body`` of a spiking network.
        at: the name of a cut point (see :func:`cut_points`): the path of a module that ends there.

    Raises:
        InputError: for an unknown name, and where more than one tensor is alive.
    """
    node = node_named(traced, at)
    if node not in set(_single_tensor_nodes(traced.graph)):
        raise InputError(f"cannot cut at '{at}': more than one tensor is alive there (see spikestill check)")
    nodes = list(traced.graph.nodes)
    here = nodes.index(node)

    head = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    for item in nodes[: here + 1]:
        known[item] = head.node_copy(item, known.__getitem__)
    head.output(known[node])

    tail = fx.Graph()
    known = {node: tail.placeholder("feature")}
    known[node].meta = dict(node.meta)
    for item in nodes[here + 1 :]:
        known[item] = tail.node_copy(item, known.__getitem__)
    return fx.GraphModule(traced, head, "Head"), fx.GraphModule(traced, tail, "Tail")


def node_named(traced: fx.GraphModule, name: str) -> fx.Node:
    """The node whose value a module's path names: the last one computed inside that module.

    Raises:
        InputError: for a name that no module in the graph has.
    """
    found = {name: node for node, names in _names_by_node(traced.graph).items() for name in names}
    if name not in found:
        raise unknown_name("point", name, found)
    return found[name]


def _names_by_node(graph: fx.Graph) -> dict[fx.Node, list[str]]:
    """Every node's names, outermost first: the modules that end there, or the graph's own name of the call."""
    last: dict[str, fx.Node] = {}
    for node in calls(graph):
        own = [str(node.target)] if node.op == "call_module" else []
        for path in [*scope_of(node), *own]:
            last[path] = node
    names: dict[fx.Node, list[str]] = {}
    for path, node in sorted(last.items(), key=lambda item: item[0].count(".")):
        names.setdefault(node, []).append(path)
    for node in calls(graph):
        if node not in names and node.name not in last:
            names[node] = [node.name]
    return names


def _single_tensor_nodes(graph: fx.Graph) -> Sequence[fx.Node]:
    place = {node: index for index, node in enumerate(graph.nodes)}
    last_use = {node: max((place[user] for user in node.users), default=place[node]) for node in place}
    single: list[fx.Node] = []
    alive: set[fx.Node] = set()
    output = next(node for node in graph.nodes if node.op == "output")
    for node in graph.nodes:
        alive = {other for other in alive if last_use[other] > place[node]}
        if last_use[node] > place[node] and node.op != "get_attr":
            alive.add(node)
        if alive == {node} and node.op != "placeholder" and output not in node.users:
            single.append(node)
    return single


def _activated_points(traced: fx.GraphModule) -> list[tuple[CutPoint, int]]:
    """The cut points whose value is an activation's, or several side by side; with the number of activations so far."""
    names = _names_by_node(traced.graph)
    single = set(_single_tensor_nodes(traced.graph))
    found, count = [], 0
    activated: set[fx.Node] = set()
    for node in calls(traced.graph):
        count += is_activation(traced, node)
        if is_activation(traced, node) or is_concatenation_of(node, activated):
            activated.add(node)
            shape = shape_of(node) or ()
            if node in single and node in names and len(shape) == 3 and shape[1] * shape[2] > 1:
                found.append((CutPoint(names[node][0], tuple(names[node]), shape), count))
    return found
