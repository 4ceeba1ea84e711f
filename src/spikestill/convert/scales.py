"""The scale of a signal, a number or one factor a channel, and how it goes through the operations of a graph.

A scale broadcasts against one image's feature, ``[C, 1, 1]`` for a map. What rearranges a signal (a view, a
concatenation, a permutation) rearranges its scale; what mixes values of one channel alone keeps it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.graph.operations import CONCATENATIONS, DROPOUTS, SCALINGS, is_max_pool
from spikestill.graph.trace import module_of, shape_of
from spikestill.nn import LIF

__all__ = [
    "Scale",
    "broadcast",
    "by_channel",
    "carried",
    "concatenated",
    "is_same",
    "of_operand",
    "scale_layer",
    "shorter",
    "takes_input",
    "takes_output",
]

Scale = float | Tensor

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_UNCHANGED: tuple[Any, ...] = (*DROPOUTS, operator.neg, *SCALINGS)
_SUMS: tuple[Any, ...] = (operator.add, operator.sub)
_IN_SPACE: tuple[Any, ...] = (
    *(torch.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d),
    *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d),
    *(functional.interpolate, functional.pad),
)
_REARRANGEMENTS: tuple[Any, ...] = (
    *(torch.flatten, torch.reshape, torch.permute, torch.split, operator.getitem),
    *(torch.pixel_shuffle, torch.pixel_unshuffle, torch.channel_shuffle),
)


def is_same(one: Scale, other: Scale) -> bool:
    """Whether two scales are the same, within rounding."""
    ratio = torch.as_tensor(one, dtype=torch.float64) / torch.as_tensor(other, dtype=torch.float64)
    return bool(((ratio - 1).abs() <= 1e-9).all())


def by_channel(values: Tensor, feature: Sequence[int]) -> Tensor:
    """``[C]`` as a scale of one image's feature ``(C, ...)``."""
    return values.reshape(-1, *[1] * (len(feature) - 1))


def broadcast(scale: Scale, feature: Sequence[int]) -> Tensor:
    """A scale spread over one image's feature, with the batch's axis before it: ``[1, *feature]``."""
    return torch.as_tensor(scale).expand(tuple(feature)).unsqueeze(0)


def shorter(spread: Tensor) -> Tensor:
    """A spread scale ``[1, *feature]`` without its batch, of size 1 on every axis along which it does not change."""
    scale = spread[0]
    for axis in range(scale.dim()):
        first = scale.narrow(axis, 0, 1)
        if bool((scale == first).all()):
            scale = first
    return scale


def carried(body: fx.GraphModule, node: fx.Node, scale: Tensor, source: fx.Node) -> Tensor | tuple[Tensor, ...] | None:
    """The scale with which a node leaves a signal that it reads with one; None where it mixes what differs in it."""
    kind = _kind(body, node)
    if _is(kind, (*_UNCHANGED, *_SUMS)) and shape_of(node) is not None:
        return scale
    before = shape_of(source)
    if before is None:
        return None
    if _is(kind, _IN_SPACE) or is_max_pool(body, node):
        same_in_space = scale.dim() == len(before) and all(size == 1 for size in scale.shape[1:])
        return scale if same_in_space else None
    if kind is torch.mean:
        means = _applied(body, node, broadcast(scale, before), source)
        spread = means.expand(1, *before) if means.dim() == len(before) + 1 else None
        return shorter(means) if _changes_nothing(means, spread, scale, before) else None
    if _is(kind, _REARRANGEMENTS):
        moved = _applied(body, node, broadcast(scale, before), source)
        return tuple(map(shorter, moved)) if isinstance(moved, tuple | list) else shorter(moved)
    return None


def _changes_nothing(means: Tensor, spread: Tensor | None, scale: Tensor, before: Sequence[int]) -> bool:
    """Whether a mean was taken over axes along which the scale does not change."""
    if spread is not None:
        return is_same(spread[0], scale.expand(tuple(before)))
    in_space_alone = means.dim() == 2 and means.shape[1] == before[0]
    return in_space_alone and is_same(means[0], scale.expand(tuple(before)).flatten(1)[:, 0])


def concatenated(body: fx.GraphModule, node: fx.Node, scales: dict[fx.Node, Scale]) -> Tensor:
    """The scale of a concatenation, of those of its operands."""
    spread = {item: broadcast(scales[item], shape_of(item) or ()) for item in node.all_input_nodes}
    parts = fx.node.map_arg(node.args, lambda item: spread[item])
    return shorter(node.target(*parts, **node.kwargs))  # type: ignore[operator]


