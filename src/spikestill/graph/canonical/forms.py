"""The canonical form of each operation, by the name that torch has for it.

A form is a function whose parameters are those of torch's own function or method, by the same names. It returns the
canonical function and its positional arguments; or a node (or number) that has the value already. What it cannot bind
or express stays as it is written, and is refused by its name.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from spikestill.graph.canonical.call import Call

__all__ = ["FORMS", "UnknownFormError"]

Form = tuple[Callable[..., Any], tuple[Any, ...]]


class UnknownFormError(Exception):
    """The call has no canonical form."""


# ------------------------------------------------------------------------------------------------------- arithmetic


def add(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return _sum(call, operator.add, input, call.scaled(other, alpha))


def sub(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return _sum(call, operator.sub, input, call.scaled(other, alpha))


def rsub(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return operator.sub, (other, call.scaled(input, alpha))


def mul(call: Call, input: Any, other: Any) -> Any:
    if not isinstance(input, fx.Node) or (not call.is_signal(input) and call.is_signal(other)):
        return operator.mul, (other, input)
    return operator.mul, (input, other)


def div(call: Call, input: Any, other: Any, *, rounding_mode: Any = None) -> Any:
    _require(rounding_mode is None)
    return operator.truediv, (input, other)


def neg(call: Call, input: Any) -> Any:
    return operator.neg, (input,)


def pos(call: Call, input: Any) -> Any:
    return input


def _sum(call: Call, function: Any, first: Any, second: Any) -> Any:
    if function is operator.add and not isinstance(first, fx.Node):
        first, second = second, first
    if isinstance(second, int) and second == 0:  # Python's sum() begins with it
        return first
    return function, (first, second)


# ------------------------------------------------------------------------------------------------------ activations


def relu(call: Call, input: Any, inplace: bool = False) -> Any:
    return functional.relu, (input,)


def relu6(call: Call, input: Any, inplace: bool = False) -> Any:
    return functional.hardtanh, (input, 0.0, 6.0)


def hardtanh(call: Call, input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Any:
    return clamp(call, input, min_val, max_val)


def clamp(call: Call, input: Any, min: Any = None, max: Any = None) -> Any:
    if min is None and max is not None:
        return clamp_max(call, input, max)
    lowest, ceiling = call.number(min), call.number(max)
    _require(lowest == 0 and (max is None or (ceiling is not None and ceiling > 0)))
    if ceiling is None or math.isinf(ceiling):
        return functional.relu, (input,)
    return functional.hardtanh, (input, 0.0, float(ceiling))


def clamp_min(call: Call, input: Any, min: Any) -> Any:
    return clamp(call, input, min)


def clamp_max(call: Call, input: Any, max: Any) -> Any:
    """``min(max(x, 0), c)`` in two calls."""
    ceiling = call.number(max)
    rectified = input if isinstance(input, fx.Node) and input.target is functional.relu else None
    if rectified is None or ceiling is None or ceiling <= 0 or len(rectified.users) > 1:
        raise UnknownFormError
    return functional.hardtanh, (rectified.args[0], 0.0, ceiling)


def maximum(call: Call, input: Any, other: Any) -> Any:
    _require(isinstance(input, fx.Node) and isinstance(other, fx.Node))  # of one tensor, it is along an axis
    if call.number(input) == 0:
        return clamp(call, other, input)
    return clamp(call, input, other)


def minimum(call: Call, input: Any, other: Any) -> Any:
    _require(isinstance(input, fx.Node) and isinstance(other, fx.Node))
    if call.number(input) is not None:
        return clamp_max(call, other, input)
    return clamp_max(call, input, other)


def threshold(call: Call, input: Any, threshold: Any, value: Any, inplace: bool = False) -> Any:
    _require(call.number(threshold) == 0 and call.number(value) == 0)
    return functional.relu, (input,)


def leaky_relu(call: Call, input: Any, negative_slope: Any = 0.01, inplace: bool = False) -> Any:
    _require(negative_slope == 0)
    return functional.relu, (input,)


# ------------------------------------------------------------------------------------------------------------ shape


def reshape(call: Call, input: Any, *shape: Any, size: Any = None) -> Any:
    sizes = call.flat(size if size is not None else shape)
    if isinstance(sizes[0], torch.dtype):
        raise UnknownFormError
    return _reshaped(call, input, sizes[0] == -1 or isinstance(sizes[0], fx.Node), tuple(sizes))


def reshape_as(call: Call, input: Any, other: Any) -> Any:
    return _reshaped(call, input, call.is_signal(input) and call.is_signal(other), None)


def flatten(call: Call, input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    axes = call.axes(input, start_dim)[0], call.axes(input, end_dim)[0]
    return _reshaped(call, input, axes[0] > 0, None, (torch.flatten, (input, *axes)))


def unflatten(call: Call, input: Any, dim: int, sizes: Any) -> Any:
    return _reshaped(call, input, call.axes(input, dim)[0] > 0, None)


def squeeze(call: Call, input: Any, *dim: Any) -> Any:
    axes = call.axes(input, call.flat(dim)) if dim else ()
    return _reshaped(call, input, 0 not in axes, (-1, *call.shape(call.node)[1:]))


def unsqueeze(call: Call, input: Any, dim: int) -> Any:
    return _reshaped(call, input, dim % (len(call.shape(input)) + 1) > 0, (1, -1, *call.shape(input)[1:]))


def _reshaped(call: Call, signal: Any, keeps_images: bool, sizes: Any, as_written: Form | None = None) -> Any:
    """The same values in another shape; of signals whose first axis stays, by the shapes alone."""
    before, after = call.shape(signal), call.shape(call.node)
    if not call.is_signal(signal):
        return torch.reshape, (signal, after)
    if not keeps_images or not before or not after or before[0] != after[0]:
        return as_written or (torch.reshape, (signal, after if sizes is None else sizes))
    while _keeps_images(signal):  # a reshaping of a reshaping is one
        signal = signal.args[0]
        before = call.shape(signal)
    if before == after:
        return signal
    kept = len(after) - 1
    if kept >= 1 and before[:kept] == after[:kept] and len(before) > len(after):
        return torch.flatten, (signal, kept, len(before) - 1)
    return torch.reshape, (signal, (-1, *after[1:]))


def _keeps_images(signal: Any) -> bool:
    """Whether a signal is a reshaping, in its canonical form, whose first axis is that of the images."""
    if signal.target is torch.flatten:
        return bool(signal.args[1] > 0)
    return signal.target is torch.reshape and signal.args[1][0] == -1


def permute(call: Call, input: Any, *dims: Any) -> Any:
    return torch.permute, (input, call.axes(input, call.flat(dims)))


def transpose(call: Call, input: Any, dim0: int, dim1: int) -> Any:
    order = list(range(len(call.shape(input))))
    first, second = call.axes(input, (dim0, dim1))
    order[first], order[second] = second, first
    return torch.permute, (input, tuple(order))


def contiguous(call: Call, input: Any, *, memory_format: Any = None) -> Any:
    return input


def getitem(call: Call, input: Any, index: Any) -> Any:
    if not isinstance(call.value(input), Tensor):
        return _parts(call, input)[index] if isinstance(index, slice) else (operator.getitem, (input, index))
    indices = index if isinstance(index, tuple) else (index,)
    before, after = call.shape(input), call.shape(call.node)
    if indices and _is_whole(indices[0]) and math.prod(before) == math.prod(after):
        plain = all(item is None or item is ... or isinstance(item, int | slice) for item in indices)
        backwards = any(isinstance(item, slice) and (item.step or 1) < 0 for item in indices)
        if plain and not backwards:
            return _reshaped(call, input, True, None)
    return operator.getitem, (input, index)


def _parts(call: Call, signals: Any) -> list[Any]:
    """The parts that a split has made, one by one."""
    if not isinstance(signals, fx.Node):
        return list(signals)
    return [call.before(operator.getitem, signals, index) for index in range(len(call.value(signals)))]


def _is_whole(item: Any) -> bool:
    return item is ... or item == slice(None)


def narrow(call: Call, input: Any, dim: int, start: Any, length: Any) -> Any:
    (axis,) = call.axes(input, dim)
    return getitem(call, input, (*(slice(None),) * axis, slice(start, start + length)))


def select(call: Call, input: Any, dim: int, index: int) -> Any:
    (axis,) = call.axes(input, dim)
    return getitem(call, input, (*(slice(None),) * axis, index))


def chunk(call: Call, input: Any, chunks: Any, dim: int = 0) -> Any:
    return split(call, input, None, dim)


def split(call: Call, tensor: Any, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None) -> Any:
    (axis,) = call.axes(tensor, dim)
    return torch.split, (tensor, tuple(part.shape[axis] for part in call.value(call.node)), axis)


def tensor_split(call: Call, input: Any, indices_or_sections: Any, dim: int = 0) -> Any:
    return split(call, input, None, dim)


def cat(call: Call, tensors: Any, dim: int = 0) -> Any:
    return torch.cat, (_parts(call, tensors), call.axes(call.node, dim)[0])


# --------------------------------------------------------------------------------------------------- neighbourhoods


def pad(call: Call, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    if not any(pad):
        return input
    return functional.pad, (input, tuple(pad), mode, value)


def interpolate(
    call: Call,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Any:
    size = tuple(size) if isinstance(size, Sequence) else size
    scale = tuple(scale_factor) if isinstance(scale_factor, Sequence) else scale_factor
    return functional.interpolate, (input, size, scale, mode, align_corners, recompute_scale_factor, antialias)


def pixel_shuffle(call: Call, input: Any, upscale_factor: int) -> Any:
    return torch.pixel_shuffle, (input, upscale_factor)


def pixel_unshuffle(call: Call, input: Any, downscale_factor: int) -> Any:
    return torch.pixel_unshuffle, (input, downscale_factor)


def channel_shuffle(call: Call, input: Any, groups: int) -> Any:
    return torch.channel_shuffle, (input, groups)


def mean(call: Call, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    _require(dtype is None)
    axes = tuple(range(len(call.shape(input)))) if dim is None or dim == () else call.axes(input, dim)
    return torch.mean, (input, axes, bool(keepdim))


def _average_pool(dimensions: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def form(
        call: Call,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Any:
        kernel, step = _window(kernel_size, stride, dimensions)
        more = (divisor_override,) if dimensions > 1 else ()
        given = (_sizes(padding, dimensions), bool(ceil_mode), bool(count_include_pad), *more)
        return function, (input, kernel, step, *given)

    return form


def _max_pool(dimensions: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def form(
        call: Call,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        _require(not return_indices)
        kernel, step = _window(kernel_size, stride, dimensions)
        given = (_sizes(padding, dimensions), _sizes(dilation, dimensions), bool(ceil_mode))
        return function, (input, kernel, step, *given)

    return form


def _adaptive_pool(dimensions: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def form(call: Call, input: Any, output_size: Any, return_indices: bool = False) -> Any:
        _require(not return_indices)
        before = call.shape(input)[-dimensions:]
        wanted = _sizes(output_size, dimensions)
        return function, (input, tuple(old if new is None else new for old, new in zip(before, wanted, strict=True)))

    return form


def _window(kernel: Any, stride: Any, dimensions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    kernel = _sizes(kernel, dimensions)
    return kernel, kernel if stride is None or stride in ((), []) else _sizes(stride, dimensions)


def _sizes(given: Any, dimensions: int) -> tuple[Any, ...]:
    sizes = tuple(given) if isinstance(given, Sequence) else (given,)
    return sizes * dimensions if len(sizes) == 1 else sizes


def _require(condition: bool) -> None:
    if not condition:
        raise UnknownFormError


FORMS: dict[str, Callable[..., Any]] = {
    **{form.__name__: form for form in (add, sub, rsub, mul, div, neg, relu, relu6, hardtanh, clamp, clamp_min)},
    **{form.__name__: form for form in (clamp_max, maximum, minimum, threshold, leaky_relu, reshape, reshape_as)},
    **{form.__name__: form for form in (flatten, unflatten, squeeze, unsqueeze, permute, transpose, contiguous)},
    **{form.__name__: form for form in (getitem, narrow, select, chunk, split, tensor_split, cat, pad, interpolate)},
    **{form.__name__: form for form in (pixel_shuffle, pixel_unshuffle, channel_shuffle, mean, pos)},
    "avg_pool1d": _average_pool(1, torch.avg_pool1d),
    "avg_pool2d": _average_pool(2, functional.avg_pool2d),
    "avg_pool3d": _average_pool(3, functional.avg_pool3d),
    "max_pool1d": _max_pool(1, torch.max_pool1d),
    "max_pool2d": _max_pool(2, torch.max_pool2d),
    "max_pool3d": _max_pool(3, torch.max_pool3d),
    "adaptive_avg_pool1d": _adaptive_pool(1, functional.adaptive_avg_pool1d),
    "adaptive_avg_pool2d": _adaptive_pool(2, functional.adaptive_avg_pool2d),
    "adaptive_avg_pool3d": _adaptive_pool(3, functional.adaptive_avg_pool3d),
    "adaptive_max_pool1d": _adaptive_pool(1, functional.adaptive_max_pool1d),
    "adaptive_max_pool2d": _adaptive_pool(2, functional.adaptive_max_pool2d),
    "adaptive_max_pool3d": _adaptive_pool(3, functional.adaptive_max_pool3d),
}
