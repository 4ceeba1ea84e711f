"""The pass over a traced graph that leaves one spelling for each operation."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.canonical.call import Call
from spikestill.graph.canonical.forms import FORMS, UnknownFormError
from spikestill.graph.canonical.layers import DROPPING, LAYER_NAMES, WEIGHTED, Layers, owner_of, scope_path
from spikestill.graph.canonical.modules import is_leaf, plain_module, written_as
from spikestill.graph.canonical.spellings import ALIASES, NAMES
from spikestill.types import InputError

__all__ = ["Rewriting"]

_SIZES = ("shape", "size")


class Rewriting:
    """A traced graph that becomes canonical, in place.

    Args:
        graph: as torch.fx has traced it.
        model: that was traced; it stays as it is.
        values: of every node.

    Attributes:
        layers: the modules that functions became.
        replaced: by path, the plain modules that stand for variations of them.
    """

    def __init__(self, graph: fx.Graph, model: nn.Module, values: dict[fx.Node, Any]) -> None:
        self.graph, self.model, self.values = graph, model, values
        self.layers = Layers(model, {str(node.target) for node in graph.nodes if node.op == "call_module"})
        self.replaced: dict[str, nn.Module] = {}
        self._now: dict[fx.Node, Any] = {}  # what later nodes are to read in the place of a node
        self._signals: set[fx.Node] = set()
        self._done: list[fx.Node] = []

    def run(self) -> None:
        """Rewrite every node, in order."""
        for node in list(self.graph.nodes):
            original = node.args
            node.args, node.kwargs = (mapped(given, self._current) for given in (node.args, node.kwargs))
            if node.op == "output":
                continue
            if node.op == "placeholder" or (
                isinstance(self.values[node], Tensor | tuple | list)
                and any(self._depends_on_images(item) for item in found_in((node.args, node.kwargs), fx.Node))
            ):
                self._signals.add(node)
            if node.op in ("call_module", "call_function", "call_method"):
                self._note_how_it_is_written(node)
                self._rewrite(node, original)
            self._done.append(node)
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        for node in self.graph.nodes:
            node.meta["depends_on_input"] = node in self._signals
            stack = node.meta.get("nn_module_stack", {})
            node.meta["nn_module_stack"] = {key: (path, _name_of(kind)) for key, (path, kind) in stack.items()}

    def _depends_on_images(self, item: fx.Node) -> bool:
        """Whether a node is a signal, or counts the images."""
        return item in self._signals or (item.op != "get_attr" and self._counts_images(item))

    def _current(self, leaf: Any) -> Any:
        return self._now.get(leaf, leaf) if isinstance(leaf, fx.Node) else leaf

    def _note_how_it_is_written(self, node: fx.Node) -> None:
        """The user's own word for an operation, for reports."""
        if "written" in node.meta:
            return
        stack = list(node.meta.get("nn_module_stack", {}).values())
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        if node.op == "call_module":
            name = type(self.model.get_submodule(str(node.target))).__name__
        elif node.op == "call_function":
            name = NAMES.get(node.target, name)
        as_module = written_as(stack[-1][1]) if stack and isinstance(stack[-1][1], type) else None
        node.meta["written"] = name if node.op == "call_module" else as_module or name
        node.meta["is_module"] = node.op == "call_module" or as_module is not None
        node.meta["in_place"] = self._in_place(node, str(name))
        if as_module is not None and node.op != "call_module":
            node._rename(str(stack[-1][0]))  # as a call of that module would be named

    def _in_place(self, node: fx.Node, name: str) -> bool:
        if node.op == "call_module":
            return bool(getattr(self.model.get_submodule(str(node.target)), "inplace", False))
        if node.kwargs.get("inplace"):
            return True
        if node.target in (operator.iadd, operator.isub, operator.imul, operator.itruediv):
            return True
        own = node.target if isinstance(node.target, str) else NAMES.get(node.target, name)
        return own.endswith("_") and not own.endswith("__")

    def _rewrite(self, node: fx.Node, original: Any) -> None:
        if node.target is torch._assert:  # it holds, or tracing had failed
            self.graph.erase_node(node)
            return
        if self._is_size(node):
            return
        found: Any = node
        try:
            if node.op == "call_module":
                self._rewrite_module(node)
            else:
                found = self._rewrite_function(node)
        except UnknownFormError:
            node.meta["unknown"] = True
        if node.meta["in_place"]:
            self._write(node, original, found)
        if found is not node:
            self._now[node] = found

    # ---------------------------------------------------------------------------------------------------------- sizes

    def _is_size(self, node: fx.Node) -> bool:
        """Whether a node is no tensor; what is known of it is a number then, and the number of images stays a node."""
        value, args = self.values[node], node.args
        if isinstance(value, Tensor) or node.op == "call_module":
            return False
        if (node.target is getattr and args[1:] == ("shape",)) or node.target == "size":
            self._sizes_of(node)
        elif not found_in((args, node.kwargs), fx.Node) or self._is_known(node):
            self._now[node] = value
        elif node.target is operator.getitem and isinstance(args[0], tuple):
            self._now[node] = args[0][args[1]]  # type: ignore[index]
        else:
            return False
        return True

    def _is_known(self, node: fx.Node) -> bool:
        """Whether a number follows from the kind of its tensor: its rank, or the sizes of a parameter."""
        if node.target in ("dim", "ndimension") or (
            node.target is getattr and node.args[1] in ("ndim", "dtype", "device")
        ):
            return True
        given = found_in((node.args, node.kwargs), fx.Node)
        return not isinstance(self.values[node], tuple | list) and not any(
            item in self._signals or self._counts_images(item) for item in given
        )

    def _counts_images(self, node: fx.Node) -> bool:
        return not isinstance(self.values[node], Tensor | tuple | list)

    def _sizes_of(self, node: fx.Node) -> None:
        source: Any = node.args[0]
        sizes: tuple[Any, ...] = tuple(self.values[source].shape) if isinstance(source, fx.Node) else ()
        if source in self._signals:
            with self.graph.inserting_before(node):
                shape = self.graph.call_function(getattr, (source, "shape"))
                count = self.graph.call_function(operator.getitem, (shape, 0))
            self.values[shape], self.values[count] = self.values[source].shape, sizes[0]
            for made in (shape, count):
                made.meta = {**node.meta, "written": "size", "is_module": False, "in_place": False}
            sizes = (count, *sizes[1:])
        axis = node.args[1] if node.target == "size" and len(node.args) > 1 else node.kwargs.get("dim")
        self._now[node] = sizes if axis is None or node.target is getattr else sizes[axis]  # type: ignore[index]

    # -------------------------------------------------------------------------------------------- modules, functions

    def _rewrite_module(self, node: fx.Node) -> None:
        path = str(node.target)
        module = self.model.get_submodule(path)
        if not node.args and len(node.kwargs) == 1:
            node.args, node.kwargs = tuple(node.kwargs.values()), {}
        if path not in self.replaced and is_leaf(module, path) and isinstance(self.values[node], Tensor):
            self.replaced[path] = plain_module(module, self.values[node].dim())

    def _rewrite_function(self, node: fx.Node) -> Any:
        """The node itself, in its canonical form, or what has its value."""
        target = node.target
        call = Call(node, self.values, self._signals, self.model)
        name = LAYER_NAMES.get(target) if node.op == "call_function" else None
        if name is None and getattr(target, "__name__", "") == "stochastic_depth":
            name = "stochastic_depth"
        if name in WEIGHTED:
            weights = _bound(WEIGHTED[name], call)
            path = self.layers.place(call, name, weights)
            self._become_module(node, path)
            return node
        if name is not None:
            layer = _bound(DROPPING[name], call).train(self._trains(node))
            kind = type(layer).__name__ if name == "stochastic_depth" else "dropout"
            self._become_module(node, self.layers.place_new(".".join([*filter(None, [scope_path(node)]), kind]), layer))
            return node
        form = FORMS.get(self._base_name(target))
        if form is None:
            raise UnknownFormError
        found = _bound(form, call)
        if not isinstance(found, tuple):
            return found
        node.op, node.target, node.args, node.kwargs = "call_function", found[0], found[1], {}
        return node

    def _base_name(self, target: Any) -> str:
        name = target if isinstance(target, str) else NAMES.get(target, "")
        name = name.strip("_") if name.startswith("__") else name.removesuffix("_")
        return ALIASES.get(name, name)

    def _become_module(self, node: fx.Node, path: str) -> None:
        signal = node.args[0] if node.args else node.kwargs["input"]
        node.op, node.target, node.args, node.kwargs = "call_module", path, (signal,), {}
        node._rename(path)

    def _trains(self, node: fx.Node) -> bool:
        return self.model.get_submodule(scope_path(node)).training

    # -------------------------------------------------------------------------------------------------- in-place forms

    def _write(self, node: fx.Node, original: Any, result: Any) -> None:
        """What reads a value after it was overwritten reads the result.

        Raises:
            InputError: where another part of the same memory is read later.
        """
        target = original[0] if original else None
        if not isinstance(target, fx.Node) or not isinstance(self.values[target], Tensor):
            return
        if target.op == "get_attr" and owner_of(self.model, target) is not None:
            raise InputError(
                f"'{scope_path(node) or 'the model'}' writes into '{target.target}', which it holds: compute anew"
            )
        place = _memory(self.values[target])
        for other in [*self._done, target]:
            value = self.values.get(other)
            if not isinstance(value, Tensor) or value.untyped_storage().data_ptr() != place[0]:
                continue
            if _memory(value) == place:
                self._now[other] = result
            elif other is not node and value.numel() and set(other.users) & set(self._later_readers(node)):
                where = scope_path(node) or "the model"
                raise InputError(
                    f"'{where}' writes into a part of a value ({node.meta['written']}) that is read again later: "
                    "compute a new one"
                )

    def _later_readers(self, node: fx.Node) -> list[fx.Node]:
        nodes = list(self.graph.nodes)
        return nodes[nodes.index(node) + 1 :]


def _name_of(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _memory(value: Tensor) -> tuple[Any, ...]:
    return value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape), value.stride()


_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "axes": "dim"}


def _bound(form: Callable[..., Any], call: Call) -> Any:
    """A form with a call's arguments.

    Raises:
        UnknownFormError: if it does not take them.
    """
    node = call.node
    parameters = inspect.signature(form).parameters
    kwargs = {
        name if name in parameters else _OTHER_NAMES.get(name, name): value for name, value in node.kwargs.items()
    }
    args = node.args
    if not args and "input" not in kwargs and "self" in kwargs:
        args = (kwargs.pop("self"),)
    several = next((p.name for p in parameters.values() if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    if several in kwargs:
        given = kwargs.pop(several)
        args = (*(args or (kwargs.pop("input"),)), given)
    if kwargs.get("out", 0) is None:
        del kwargs["out"]
    try:
        inspect.signature(form).bind(call, *args, **kwargs)
    except TypeError as error:
        raise UnknownFormError from error
    return form(call, *args, **kwargs)
