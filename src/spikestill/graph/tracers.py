"""How a model's forward is turned into a graph: torch.fx's tracer, and one that also knows sizes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.graph.arguments import mapped

__all__ = ["SizedTracer", "Tracer", "evaluating", "is_from_timm"]

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


def is_from_timm(module: nn.Module, *names: str) -> bool:
    """Whether it is one of timm's modules of these names."""
    kind = type(module)
    return kind.__name__ in names and kind.__module__.startswith("timm.")


class Tracer(fx.Tracer):
    """torch.fx's own, with timm's composite modules left whole, and switches of ``forward`` as they are by default.

    Attributes:
        where: the path of the module whose forward is being traced, for complaints.
    """

    def __init__(self) -> None:
        super().__init__()
        self.where = "the model"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one call of the graph."""
        return super().is_leaf_module(m, module_qualified_name) or is_from_timm(m, "BatchNormAct2d", "ConvMlp")

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace the call of a module."""
        outer, self.where = self.where, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.where = outer
        return result

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The arguments to trace with; what is None, True or False by default is that, which decides ``if flag:``."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, [self._default_of(item) for item in args]

    def _default_of(self, item: Any) -> Any:
        if not isinstance(item, fx.Proxy) or not item.node.args or not isinstance(item.node.args[0], bool | None):
            return item
        self.graph.erase_node(item.node)
        return item.node.args[0]


class SizedTracer(Tracer):
    """Computes every value beside its node, so that control flow that depends on sizes is decided.

    The size of the batch alone stays open.

    Args:
        images: ``[B, C, H, W]``, what the graph is traced for.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.values: dict[fx.Node, Any] = {}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a node's value in the model's forward."""
        return _SizedProxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Proxy:
        """A new node, with its value."""
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        with _as_if_not_traced(), torch.no_grad():
            self.values[made.node] = self._value(made.node)
        return made

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return node.args[0] if node.args else self.images
        if node.op == "get_attr":
            value = functools.reduce(getattr, str(node.target).split("."), self.root)
            return value.clone() if isinstance(value, Tensor) else value
        args, kwargs = (mapped(given, self._of_leaf) for given in (node.args, node.kwargs))
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            with evaluating(module):
                return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Callable[..., Any] = node.target  # type: ignore[assignment]
        return function(*args, **kwargs)

    def _of_leaf(self, leaf: Any) -> Any:
        return self.values[leaf] if isinstance(leaf, fx.Node) else leaf


class _SizedProxy(fx.Proxy):
    @property
    def shape(self) -> Any:
        found: Any = super().__getattr__("shape")
        value = self.tracer.values[self.node]  # type: ignore[attr-defined]
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


@contextlib.contextmanager
def _as_if_not_traced() -> Iterator[None]:
    """Within, modules are called and give their parameters as ever; torch.fx replaces both while it traces."""
    call, attribute = nn.Module.__call__, nn.Module.__getattr__
    nn.Module.__call__, nn.Module.__getattr__ = _CALL, _GETATTR  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__, nn.Module.__getattr__ = call, attribute  # type: ignore[method-assign]
