"""``to_spiking``: the ANN's graph with a neuron of its own in the place of every activation *call*."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, fx, nn

from spikestill.graph.check import examine
from spikestill.graph.network import Gradient, SpikingNetwork
from spikestill.graph.operations import is_activation, is_max_pool, is_module
from spikestill.graph.ops import FUNCTIONS, Operation, operation_of
from spikestill.graph.trace import calls, module_of, scope_of, trace
from spikestill.nn import LIF, Direct, Encoder, MaxGate
from spikestill.types import InputError

__all__ = ["MaxPool", "gate_maxima", "to_spiking"]

MaxPool = Literal["keep", "gate", "average"]
"""What becomes of max pooling: the maximum of every step's spikes, the maximum of rates (``MaxGate``), or the mean."""


def to_spiking(
    ann: nn.Module,
    *,
    input_shape: Sequence[int],
    neuron: LIF | None = None,
    timesteps: int = 4,
    encoder: Encoder | None = None,
    gradient: Gradient = "rate",
    recompute: bool = False,
    max_pool: MaxPool = "keep",
) -> SpikingNetwork:
    """The spiking network of an ANN, which itself stays as it is.

    Args:
        ann: any traceable module of one image batch, whose activations are rectifiers: ReLU, ReLU6, ``clamp(0, c)``.
        input_shape: of one image, ``(C, H, W)``.
        neuron: copied for every activation; by default ``LIF()``.
        timesteps: T.
        encoder: by default ``Direct()``.
        gradient: "rate" for rate-based backpropagation, "bptt" for backpropagation through time.
        recompute: save memory for a second forward pass in training (see ``SpikingNetwork``).
        max_pool: "keep" takes the maximum of each step's spikes; "gate" passes on the spikes of the most active input
            of a window, so that its rate is the maximum of the rates; "average" takes the mean instead.

    Returns:
        A network whose ``body`` has the ANN's modules under their own names (so the ANN's ``state_dict`` fits), and the
        neurons: a module's first call keeps its name, its further calls are numbered from 2; a functional activation
        is named by the module around it.

    Raises:
        InputError: if the model cannot be traced, or an operation in it cannot spike: by module name, with the reason.
    """
    if max_pool not in get_args(MaxPool):
        raise InputError(f"max_pool must be 'keep', 'gate' or 'average', not {max_pool!r}")
    body = copy.deepcopy(trace(ann, input_shape))
    examine(body, type(ann).__name__).raise_if_refused()
    template = neuron or LIF()
    taken: set[str] = set()
    own = {scope_of(node)[-1] for node in calls(body.graph) if is_activation(body, node) and is_module(body, node)}
    for node in list(calls(body.graph)):
        if is_activation(body, node):
            path = _free_name(body, node, taken, own, "relu")
            taken.add(path)
            _replace(body, node, path, copy.deepcopy(template))
        elif max_pool == "average" and is_max_pool(body, node):
            _average(node)
    if max_pool == "gate":
        gate_maxima(body)
    body.graph.lint()
    body.delete_all_unused_submodules()
    body.recompile()
    _put_in_order(body)
    return SpikingNetwork(
        body, timesteps=timesteps, encoder=encoder or Direct(), gradient=gradient, recompute=recompute
    )


def _put_in_order(body: fx.GraphModule) -> None:
    """List modules as the graph calls them: neurons were put in last."""
    children: dict[str, dict[str, None]] = {}
    for node in calls(body.graph):
        parts = str(node.target).split(".") if node.op == "call_module" else []
        for depth, part in enumerate(parts):
            children.setdefault(".".join(parts[:depth]), {})[part] = None
    for path, names in children.items():
        holder = body.get_submodule(path)
        holder._modules = {**{name: holder._modules[name] for name in names}, **holder._modules}


def gate_maxima(body: fx.GraphModule) -> None:
    """Put a maximum over time (``MaxGate``) in the place of every max pooling, in place."""
    taken: set[str] = set()
    for node in list(calls(body.graph)):
        if is_max_pool(body, node) and not isinstance(module_of(body, node), MaxGate):
            path = _free_name(body, node, taken, set(), "pool")
            taken.add(path)
            _replace(body, node, path, MaxGate(_Pooling(_row_of(node).name, node.args[1:])))
    body.recompile()


class _Pooling(nn.Module):
    """A pooling, by the name of its operation, with its arguments."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        super().__init__()
        self.name, self.args = name, args

    def forward(self, values: Tensor) -> Tensor:
        pooled: Tensor = FUNCTIONS[self.name](values, *self.args)
        return pooled

    def extra_repr(self) -> str:
        return f"{self.name}{self.args}"


def _free_name(body: fx.GraphModule, node: fx.Node, taken: set[str], own: set[str], kind: str) -> str:
    """The node's module path, or a name for a functional call in its scope; numbered from 2 where that is taken.

    Args:
        body: the graph.
        node: what is to be replaced.
        taken: the names of other modules that were put in.
        own: the paths of modules, each of which is free for the first call of that module.
        kind: the name that a function gets.
    """
    path = scope_of(node)[-1] if is_module(body, node) else ".".join([*scope_of(node)[-1:], kind])
    others = {name for name, _ in body.named_modules()} | taken | (own - ({path} if is_module(body, node) else set()))
    name, number = path, 1
    while name in others:
        number += 1
        name = f"{path}_{number}"
    return name


def _replace(body: fx.GraphModule, node: fx.Node, path: str, module: nn.Module) -> None:
    """Put a call of ``module``, from now on at ``path``, in the place of a node."""
    body.add_submodule(path, module.train(body.training))
    with body.graph.inserting_before(node):
        call = body.graph.call_module(path, (node.args[0],))
    call.meta = copy.copy(node.meta)
    node.replace_all_uses_with(call)
    body.graph.erase_node(node)


def _average(node: fx.Node) -> None:
    """Make a maximum over windows the mean over the same ones."""
    name = _row_of(node).name
    node.target = FUNCTIONS[name.replace("max", "avg")]
    if name.startswith("adaptive"):
        return
    signal, kernel, stride, padding, dilation, ceil_mode = node.args
    if any(step != 1 for step in dilation):  # type: ignore[union-attr]
        where = (scope_of(node) or ["(model)"])[-1]
        raise InputError(f"max_pool='average' cannot replace the dilated pooling at '{where}'")
    node.args = (signal, kernel, stride, padding, ceil_mode, False)


def _row_of(node: fx.Node) -> Operation:
    row = operation_of(node)
    assert row is not None
    return row
