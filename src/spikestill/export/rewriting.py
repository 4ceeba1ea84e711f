"""What the rules of lowering rewrite a graph with."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.graph.operations import name_of
from spikestill.graph.trace import module_of, scope_of, shape_of
from spikestill.types import InputError

__all__ = ["Rewriting", "Scale"]


class Scale(nn.Module):
    """The product with a constant map of factors ``[C, H, W]``."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, values: Tensor) -> Tensor:
        """``[B, C, H, W]``, and the same."""
        return values * self.scale


class Rewriting:
    """A graph that is being rewritten.

    Attributes:
        body: the graph, every call with a module of its own; changed in place.
    """

    def __init__(self, body: fx.GraphModule) -> None:
        self.body = body
        self._like = next(body.parameters(), torch.empty(0))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._like.dtype

    def refusal(self, node: fx.Node, reason: str) -> InputError:
        """The error for a node that cannot be exported."""
        if node.op == "call_module":
            where = str(node.target)
        else:
            where = next(iter(scope_of(node)[-1:]), node.name)
        return InputError(f"cannot export '{where}' ({name_of(self.body, node)}): {reason}")

    def constant(self, item: Any) -> Any:
        """The value of a number, a parameter or what is computed of such alone; None for a signal."""
        if not isinstance(item, fx.Node):
            return item
        if item.op == "get_attr":
            owner, _, name = str(item.target).rpartition(".")
            return getattr(self.body.get_submodule(owner), name).detach()
        inputs = item.all_input_nodes
        if item.op not in ("call_function", "call_method") or not inputs:
            return None
        values = {source: self.constant(source) for source in inputs}
        if any(value is None for value in values.values()):
            return None
        args = fx.node.map_arg(item.args, values.__getitem__)
        kwargs = fx.node.map_arg(item.kwargs, values.__getitem__)
        if item.op == "call_method":
            return getattr(args[0], str(item.target))(*args[1:], **kwargs)
        return item.target(*args, **kwargs)  # type: ignore[operator]

    def replace(self, node: fx.Node, by: fx.Node) -> None:
        """Let a node's readers read another one; it goes, unless the other one is made of it."""
        node.replace_all_uses_with(by, delete_user_cb=lambda user: user is not by)
        if not node.users:
            self.body.graph.erase_node(node)

    def drop(self, node: fx.Node) -> None:
        """Leave out a node that passes its input on."""
        self.replace(node, node.args[0])  # type: ignore[arg-type]

    def call(self, node: fx.Node, module: nn.Module, source: fx.Node, shape: Sequence[int] | None = None) -> fx.Node:
        """A call of a new module, beside ``node`` and of its shape unless another is given."""
        name, taken = node.name, {path.partition(".")[0] for path, _ in self.body.named_modules()}
        while name in taken:
            name += "_"
        self.body.add_submodule(name, module.train(self.body.training))
        return self._placed(node, name, (source,), shape)

    def sum(self, node: fx.Node, items: Sequence[Any]) -> fx.Node:
        """The sum of signals and constants, beside ``node``, from the left."""
        signals = [item for item in items if self.constant(item) is None]
        if any(shape_of(signal) != shape_of(node) for signal in signals):
            raise self.refusal(node, "its operands have different shapes")
        constants = [constant for item in items if (constant := self.constant(item)) is not None]
        # A bias that is there already takes the constants; else the sum gets a layer of its own.
        at = next(
            (i for i, signal in enumerate(signals) if self._is_own_layer(node, signal) and signals.count(signal) == 1),
            None,
        )
        if at is not None:
            signals[at] = self._shifted(node, signals[at], constants)
        total: fx.Node = signals[0]
        for signal in signals[1:]:
            total = self._placed(node, operator.add, (total, signal))
        return total if at is not None else self._shifted(node, total, constants)

    def times(self, node: fx.Node, signal: Any, factor: Any) -> Any:
        """The product of a signal, or a constant, with a constant, beside ``node``."""
        if factor is None or signal is None:
            raise self.refusal(node, "multiplies two signals, which no layer of a spiking network does")
        constant = self.constant(signal)
        if constant is not None:
            return constant * factor
        scale = self._of_channels(node, factor)
        if scale is not None:
            return self.by_channel(node, signal, scale, torch.zeros_like(scale))
        factors = torch.broadcast_to(factor, node.meta["shape"])[0]
        return self.call(node, Scale(factors.clone()), signal)

    def by_channel(self, node: fx.Node, source: Any, scale: Tensor, shift: Tensor) -> fx.Node:
        """``scale * source + shift`` with ``[C]`` each: in the layer before where only ``node`` reads that."""
        scale, shift = (value.detach().to(self._like) for value in (scale, shift))
        if self._is_own_layer(node, source):
            layer: Any = module_of(self.body, source)
            layer.weight = nn.Parameter(layer.weight.detach() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
            bias = 0 if layer.bias is None else layer.bias.detach() * scale
            layer.bias = nn.Parameter(bias + shift)
            return source  # type: ignore[no-any-return, unused-ignore]
        return self.mixing(node, source, torch.diag(scale), shift)

    def mixing(self, node: fx.Node, source: fx.Node, matrix: Tensor, shift: Tensor) -> fx.Node:
        """The layer, beside ``node``, whose channels are a matrix times those of ``source``, plus ``[C]``."""
        dimensions = len(source.meta["shape"]) - 2
        if dimensions > 2:
            raise self.refusal(node, "there are no three-dimensional layers in the formats")
        kind: Any = (nn.Linear, nn.Conv1d, nn.Conv2d)[dimensions]
        kernel = (1,) * bool(dimensions)
        layer = kind(matrix.shape[1], len(matrix), *kernel, device="meta")
        layer.weight = nn.Parameter(matrix.to(self._like).reshape(*matrix.shape, *[1] * dimensions))
        layer.bias = nn.Parameter(shift.to(self._like))
        shape = (source.meta["shape"][0], len(matrix), *source.meta["shape"][2:])
        return self.call(node, layer, source, shape)

    def clean(self) -> None:
        """Leave out what nothing reads: sizes, constants, assertions."""
        for node in reversed(self.body.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.body.graph.erase_node(node)

    def finished(self) -> fx.GraphModule:
        """The graph, ready to run."""
        self.clean()
        self.body.graph.lint()
        self.body.delete_all_unused_submodules()
        self.body.recompile()
        return self.body

    def _is_own_layer(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether a signal is a weighted layer's, and ``node`` its one reader."""
        layer = module_of(self.body, source)
        return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and list(source.users) == [node]

    def _shifted(self, node: fx.Node, source: fx.Node, constants: Sequence[Any]) -> fx.Node:
        for constant in constants:
            shift = self._of_channels(node, constant)
            if shift is None:
                raise self.refusal(node, "an added constant must be one number a channel")
            source = self.by_channel(node, source, torch.ones_like(shift), shift)
        return source

    def _placed(
        self, node: fx.Node, target: Any, args: tuple[fx.Node, ...], shape: Sequence[int] | None = None
    ) -> fx.Node:
        """A call of a function, or of the module of that name, before ``node`` unless it reads that; with its meta."""
        graph = self.body.graph
        with graph.inserting_after(node) if node in args else graph.inserting_before(node):
            made = graph.call_module(target, args) if isinstance(target, str) else graph.call_function(target, args)
        made.meta = copy.copy(node.meta)
        if shape is not None:
            made.meta["shape"] = tuple(shape)
        return made

    def _of_channels(self, node: fx.Node, constant: Any) -> Tensor | None:
        """A constant as one number a channel, ``[C]``; None where it differs within a channel."""
        full = torch.broadcast_to(torch.as_tensor(constant).to(self._like), node.meta["shape"])[0]
        flat = full.reshape(len(full), -1)
        return flat[:, 0].clone() if bool((flat == flat[:, :1]).all()) else None
