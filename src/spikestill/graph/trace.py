"""From an ``nn.Module`` to its canonical graph, once; every transformation starts here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.graph.canonical.graph_module import TracedModule
from spikestill.graph.canonical.layers import KeyAliases, KeyNames
from spikestill.graph.canonical.modules import is_leaf, written_as
from spikestill.graph.canonical.rewriting import Rewriting
from spikestill.graph.tracers import Tracer, evaluating
from spikestill.types import InputError

__all__ = ["calls", "module_of", "scope_of", "shape_of", "trace"]


def trace(model: nn.Module, input_shape: Sequence[int]) -> fx.GraphModule:
    """The canonical graph of a model (see ``graph/ops.py``), with the shape of every value in it.

    The graph shares its parameters and buffers with the model, which stays as it is, and its ``state_dict`` has the
    model's keys, but for modules that the forward does not call. The forward is followed in evaluation mode; BatchNorm,
    dropout and drop path are modules of the graph and follow its mode.

    Args:
        model: any traceable module of one image batch.
        input_shape: of one image, ``(C, H, W)``.

    Raises:
        InputError: for whatever the forward raises (control flow that depends on data, above all); if the model takes
            more than one input, does not run on this shape, or returns anything but one tensor.
    """
    name = type(model).__name__
    if isinstance(model, fx.GraphModule):
        graph, values, constants = _traced_before(model, input_shape)
    else:
        graph, values, constants = _traced(model, input_shape)
    inputs = [node.name for node in graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) > 1:
        raise InputError(f"{name} takes {len(inputs)} inputs ({', '.join(inputs)}): it must take one")
    rewriting = Rewriting(graph, model, values)
    rewriting.run()
    _refuse_other_output(graph, values, name)
    traced = _assembled(graph, model, rewriting, constants, name)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    if isinstance(model, fx.GraphModule):
        traced.meta.update(model.meta)
    _propagate_shapes(traced, input_shape)
    return traced


def calls(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes that compute something, in order."""
    return (node for node in graph.nodes if node.op in ("call_module", "call_function", "call_method"))


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None for functions and methods."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def scope_of(node: fx.Node) -> list[str]:
    """The paths of the modules around a node, outermost first, its own included where it calls one."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a node's value without the batch; None for what is not a tensor."""
    found = node.meta.get("shape")
    return None if found is None else found[1:]


def _traced(model: nn.Module, input_shape: Sequence[int]) -> tuple[fx.Graph, dict[fx.Node, Any], dict[str, Tensor]]:
    """The graph, the value of every node, and the constants that no module holds."""
    tracer = Tracer(_two_images(model, input_shape))
    try:
        graph = tracer.trace(model)
    except InputError:
        raise
    except Exception as error:  # whatever a forward raises
        if tracer.is_computing:
            where = "" if tracer.where == "the model" else tracer.where
            raise _does_not_run(input_shape, error, where) from error
        raise InputError(
            f"cannot trace '{tracer.where}' of {type(model).__name__}: {_why_untraceable(error)}; replace what depends "
            "on the values of tensors or on the size of the batch, or wrap that part in a torch.nn module"
        ) from error
    return graph, tracer.values, tracer.constants


def _why_untraceable(error: BaseException) -> str:
    line = _first_line(error)
    return "it writes into a part of a tensor (x[...] = value)" if "item assignment" in line else line


def _traced_before(
    model: fx.GraphModule, input_shape: Sequence[int]
) -> tuple[fx.Graph, dict[fx.Node, Any], dict[str, Tensor]]:
    """A copy of a graph that is there already, in which modules of one function are that function."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(model.graph, {}))
    for node in list(calls(graph)):
        module = module_of(model, node)
        if module is not None and written_as(type(module)) and not is_leaf(module, str(node.target)):
            _open(node, module)
    values: dict[fx.Node, Any] = {}
    _run_watched(fx.GraphModule(model, graph, type(model).__name__), input_shape, values.__setitem__)
    return graph, values, {}


def _open(node: fx.Node, module: nn.Module) -> None:
    """A module of one function as that function."""
    path, known = str(node.target), dict[fx.Node, Any]()
    source: Any = node.args[0] if node.args else next(iter(node.kwargs.values()))
    with evaluating(module):
        inner = fx.Tracer().trace(module)
    for item in inner.nodes:
        if item.op == "placeholder":
            known[item] = source
        elif item.op == "output":
            node.replace_all_uses_with(known[item.args[0]])
        else:
            with node.graph.inserting_before(node):
                made = node.graph.node_copy(item, known.__getitem__)
            made.meta = {
                key: value for key, value in node.meta.items() if key not in ("written", "is_module", "in_place")
            }
            made.meta["nn_module_stack"] = {**node.meta.get("nn_module_stack", {}), path: (path, type(module))}
            known[item] = made
    node.graph.erase_node(node)


def _refuse_other_output(graph: fx.Graph, values: dict[fx.Node, Any], name: str) -> None:
    (returned,) = next(node for node in graph.nodes if node.op == "output").args
    if not isinstance(returned, fx.Node) or not isinstance(values[returned], Tensor):
        kind = "something that is no tensor" if isinstance(returned, fx.Node) else f"a {type(returned).__name__}"
        kind = kind.replace("immutable_", "").replace("a NoneType", "None")
        raise InputError(f"{name} returns {kind}: wrap it in a module that returns the logits [B, K] alone")


def _assembled(
    graph: fx.Graph, model: nn.Module, rewriting: Rewriting, constants: dict[str, Tensor], name: str
) -> TracedModule:
    """The graph with its modules, under the model's names."""
    root, layers = nn.Module(), rewriting.layers
    given = {**rewriting.replaced, **layers.made}
    targets = {str(node.target): node.op for node in graph.nodes if node.op in ("call_module", "get_attr")}
    passing: set[str] = set()
    for path in sorted(targets, key=lambda path: path.count(".")):
        _require_free_name(path)
        owner, attribute = _container(root, path)
        if hasattr(owner, attribute):
            continue
        if targets[path] == "call_module":
            owner.add_module(attribute, given.get(path) or model.get_submodule(path))
        elif _put_tensor(owner, attribute, model, path, constants):
            passing.add(path)
    traced = TracedModule(root, graph, name)
    for path in passing:  # torch.fx makes every buffer a key
        holder, _, attribute = path.rpartition(".")
        traced.get_submodule(holder)._non_persistent_buffers_set.add(attribute)
    known = dict(model.named_modules(remove_duplicate=False))
    for path, module in traced.named_modules():
        if path in known and (not path or type(module) is nn.Module or path in layers.made):
            module.training = known[path].training
    for holder, keys in layers.keys.items():
        KeyNames(keys).register(traced.get_submodule(holder))
    if isinstance(model, fx.GraphModule):
        _keep_hooks(model, traced)
    _know_aliases(model, traced)
    return traced


