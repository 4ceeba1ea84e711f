"""Functions that take weights (``F.conv2d``, ``F.linear``, ``F.batch_norm``) and functions that drop, as modules.

The module stands where its weights lie, and shares them. If they have other names there than the module's own, the
keys of the ``state_dict`` are translated, so that they stay the ANN's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.graph.canonical.call import Call
from spikestill.graph.canonical.forms import UnknownFormError
from spikestill.nn import StochasticDepth

__all__ = ["LAYER_NAMES", "KeyAliases", "KeyNames", "Layers", "scope_path"]


@dataclass(frozen=True)
class Weights:
    """The weights of a function: by the name that the module has for each, the node that gives it."""

    nodes: Mapping[str, fx.Node]
    make: Callable[[], nn.Module]


class KeyNames:
    """Keys of a ``state_dict``: those of a module's layers, as the ANN has them.

    Args:
        keys: by a layer's key, the ANN's, both from the module that holds the layer.
    """

    def __init__(self, keys: dict[str, str]) -> None:
        self.keys = keys

    def register(self, holder: nn.Module) -> None:
        """Translate the keys of this module from now on."""
        holder._register_state_dict_hook(self.written)
        holder._register_load_state_dict_pre_hook(self.read)

    def written(self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        """The hook of ``state_dict``."""
        for own, ann in self.keys.items():
            if prefix + own in state:
                state[prefix + ann] = state.pop(prefix + own)

    def read(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        """The hook of ``load_state_dict``."""
        for own, ann in self.keys.items():
            if prefix + ann in state:
                state[prefix + own] = state[prefix + ann]
        for ann in self.keys.values():
            state.pop(prefix + ann, None)


class KeyAliases:
    """Further names that the ANN has for tensors of a graph: a module that stands in two places is called by one name.

    Args:
        aliases: by such a key, the one that the graph has.
    """

    def __init__(self, aliases: dict[str, str]) -> None:
        self.aliases = aliases

    def read(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        """The hook of ``load_state_dict``."""
        for alias, own in self.aliases.items():
            if prefix + alias in state:
                state.setdefault(prefix + own, state.pop(prefix + alias))


@dataclass
class Layers:
    """The modules that functions became.

    Attributes:
        model: the ANN, which stays as it is.
        called: the paths of the modules that the graph calls.
        made: by path, the new modules.
        keys: by the path of the module that holds them, the keys to translate.
    """

    model: nn.Module
    called: Container[str]
    made: dict[str, nn.Module] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)

    def place(self, call: Call, name: str, weights: Weights) -> str:
        """Put the layer of a function where its weights lie; its path.

        Raises:
            UnknownFormError: for a weight that is computed.
        """
        if not all(isinstance(node, fx.Node) and node.op == "get_attr" for node in weights.nodes.values()):
            raise UnknownFormError
        targets = {own: str(node.target) for own, node in weights.nodes.items()}
        layer = weights.make()
        for own, node in weights.nodes.items():
            self._share(layer, own, node, call)
        holder, _, _ = targets["weight" if "weight" in targets else next(iter(targets))].rpartition(".")
        if holder and holder not in self.called and all(target == f"{holder}.{own}" for own, target in targets.items()):
            if holder not in self.made:
                self.made[holder] = layer
                return holder
            if _is_same(self.made[holder], layer):
                return holder
        return self._place_beside(holder, name, layer, targets)

    def place_new(self, path: str, layer: nn.Module) -> str:
        """Put a module without weights at a path, or at the next free one, numbered from 2."""
        path = self._free(path)
        self.made[path] = layer
        return path

    def _place_beside(self, holder: str, name: str, layer: nn.Module, targets: dict[str, str]) -> str:
        """Where the weights have other names: a module of its own, in the innermost module that holds them all."""
        while holder and (
            holder in self.called or not all(target.startswith(f"{holder}.") for target in targets.values())
        ):
            holder, _, _ = holder.rpartition(".")
        inside = f"{holder}." if holder else ""
        for path, known in self.made.items():
            if path.startswith(f"{inside}{name}") and _is_same(known, layer):
                return path
        path = self._free(f"{inside}{name}")
        self.made[path] = layer
        local = path.removeprefix(inside)
        persistent = layer.state_dict().keys()
        self.keys.setdefault(holder, {}).update(
            {f"{local}.{own}": target.removeprefix(inside) for own, target in targets.items() if own in persistent}
        )
        return path

    def _free(self, path: str) -> str:
        taken = {name for name, _ in self.model.named_modules()} | self.made.keys()
        found, number = path, 1
        while found in taken:
            number += 1
            found = f"{path}_{number}"
        return found

    def _share(self, layer: nn.Module, name: str, node: fx.Node, call: Call) -> None:
        """Give a layer a parameter or a buffer of the model, or a constant of its forward."""
        owner, attribute = owner_of(self.model, node), str(node.target).rpartition(".")[2]
        value = call.value(node) if owner is None else getattr(owner, attribute)
        if isinstance(value, nn.Parameter):
            layer.register_parameter(name, value)
            return
        is_kept = owner is not None and attribute in owner._buffers.keys() - owner._non_persistent_buffers_set
        layer._parameters.pop(name, None)
        layer._buffers.pop(name, None)
        layer.register_buffer(name, value, persistent=is_kept)


def owner_of(model: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that holds the tensor of a ``get_attr``; None for a constant that the forward makes."""
    holder, _, attribute = str(node.target).rpartition(".")
    try:
        owner = model.get_submodule(holder)
    except AttributeError:
        return None
    return owner if hasattr(owner, attribute) else None


