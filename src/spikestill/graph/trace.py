"""From an ``nn.Module`` to its graph, once; every transformation starts here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.graph.tracers import SizedTracer, Tracer, evaluating, is_from_timm
from spikestill.types import InputError

__all__ = ["calls", "module_of", "scope_of", "shape_of", "trace"]

_UNTRACEABLE = (fx.proxy.TraceError, TypeError, RuntimeError, AssertionError)
"""What torch.fx raises where it cannot follow, and a ``forward`` that asserts something about its input."""


def trace(model: nn.Module, input_shape: Sequence[int]) -> fx.GraphModule:
    """The graph of a model, with the shape of every value in it.

    The graph shares its parameters with the model. Modules that no tracer sees through but whose insides matter here
    are opened: timm's ``BatchNormAct2d`` into normalisation and activation, its ``ConvMlp`` into its layers.

    Args:
        model: any traceable module of one image batch.
        input_shape: of one image, ``(C, H, W)``.

    Raises:
        InputError: if the model cannot be traced (control flow that depends on data), takes more than one input, or
            does not run on this shape, or returns anything but one tensor.
    """
    if isinstance(model, fx.GraphModule):
        graph = fx.Graph()
        graph.output(graph.graph_copy(model.graph, {}))
        traced = fx.GraphModule(model, graph, type(model).__name__)
    else:
        traced = _traced(model, input_shape)
        _split_normalise_and_activate(traced)
    inputs = [node.name for node in traced.graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) > 1:
        raise InputError(f"{type(model).__name__} takes {len(inputs)} inputs ({', '.join(inputs)}): it must take one")
    _propagate_shapes(traced, input_shape)
    if _open_conv_mlps(traced):
        _propagate_shapes(traced, input_shape)
    _refuse_other_output(traced, type(model).__name__)
    for node in calls(traced.graph):
        _pass_by_position(node)
        _leave_batch_size_open(node)
        if node.target == "view":
            # The same values, in whatever layout they lie: channels_last maps have no flat view.
            node.target = "reshape"
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _traced(model: nn.Module, input_shape: Sequence[int]) -> fx.GraphModule:
    """The graph; where its forward asks for sizes before it goes on, that for this shape."""
    tracer = Tracer()
    try:
        try:
            graph = tracer.trace(model)
        except _UNTRACEABLE:
            tracer = SizedTracer(_two_images(model, input_shape))
            graph = tracer.trace(model)
    except _UNTRACEABLE as error:
        raise InputError(
            f"cannot trace '{tracer.where}' of {type(model).__name__}: {_why_untraceable(error)}; replace what depends "
            "on the values of tensors or on the size of the batch, or wrap that part in a torch.nn module"
        ) from error
    return fx.GraphModule(model, graph, type(model).__name__)


def _why_untraceable(error: BaseException) -> str:
    line = _first_line(error)
    return "it writes into a part of a tensor (x[...] = value)" if "item assignment" in line else line


def _refuse_other_output(traced: fx.GraphModule, name: str) -> None:
    (returned,) = next(node for node in traced.graph.nodes if node.op == "output").args
    if not isinstance(returned, fx.Node) or "shape" not in returned.meta:
        kind = "something that is no tensor" if isinstance(returned, fx.Node) else f"a {type(returned).__name__}"
        kind = kind.replace("immutable_", "").replace("a NoneType", "None")
        raise InputError(f"{name} returns {kind}: wrap it in a module that returns the logits [B, K] alone")


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


def _split_normalise_and_activate(traced: fx.GraphModule) -> None:
    """timm's BatchNormAct2d as BatchNorm2d under the same name, then its activation as a module below it."""
    split: set[str] = set()
    for node in list(calls(traced.graph)):
        module = module_of(traced, node)
        if module is None or not (is_from_timm(module, "BatchNormAct2d") or str(node.target) in split):
            continue
        path = str(node.target)
        if path not in split:
            traced.set_submodule(path, _plain_batch_norm(module))
            split.add(path)
        previous = node
        for name in ("drop", "act"):
            if hasattr(traced.get_submodule(path), name):
                previous = _insert_call(traced, previous, f"{path}.{name}")


