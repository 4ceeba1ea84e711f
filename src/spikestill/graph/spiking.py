"""``to_spiking``: the ANN's graph with a neuron of its own in the place of every activation *call*."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, fx, nn

from spikestill.graph.check import examine
from spikestill.graph.network import Gradient, SpikingNetwork
from spikestill.graph.operations import is_activation, is_functional_dropout, is_max_pool
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
        ann: any traceable module of one image batch, whose activations are ReLU or ReLU6.
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
    body = trace(copy.deepcopy(ann), input_shape)
    examine(body, type(ann).__name__).raise_if_refused()
    template = neuron or LIF()
    taken: set[str] = set()
    for node in list(calls(body.graph)):
        if is_activation(body, node):
            path = _free_name(body, node, taken, "relu")
            taken.add(path)
            _replace(body, node, path, copy.deepcopy(template))
        elif is_functional_dropout(node):
            probability: Any = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            path = _free_name(body, node, taken, "dropout")
            taken.add(path)
            _replace(body, node, path, nn.Dropout(float(probability)))
        elif max_pool == "average" and is_max_pool(body, node):
            path = _free_name(body, node, taken, "pool")
            taken.add(path)
            _replace(body, node, path, _average_pool(body, node))
    if max_pool == "gate":
        gate_maxima(body)
    body.graph.lint()
    body.delete_all_unused_submodules()
    body.recompile()
    return SpikingNetwork(
        body, timesteps=timesteps, encoder=encoder or Direct(), gradient=gradient, recompute=recompute
    )


def gate_maxima(body: fx.GraphModule) -> None:
    """Put a maximum over time (``MaxGate``) in the place of every max pooling, in place."""
    taken: set[str] = set()
    for node in list(calls(body.graph)):
        module = module_of(body, node)
        if not is_max_pool(body, node) or isinstance(module, MaxGate):
            continue
        path = _free_name(body, node, taken, "pool")
        taken.add(path)
        pool: Any = module
        if module is None:
            given = {name: value for name, value in node.kwargs.items() if name != "input"}
            pool = _Pooling(node.target, node.args[1:], given)
        _replace(body, node, path, MaxGate(pool))
    body.recompile()


class _Pooling(nn.Module):
    """A pooling function with its arguments."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, values: Tensor) -> Tensor:
        pooled: Tensor = self.function(values, *self.args, **self.kwargs)
        return pooled


def _free_name(body: fx.GraphModule, node: fx.Node, taken: set[str], kind: str) -> str:
    """The node's module path, or a name for a functional call in its scope; numbered from 2 where that is taken."""
    if node.op == "call_module":
        path = str(node.target)
    else:
        path = ".".join([*scope_of(node)[-1:], kind])
    existing = {name for name, _ in body.named_modules()} - {str(node.target)}
    name, number = path, 1
    while name in taken or name in existing:
        number += 1
        name = f"{path}_{number}"
    return name


def _replace(body: fx.GraphModule, node: fx.Node, path: str, module: nn.Module) -> None:
    """Put a call of ``module``, from now on at ``path``, in the place of a node."""
    body.add_submodule(path, module.train(body.training))
    source = node.args[0] if node.args else node.kwargs["input"]
    with body.graph.inserting_before(node):
        call = body.graph.call_module(path, (source,))
    call.meta = copy.copy(node.meta)
    node.replace_all_uses_with(call)
    body.graph.erase_node(node)


def _average_pool(body: fx.GraphModule, node: fx.Node) -> nn.Module:
    module: Any = module_of(body, node)
    if isinstance(module, nn.MaxPool2d):
        given: tuple[Any, ...] = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    elif module is None and len(node.args) + len(node.kwargs) > 1:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        positional = dict(zip(names, node.args[1:], strict=False))
        chosen = {**dict(zip(names, (2, None, 0, 1, False), strict=True)), **positional, **node.kwargs}
        given = tuple(chosen[name] for name in names)
    else:
        raise InputError(f"max_pool='average' has no rule for {type(module).__name__} at '{scope_of(node)[-1]}'")
    kernel, stride, padding, dilation, ceil_mode = given
    if dilation not in (1, (1, 1)):
        raise InputError(f"max_pool='average' cannot replace the dilated pooling at '{scope_of(node)[-1]}'")
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=False)