def of_operand(body: fx.GraphModule, node: fx.Node, operand: fx.Node, wanted: Scale) -> Scale | None:
    """The scale that an operand must have for a node to have a scale; None where that cannot be said."""
    if not isinstance(wanted, Tensor):
        return wanted
    kind, before, after = _kind(body, node), shape_of(operand), shape_of(node)
    if before is None or after is None:
        return None
    if isinstance(module_of(body, node), LIF) or _is(kind, (*_UNCHANGED, *_SUMS)):
        return wanted if before == after else None
    if _is(kind, CONCATENATIONS):
        start, axis = 0, _axis(node)
        for part in node.args[0]:  # type: ignore[union-attr]
            size = (shape_of(part) or ())[axis]  # type: ignore[arg-type]
            if part is operand:
                return wanted if wanted.shape[axis] == 1 else wanted.narrow(axis, start, size)
            start += size
    is_by_channel = wanted.dim() == len(before) and all(size == 1 for size in wanted.shape[1:])
    if is_by_channel and len(before) == len(after) and (_is(kind, _IN_SPACE) or is_max_pool(body, node)):
        return wanted
    return None


def takes_input(layer: Any, scale: Scale) -> bool:
    """Whether a layer's weights can take in the scale of what it reads: one factor an input channel."""
    if not isinstance(scale, Tensor):
        return True
    varying = [axis for axis, size in enumerate(scale.shape) if size > 1]
    channels = scale.dim() - 1 if isinstance(layer, nn.Linear) else 0
    return all(axis == channels for axis in varying)


def takes_output(layer: Any, scale: Scale) -> bool:
    """Whether a layer's weights can leave their values at a scale: one factor an output channel."""
    return takes_input(layer, scale)


def scale_layer(layer: Any, before: Scale, after: Scale) -> None:
    """Weights that read values at one scale and leave them at another."""
    if isinstance(layer, _BatchNorm):
        _scale_norm(layer, before, after)
        return
    weight = layer.weight
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        layer.weight = _like(weight, _by_channels(layer, weight.detach(), _flat(before), _flat(after)))
    elif before / after != 1:
        layer.weight = _like(weight, weight * (before / after))
    if layer.bias is not None and not is_same(after, 1.0):
        layer.bias = _like(layer.bias, layer.bias / _flat(after))


def _scale_norm(layer: _BatchNorm, before: Scale, after: Scale) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    before, after = _flat(before), _flat(after)
    layer.running_mean = (layer.running_mean / before).to(layer.running_mean)
    factor = before / after
    if is_same(factor, 1.0) and is_same(after, 1.0):
        return
    if layer.weight is None and not is_same(factor, 1.0):
        layer.weight = nn.Parameter(torch.ones_like(layer.running_mean))
    if layer.weight is not None:
        layer.weight = _like(layer.weight, layer.weight * factor)
    if layer.bias is not None:
        layer.bias = _like(layer.bias, layer.bias / after)


def _by_channels(layer: Any, weight: Tensor, before: Scale, after: Scale) -> Tensor:
    """Weights ``[O, I / g, ...]``, of a transposed convolution ``[I, O / g, ...]``, with the factors of channels."""
    groups = getattr(layer, "groups", 1)
    shape = weight.unflatten(0, (groups, -1))  # [g, O / g, I / g, ...], or [g, I / g, O / g, ...]
    is_transposed = isinstance(layer, _TRANSPOSED)
    inputs, outputs = (1, 2) if is_transposed else (2, 1)

    def along(scale: Scale, axis: int) -> Scale:
        if not isinstance(scale, Tensor) or scale.numel() == 1:
            return scale
        sizes = [1] * shape.dim()
        sizes[0], sizes[axis] = groups, -1
        return scale.to(weight.dtype).reshape(sizes)

    scaled: Tensor = shape * along(before, inputs) / along(after, outputs)
    return scaled.flatten(0, 1).contiguous()


def _flat(scale: Scale) -> Scale:
    return scale.flatten() if isinstance(scale, Tensor) else scale


def _like(old: nn.Parameter, value: Tensor) -> nn.Parameter:
    """A parameter of its own: one that is tied to another layer's must not be scaled twice."""
    return nn.Parameter(value.detach().to(old.dtype), requires_grad=old.requires_grad)


def _applied(body: fx.GraphModule, node: fx.Node, spread: Tensor, source: fx.Node) -> Any:
    """What a node makes of a spread scale."""
    module = module_of(body, node)
    if module is not None:
        return module(spread)
    return node.target(*fx.node.map_arg(node.args, lambda item: spread if item is source else item))  # type: ignore[operator]


def _axis(node: fx.Node) -> int:
    """The axis of a concatenation, of one image's feature."""
    return int(node.args[1]) - 1  # type: ignore[arg-type]


def _kind(body: fx.GraphModule, node: fx.Node) -> Any:
    module = module_of(body, node)
    return node.target if module is None else type(module)


def _is(kind: Any, known: Sequence[Any]) -> bool:
    return any(kind is item for item in known)
