"""How a model's forward is turned into a graph: torch.fx's tracer, with the value of every node computed beside it.

With the values, control flow that depends on sizes is decided, and sizes are numbers; the number of images alone stays
open. The forward is followed in evaluation mode: what acts otherwise in training is a module of the graph.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.graph.arguments import mapped
from spikestill.graph.canonical.modules import is_leaf, is_stateless, wrapped
from spikestill.types import InputError

__all__ = ["Tracer", "evaluating"]

_CALL, _GETATTR = nn.Module.__call__, nn.Module.__getattr__


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while; every module in it has its own mode back afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class Tracer(fx.Tracer):
    """torch.fx's own, with the value of every node.

    Args:
        images: ``[B, C, H, W]``, what the graph is traced for.

    Attributes:
        where: the path of the module whose forward is being traced, for error messages.
        values: of every node.
        constants: tensors that the forward uses and that no module holds, by the name they get in the graph.
        is_computing: whether a value is being computed, which what has gone wrong then was about.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.where = "the model"
        self.images = images
        self.values: dict[fx.Node, Any] = {}
        self.constants: dict[str, Tensor] = {}
        self.is_computing = False

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """The graph of a module, whose forward is followed in evaluation mode."""
        with evaluating(root), torch.no_grad():
            return super().trace(root, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one call of the graph."""
        return is_leaf(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace the call of a module."""
        if (inner := wrapped(m)) is not None:
            return inner(*args, **kwargs)
        if m not in self.submodule_paths:  # type: ignore[operator]
            return self._call_made_in_forward(m, forward, args, kwargs)
        outer, self.where = self.where, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.where = outer
        return result

    def _call_made_in_forward(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if not is_stateless(module):
            raise InputError(
                f"'{self.where}' makes a new {type(module).__name__} at every call, with weights of its own: "
                "make it in __init__"
            )
        with evaluating(module):
            return forward(*args, **kwargs)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The arguments to trace with; what is None, True or False by default is that, which decides ``if flag:``."""
        if wrapped(self.root) is not None:
            return _call_wrapped, [self.root, self.create_proxy("placeholder", "images", (), {})]
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, [self._default_of(item) for item in args]

    def _default_of(self, item: Any) -> Any:
        if not isinstance(item, fx.Proxy) or not item.node.args or not isinstance(item.node.args[0], bool | None):
            return item
        self.graph.erase_node(item.node)
        return item.node.args[0]

    def create_arg(self, a: Any) -> Any:
        """An argument of a node; a tensor that no module holds becomes a constant of the graph."""
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter) and a not in self._held():
            name = next((name for name, known in self.constants.items() if known is a), None)
            if name is None:
                name = f"_tensor_constant{len(self.constants)}"
                self.constants[name] = a
            return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Node:
        """A new node, with its value."""
        node = super().create_node(kind, target, args, kwargs, *rest, **more)
        if kind != "output":
            self.is_computing = True
            with _as_if_not_traced(), torch.no_grad():
                self.values[node] = self._value(node)
            self.is_computing = False
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a node's value in the model's forward."""
        return _SizedProxy(node, self)

    def _held(self) -> _Identities:
        """The tensors that torch.fx finds in the modules by itself."""
        if not hasattr(self, "_known"):
            self._known = _Identities([*self.tensor_attrs, *self.root.buffers()])
        return self._known

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return node.args[0] if node.args else self.images
        if node.op == "get_attr":
            value: Any = self.constants.get(str(node.target))
            value = functools.reduce(getattr, str(node.target).split("."), self.root) if value is None else value
            return value.clone() if isinstance(value, Tensor) else value
        args, kwargs = (mapped(given, self._of_leaf) for given in (node.args, node.kwargs))
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Callable[..., Any] = node.target  # type: ignore[assignment]
        return function(*args, **kwargs)

    def _of_leaf(self, leaf: Any) -> Any:
        return self.values[leaf] if isinstance(leaf, fx.Node) else leaf


class _Identities:
    def __init__(self, tensors: Sequence[Any]) -> None:
        self._tensors = tensors

    def __contains__(self, tensor: Tensor) -> bool:
        return any(tensor is known for known in self._tensors)


def _call_wrapped(root: nn.Module, images: Any) -> Any:
    inner = wrapped(root)
    assert inner is not None
    return inner(images)


class _SizedProxy(fx.Proxy):
    @property
    def shape(self) -> Any:
        value = self._own_value()
        found: Any = super().__getattr__("shape")
        if not isinstance(value, Tensor):
            return found
        return tuple(value.shape) if self.node.op == "get_attr" else (found[0], *value.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self._own_value().dtype

    @property
    def device(self) -> Any:
        return self._own_value().device

    def __len__(self) -> int:
        value = self._own_value()
        if isinstance(value, Tensor):
            return self.shape[0]
        return len(value)

    def __iter__(self) -> Iterator[fx.Proxy]:
        value = self._own_value()
        if isinstance(value, tuple | list):
            return iter([self[i] for i in range(len(value))])  # type: ignore[index]
        return super().__iter__()

    def _own_value(self) -> Any:
        return self.tracer.values[self.node]  # type: ignore[attr-defined]


@contextlib.contextmanager
def _as_if_not_traced() -> Iterator[None]:
    """Within, modules are called and give their parameters as ever; torch.fx replaces both while it traces."""
    call, attribute = nn.Module.__call__, nn.Module.__getattr__
    nn.Module.__call__, nn.Module.__getattr__ = _CALL, _GETATTR  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__, nn.Module.__getattr__ = call, attribute  # type: ignore[method-assign]
