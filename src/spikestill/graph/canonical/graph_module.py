"""A traced graph as a module: torch.fx's own, but for names that are Python's keywords, copies and pickles."""

from __future__ import annotations

import copy
import keyword
from typing import Any

from torch import fx, nn

from spikestill.graph.ops import FUNCTIONS, OPERATIONS

__all__ = ["TracedModule"]

_KEPT = ("shape", "nn_module_stack", "written", "is_module", "in_place", "depends_on_input", "unknown")
"""What of a node's meta a pickle keeps."""


class TracedModule(fx.GraphModule):
    """A graph and its modules; a copy or a pickle of the whole keeps what it knows: shapes, scopes, conversion."""

    def recompile(self) -> Any:
        """Write the graph's code anew; modules may have Python's keywords as names."""
        for node in self._graph.nodes:
            if node.op in ("call_module", "get_attr") and any(map(keyword.iskeyword, str(node.target).split("."))):
                node.target = _Path(node.target)
        return super().recompile()

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedModule:
        made = TracedModule(nn.Module(), _empty(), type(self).__name__)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self._own_state(), memo))
        made.graph = copy.deepcopy(self._graph)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self).__name__, self._own_state(), [_described(node) for node in self._graph.nodes])

    def _own_state(self) -> dict[str, Any]:
        fresh = vars(TracedModule(nn.Module(), _empty())).keys() - vars(nn.Module()).keys() - {"meta"}
        return {name: value for name, value in vars(self).items() if name not in fresh}


class _Part(str):
    __slots__ = ()

    def isidentifier(self) -> bool:
        return super().isidentifier() and not keyword.iskeyword(self)


class _Path(str):
    """A module's path; torch.fx asks its parts whether they may be written after a dot."""

    __slots__ = ()

    def split(self, *args: Any, **kwargs: Any) -> Any:
        return [_Part(part) for part in super().split(*args, **kwargs)]


class _NodeName(str):
    """Stands for a node among pickled arguments."""

    __slots__ = ()


_NAMES = {row.function: row.name for row in OPERATIONS}


def _empty() -> fx.Graph:
    graph = fx.Graph()
    graph.output(None)
    return graph


def _described(node: fx.Node) -> tuple[Any, ...]:
    target = node.target
    if node.op == "call_function" and target in _NAMES:  # not each of torch's functions can be pickled
        target = ("operation", _NAMES[target])  # type: ignore[assignment]
    args, kwargs = (fx.node.map_arg(given, lambda item: _NodeName(item.name)) for given in (node.args, node.kwargs))
    # torch.fx's own lists and mappings are not pickled: they become plain again.
    return node.op, node.name, target, _plain(args), _plain(kwargs), {k: node.meta[k] for k in _KEPT if k in node.meta}


def _plain(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_plain(value) for value in item]
    if isinstance(item, tuple):
        return tuple(_plain(value) for value in item)
    if isinstance(item, slice):
        return _Slice(tuple(_plain(value) for value in (item.start, item.stop, item.step)))
    return item


class _Slice(tuple[Any, ...]):
    """A slice, which Python before 3.14 cannot hash nor every version pickle by itself."""

    __slots__ = ()


def _rebuilt(name: str, state: dict[str, Any], nodes: list[tuple[Any, ...]]) -> TracedModule:
    graph, made = fx.Graph(), dict[str, fx.Node]()

    def restored(item: Any) -> Any:
        if isinstance(item, _NodeName):
            return made[str(item)]
        if isinstance(item, _Slice):
            return slice(*map(restored, item))
        if isinstance(item, dict):
            return {key: restored(value) for key, value in item.items()}
        return type(item)(map(restored, item)) if isinstance(item, tuple | list) else item

    for op, own, target, args, kwargs, meta in nodes:
        function = FUNCTIONS[target[1]] if isinstance(target, tuple) else target
        node = graph.create_node(op, function, restored(args), restored(kwargs), name=own)
        node.meta = dict(meta)
        made[own] = node
    traced = TracedModule(nn.Module(), _empty(), name)
    traced.__dict__.update(state)
    traced.graph = graph
    return traced