def _keep_hooks(model: fx.GraphModule, traced: fx.GraphModule) -> None:
    """Translate the keys of a ``state_dict`` as the graph did that was traced again."""
    before = dict(model.named_modules())
    for path, module in traced.named_modules():
        if path in before and module is not before[path]:
            module._state_dict_hooks.update(before[path]._state_dict_hooks)
            module._load_state_dict_pre_hooks.update(before[path]._load_state_dict_pre_hooks)


def _know_aliases(model: nn.Module, traced: fx.GraphModule) -> None:
    """Take a state in which a tensor of the graph has a further name."""
    own = traced.state_dict(keep_vars=True)
    names = {id(value): key for key, value in own.items() if isinstance(value, Tensor)}
    state = model.state_dict(keep_vars=True)
    aliases = {key: names[id(value)] for key, value in state.items() if key not in own and id(value) in names}
    if aliases:
        traced._register_load_state_dict_pre_hook(KeyAliases(aliases).read)


def _container(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    *parts, attribute = path.split(".")
    for part in parts:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    return root, attribute


def _put_tensor(owner: nn.Module, name: str, model: nn.Module, path: str, constants: dict[str, Tensor]) -> bool:
    """Put what a ``get_attr`` asks for into its place; whether it is a tensor that is no key of the ``state_dict``."""
    if path in constants:
        owner.register_buffer(name, constants[path], persistent=False)
        return True
    holder, _, attribute = path.rpartition(".")
    source = model.get_submodule(holder)
    value = getattr(source, attribute)
    if isinstance(value, nn.Parameter):
        owner.register_parameter(name, value)
    elif isinstance(value, Tensor):
        is_key = attribute in source._buffers.keys() - source._non_persistent_buffers_set
        owner.register_buffer(name, value, persistent=is_key)
        return not is_key
    else:
        setattr(owner, name, value)
    return False


def _require_free_name(path: str) -> None:
    first = path.partition(".")[0]
    if hasattr(fx.GraphModule, first) or first in ("meta", "_graph", "_code"):
        raise InputError(f"a module of the model is named '{first}', which a traced graph needs for itself: rename it")


def _propagate_shapes(traced: fx.GraphModule, input_shape: Sequence[int]) -> None:
    """Run two empty images through the graph, in evaluation mode, and note each value's shape."""

    def note(node: fx.Node, value: Any) -> None:
        node.meta.pop("shape", None)
        if isinstance(value, Tensor):
            node.meta["shape"] = tuple(value.shape)

    _run_watched(traced, input_shape, note)


def _run_watched(traced: fx.GraphModule, input_shape: Sequence[int], note: Callable[[fx.Node, Any], None]) -> None:
    """Run two empty images through a graph, in evaluation mode, and show every node with its value."""
    try:
        with evaluating(traced), torch.no_grad():
            _WatchedRun(traced, note).run(_two_images(traced, input_shape))
    except Exception as error:
        raise _does_not_run(input_shape, error) from error


def _does_not_run(input_shape: Sequence[int], error: BaseException, where: str = "") -> InputError:
    shape = "x".join(str(size) for size in input_shape)
    place = f"in '{where}', " if where else ""
    return InputError(f"the model does not run on images of {shape}: {place}{_first_line(error)}")


def _two_images(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros((2, *input_shape), dtype=parameter.dtype, device=parameter.device)


class _WatchedRun(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule, note: Callable[[fx.Node, Any], None]) -> None:
        super().__init__(traced)
        self._note = note

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self._note(n, result)
        return result


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