def scope_path(node: fx.Node) -> str:
    """The path of the innermost module whose forward has made a call; empty for the model's own."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _is_same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two layers are the same call of the same weights."""
    if type(one) is not type(other) or repr(one) != repr(other):
        return False
    mine, its = ({**dict(m._parameters), **dict(m._buffers)} for m in (one, other))
    return all(mine.get(name) is value for name, value in its.items() if name in ("weight", "bias", "running_mean"))


# -------------------------------------------------------------------------------------- the functions, as torch's own


def _convolution(kind: Any) -> Callable[..., Weights]:
    def layer(
        call: Call,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Weights:
        shape = call.shape(weight)

        def make() -> nn.Module:
            geometry = (shape[2:], _plain(stride), _plain(padding), _plain(dilation), groups)
            return kind(shape[1] * groups, shape[0], *geometry, bias=bias is not None, device="meta")

        return Weights(_present(weight=weight, bias=bias), make)

    return layer


def _transposed(kind: Any) -> Callable[..., Weights]:
    def layer(
        call: Call,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Weights:
        shape = call.shape(weight)

        def make() -> nn.Module:
            geometry = (shape[2:], _plain(stride), _plain(padding), _plain(output_padding), groups)
            more = {"bias": bias is not None, "dilation": _plain(dilation), "device": "meta"}
            return kind(shape[0], shape[1] * groups, *geometry, **more)

        return Weights(_present(weight=weight, bias=bias), make)

    return layer


def _linear(call: Call, input: Any, weight: Any, bias: Any = None) -> Weights:
    outputs, inputs = call.shape(weight)
    return Weights(_present(weight=weight, bias=bias), lambda: nn.Linear(inputs, outputs, bias is not None, "meta"))


def _batch_norm(
    call: Call,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Weights:
    nodes = _present(weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    first = next(iter(nodes.values()), None)
    owner = owner_of(call.model, first) if isinstance(first, fx.Node) else None
    channels, rank = call.shape(input)[1], len(call.shape(input))

    def make() -> nn.Module:
        kind: Any = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 2]
        own = owner if isinstance(owner, _BatchNorm) else None
        norm = kind(channels, eps, momentum if own is None else own.momentum, weight is not None or bias is not None)
        if running_mean is None:
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        elif own is not None:
            norm.num_batches_tracked = own.num_batches_tracked
        else:  # the ANN does not count its batches
            norm.num_batches_tracked = None
            norm.register_load_state_dict_post_hook(_expect_no_count)
        for name in ("weight", "bias"):
            if name not in nodes:
                norm.register_parameter(name, None)
        return norm

    return Weights(nodes, make)


def _expect_no_count(norm: nn.Module, keys: Any) -> None:
    """Torch's BatchNorm adds a count to a state that has none, and then does not expect it."""
    keys.unexpected_keys[:] = [key for key in keys.unexpected_keys if not key.endswith("num_batches_tracked")]


def _plain(given: Any) -> Any:
    return tuple(given) if isinstance(given, list | tuple) else given


def _present(**nodes: Any) -> dict[str, Any]:
    return {name: node for name, node in nodes.items() if node is not None}


WEIGHTED: dict[str, Callable[..., Weights]] = {
    **{f"conv{n}d": _convolution(kind) for n, kind in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d))},
    "conv_transpose1d": _transposed(nn.ConvTranspose1d),
    "conv_transpose2d": _transposed(nn.ConvTranspose2d),
    "conv_transpose3d": _transposed(nn.ConvTranspose3d),
    "linear": _linear,
    "batch_norm": _batch_norm,
}


def _dropout(kind: Any) -> Callable[..., nn.Module]:
    def module(call: Call, input: Any, p: Any = 0.5, training: Any = True, inplace: Any = False) -> nn.Module:
        return kind(float(p))

    return module


def _train_dropout(call: Call, input: Any, p: Any, train: Any) -> nn.Module:
    return nn.Dropout(float(p))


def _stochastic_depth(call: Call, input: Any, p: Any, mode: Any, training: Any = True) -> nn.Module:
    return StochasticDepth(float(p), mode)


DROPPING: dict[str, Callable[..., nn.Module]] = {
    "dropout": _dropout(nn.Dropout),
    "dropout1d": _dropout(nn.Dropout1d),
    "dropout2d": _dropout(nn.Dropout2d),
    "dropout3d": _dropout(nn.Dropout3d),
    "torch.dropout": _train_dropout,
    "stochastic_depth": _stochastic_depth,
}

LAYER_NAMES: dict[Any, str] = {
    **{getattr(functional, name): name for name in WEIGHTED},
    **{getattr(functional, name): name for name in DROPPING if hasattr(functional, name)},
    torch.dropout: "torch.dropout",
    torch.dropout_: "torch.dropout",
}
"""The name of every function of torch that becomes a module."""
