"""A spiking graph in the few operations that exchange formats know: the last transformation before a file is written.

What is left afterwards: convolutions without groups, linear layers of vectors, average pooling, flattening, neurons,
sums of signals, and :class:`Scale`. BatchNorm and constant factors are folded into the weights before them; where there
are none (a BatchNorm behind a sum, a factor on a shortcut), they become a layer that acts on each channel alone: a 1x1
convolution or a linear layer with a diagonal matrix, which every reader knows. A concatenation of channels is the sum
of such layers, each of which puts its operand's channels in their place.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.export.pooling import Scale, is_average, lower_pooling
from spikestill.export.rewriting import Rewriting
from spikestill.graph import fold, separate_calls
from spikestill.graph.operations import DROPOUTS, is_max_pool
from spikestill.graph.trace import calls, module_of, shape_of
from spikestill.nn import LIF, MaxGate
from spikestill.tensors import require_finite

__all__ = ["Scale", "lower", "terms_of"]


def lower(body: fx.GraphModule, *, keep_maxima: bool = False) -> fx.GraphModule:
    """A copy of a spiking graph that computes the same (up to rounding) in exchangeable operations.

    Args:
        body: of a spiking network, in evaluation mode; neurons keep their modules' names.
        keep_maxima: leave max pooling of maps as it is, for a format that knows it.

    Raises:
        InputError: for an operation that has no equivalent, by its module's name, with the way out; and for weights
            that are not finite.
    """
    require_finite(body.state_dict(), "the network")
    work = Rewriting(fold(separate_calls(body), strict=False))
    for node in list(calls(work.body.graph)):
        is_signal = "shape" in node.meta and work.constant(node) is None
        if is_signal and not (keep_maxima and _is_plain_maximum(work, node)):
            _lower(work, node)
    work.clean()
    _order_sums(work)
    return work.finished()


def _lower(work: Rewriting, node: fx.Node) -> None:
    """Leave a node, or put what is equivalent to it in its place."""
    module = module_of(work.body, node)
    if isinstance(module, LIF):
        return
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        _lower_convolution(work, node, module)
    elif isinstance(module, nn.Linear):
        if len(shape_of(node) or ()) != 1:
            raise work.refusal(node, "a linear layer of maps has no equivalent: flatten before it")
    elif isinstance(module, _BatchNorm):
        _lower_norm(work, node, module)
    elif isinstance(module, DROPOUTS):
        work.drop(node)
    elif node.target in (torch.flatten, torch.reshape):
        _lower_reshaping(work, node)
    elif is_max_pool(work.body, node):
        if isinstance(module, MaxGate):
            raise work.refusal(node, "no format knows a maximum over time: make the network with max_pool='average'")
        raise work.refusal(node, "NIR knows no maximum: make the network with max_pool='average' (or export to ONNX)")
    elif is_average(node):
        lower_pooling(work, node)
    elif node.target is torch.cat:
        _lower_concatenation(work, node)
    else:
        _lower_arithmetic(work, node)


def _is_plain_maximum(work: Rewriting, node: fx.Node) -> bool:
    """Whether a node is a maximum over windows of a map; it is made a module."""
    if node.target is not torch.max_pool2d:
        return False
    signal, kernel, stride, padding, dilation, ceil_mode = node.args
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)  # type: ignore[arg-type]
    work.replace(node, work.call(node, pool, signal))  # type: ignore[arg-type]
    return True


def _lower_convolution(work: Rewriting, node: fx.Node, layer: nn.Conv1d | nn.Conv2d) -> None:
    if layer.padding_mode != "zeros" and any(layer._reversed_padding_repeated_twice):
        raise work.refusal(node, f"padding is 0 in the formats, not '{layer.padding_mode}': train with zero padding")
    padding = _padding(layer)
    if padding is None:
        raise work.refusal(node, "its padding differs from side to side: use an odd kernel")
    is_square = len(set(layer.kernel_size)) == 1
    if layer.groups == 1 and layer.padding == padding and layer.bias is not None and is_square:
        return
    kind: Any = type(layer)
    weight, padding = _squared(_without_groups(layer.weight.detach(), layer.groups), padding, layer.dilation)
    if len(set(weight.shape[2:])) > 1:
        raise work.refusal(node, f"NIR's tools take a kernel of {layer.kernel_size} for a square one: use odd sizes")
    geometry: Any = (weight.shape[2:], layer.stride, padding, layer.dilation)
    plain: Any = kind(layer.in_channels, layer.out_channels, *geometry, device="meta")
    bias = torch.zeros_like(weight[:, 0, ..., 0]).reshape(len(weight), -1)[:, 0] if layer.bias is None else layer.bias
    plain.weight, plain.bias = nn.Parameter(weight), nn.Parameter(bias.detach().clone())
    work.body.set_submodule(str(node.target), plain.train(layer.training))


def _padding(layer: Any) -> tuple[int, ...] | None:
    """In numbers; None where it is not the same on both sides."""
    if not isinstance(layer.padding, str):
        return tuple(layer.padding)
    sides = layer._reversed_padding_repeated_twice
    before, after = tuple(sides[::2])[::-1], tuple(sides[1::2])[::-1]
    return before if before == after else None


def _without_groups(weight: Tensor, groups: int) -> Tensor:
    """The weights ``[C', C / groups, ...]`` of a grouped convolution as those of an ordinary one, 0 between groups."""
    outputs, inputs = weight.shape[:2]
    dense = weight.new_zeros(outputs, inputs * groups, *weight.shape[2:])
    for group, block in enumerate(weight.chunk(groups)):
        rows = slice(group * len(block), (group + 1) * len(block))
        dense[rows, group * inputs : (group + 1) * inputs] = block
    return dense


def _squared(weight: Tensor, padding: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """A kernel with zeros around it up to its longest side, if it stays in the middle; and the padding for it."""
    sizes = weight.shape[2:]
    sides = [(max(sizes) - size) // 2 if (max(sizes) - size) % 2 == 0 else 0 for size in sizes]
    around = [side for side in reversed(sides) for _ in range(2)]
    wider = tuple(old + side * step for old, side, step in zip(padding, sides, dilation, strict=True))
    return functional.pad(weight, around), wider


def _lower_norm(work: Rewriting, node: fx.Node, norm: _BatchNorm) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise work.refusal(node, "it keeps no running statistics: train it with track_running_stats=True")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    if norm.weight is not None:
        scale, shift = scale * norm.weight, shift * norm.weight
    if norm.bias is not None:
        shift = shift + norm.bias
    work.replace(node, work.by_channel(node, node.args[0], scale, shift))


def _lower_reshaping(work: Rewriting, node: fx.Node) -> None:
    source: Any = node.args[0]
    before, after = shape_of(source), shape_of(node)
    if before == after:
        work.drop(node)
    elif after is None or len(after) != 1:
        raise work.refusal(node, "the formats can only flatten a map to a vector")
    else:
        work.replace(node, work.call(node, nn.Flatten(), source))


def _lower_concatenation(work: Rewriting, node: fx.Node) -> None:
    parts: Any = node.args[0]
    shape = node.meta["shape"]
    if node.args[1] != 1:
        raise work.refusal(node, "only channels can be concatenated")
    start, placed = 0, []
    for part in parts:
        channels = part.meta["shape"][1]
        matrix = torch.zeros(shape[1], channels)
        matrix[start : start + channels] = torch.eye(channels)
        placed.append(work.mixing(node, part, matrix, torch.zeros(shape[1])))
        start += channels
    work.replace(node, work.sum(node, placed))


def _lower_arithmetic(work: Rewriting, node: fx.Node) -> None:
    """Sums, differences, and products with constants."""
    first, second = (*node.args, None)[:2]
    if node.target is operator.add:
        work.replace(node, work.sum(node, [first, second]))
    elif node.target is operator.sub:
        work.replace(node, work.sum(node, [first, work.times(node, second, -1.0)]))
    elif node.target is operator.neg:
        work.replace(node, work.times(node, first, -1.0))
    elif node.target is operator.mul:
        factor = work.constant(second)
        signal, factor = (first, factor) if factor is not None else (second, work.constant(first))
        work.replace(node, work.times(node, signal, factor))
    elif node.target is operator.truediv:
        work.replace(node, work.times(node, first, 1 / work.constant(second)))
    else:
        raise work.refusal(node, "no format has an equivalent for it")


def terms_of(node: fx.Node) -> list[fx.Node]:
    """The signals whose sum a lowered node is; of what is no sum, itself."""
    if node.op == "call_function":
        return [term for item in node.args for term in terms_of(item)]  # type: ignore[arg-type]
    return [node]


def _order_sums(work: Rewriting) -> None:
    """Each sum as ((a + b) + c) + ..., as a reader will add what arrives at a node, and no signal in it twice."""
    for node in list(work.body.graph.nodes):
        if node.op != "call_function":
            continue
        terms = terms_of(node)
        known: list[fx.Node] = []
        for term in terms:
            known.append(work.times(node, term, 1.0) if term in known else term)
        if known != terms or terms_of(node.args[1])[1:]:
            work.replace(node, work.sum(node, known))
    for node in work.body.graph.find_nodes(op="output"):
        if terms_of(node.args[0])[1:]:
            node.replace_input_with(node.args[0], work.times(node.args[0], node.args[0], 1.0))