def _plain_batch_norm(module: Any) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    plain.weight, plain.bias = module.weight, module.bias
    for name, buffer in module.named_buffers(recurse=False):
        setattr(plain, name, buffer)
    for name in ("drop", "act"):
        inner = getattr(module, name)
        if not isinstance(inner, nn.Identity):
            plain.add_module(name, inner)
    return plain.train(module.training)


def _insert_call(traced: fx.GraphModule, after: fx.Node, path: str) -> fx.Node:
    """Put a call of the module at ``path`` between a node and its users."""
    with traced.graph.inserting_after(after):
        node = traced.graph.call_module(path, (after,))
    after.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
    kind = type(traced.get_submodule(path))
    node.meta["nn_module_stack"] = {**after.meta.get("nn_module_stack", {}), path: (path, kind)}
    return node


def _open_conv_mlps(traced: fx.GraphModule) -> bool:
    """timm's ConvMlp as the calls that it makes for the shape it is given."""
    found = False
    for node in list(calls(traced.graph)):
        module = module_of(traced, node)
        if module is None or not is_from_timm(module, "ConvMlp"):
            continue
        found = True
        path, source, least = str(node.target), node.args[0], int(module.input_kernel_size)  # type: ignore[arg-type]
        height, width = (shape_of(source) or (0, least, least))[-2:]  # type: ignore[arg-type]
        previous: Any = source
        with traced.graph.inserting_before(node):
            if height < least or width < least:
                size = (max(least, height), max(least, width))
                previous = traced.graph.call_function(nn.functional.adaptive_avg_pool2d, (previous, size))
                previous.meta["nn_module_stack"] = dict(node.meta["nn_module_stack"])
            for name in ("fc1", "act1", "drop", "fc2", "act2"):
                inner = f"{path}.{name}"
                previous = traced.graph.call_module(inner, (previous,))
                kind = type(traced.get_submodule(inner))
                previous.meta["nn_module_stack"] = {**node.meta["nn_module_stack"], inner: (inner, kind)}
        node.replace_all_uses_with(previous)
        traced.graph.erase_node(node)
    return found


def _pass_by_position(node: fx.Node) -> None:
    """``module(input=x)`` as ``module(x)``, so that a call's signal stands in one place."""
    if node.op == "call_module" and not node.args and len(node.kwargs) == 1:
        node.args, node.kwargs = tuple(node.kwargs.values()), {}


def _leave_batch_size_open(node: fx.Node) -> None:
    """``x.view(x.size(0), ...)`` as ``x.view((-1, ...))``: the graph also runs on all time steps as one batch."""
    if node.target not in ("view", "reshape", torch.reshape) or len(node.args) < 2:
        return
    source: Any = node.args[0]
    sizes: Any = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
    before, after = (item.meta.get("shape") for item in (source, node))
    if not sizes or not isinstance(sizes[0], fx.Node) or not before or not after or before[0] != after[0]:
        return
    if len(sizes) == 1:
        rest = after[1:]
    else:
        rest = tuple(after[axis] if size == -1 else size for axis, size in enumerate(sizes) if axis > 0)
    node.args = (source, (-1, *rest))


def _propagate_shapes(traced: fx.GraphModule, input_shape: Sequence[int]) -> None:
    """Run two empty images through the graph, in evaluation mode, and note each value's shape."""
    try:
        with evaluating(traced), torch.no_grad():
            _ShapeRun(traced).run(_two_images(traced, input_shape))
    except Exception as error:
        shape = "x".join(str(size) for size in input_shape)
        raise InputError(f"the model does not run on images of {shape}: {_first_line(error)}") from error


def _two_images(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros((2, *input_shape), dtype=parameter.dtype, device=parameter.device)


class _ShapeRun(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
