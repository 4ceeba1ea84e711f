"""Convolutions of spikes on the CPU that add up the weights of those that are there (``spike_convolution.cpp``).

A dense convolution multiplies with every zero. Of spikes most are zeros: where few enough are not, it is faster to list
those, and to add up their weights alone. So is the gradient by the weights, which adds up the gradients of the outputs
that a spike has a part in. The values are those of torch, within rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikestill.dynamics.backend import fuses
from spikestill.dynamics.compiled import library

__all__ = ["Moves", "convolve_spikes", "spikes_weight_gradient"]

_MOST_SPIKES = {torch.float32: 0.5, torch.bfloat16: 0.3}
"""Which part of the inputs may differ from zero: with more, oneDNN's dense convolution is as fast."""
_FEWEST_CHANNELS, _FEWEST_TAPS, _FEWEST_PLACES = 48, 4, 512
"""Below these, lists cost more than they save."""
_MOST_TAPS, _WIDEST = 1024, 16384
"""Places in lists are counted in 16 bits."""
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Moves:
    """How a kernel moves over an image: of height and width its stride, the padding with zeros, and its dilation."""

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)


@torch.no_grad()
def convolve_spikes(images: Tensor, weight: Tensor, bias: Tensor | None, moves: Moves) -> Tensor | None:
    """The convolution ``[N, O, H', W']``, without autograd; None where torch's own is to be taken.

    That is so where it would be no slower (many of the inputs are not zero, or there are few channels or places),
    where a weight is not finite (which shows in a dense convolution whatever is zero), and off the CPU. The result lies
    channels last, whatever the images do.

    Args:
        images: ``[N, C, H, W]``, in the dtype of autocast or converted to it.
        weight: ``[O, C, h, w]``, likewise.
        bias: ``[O]`` or None.
        moves: of the kernel.
    """
    dtypes = {tensor.dtype for tensor in (images, weight, bias) if tensor is not None}
    if torch.is_autocast_enabled("cpu") and torch.float64 not in dtypes:
        images = images.to(torch.get_autocast_dtype("cpu"))
    elif len(dtypes) > 1:
        return None
    weight = _dense(weight)
    seen = _look(images, weight, moves)
    if seen is None:
        return None
    weight, bias = weight.to(images.dtype), None if bias is None else bias.float().contiguous()
    result = torch.empty(seen.output_shape, dtype=images.dtype, device="cpu", memory_format=torch.channels_last)
    is_finite = seen.call("convolve", seen.images, weight, bias, seen.geometry, seen.planes, seen.are_ones, result)
    return result if is_finite else None


@torch.no_grad()
def spikes_weight_gradient(images: Tensor, by_output: Tensor, weight: Tensor, moves: Moves) -> Tensor | None:
    """The gradient ``[O, C, 3, 3]`` by the weights of a convolution, in float32; None where torch's is to be taken.

    That is so as for :func:`convolve_spikes`, for kernels other than 3 x 3 or that move by more than one, and where an
    image or a gradient is not finite.

    Args:
        images: ``[N, C, H, W]``, what was convolved: spikes, or their rates.
        by_output: ``[N, O, H', W']``, the gradient by the result, in the same dtype.
        weight: ``[O, C, 3, 3]``, of which shape and memory layout are read.
        moves: of the kernel.
    """
    steps = (*weight.shape[2:], *moves.stride, *moves.dilation)
    if steps != (3, 3, 1, 1, 1, 1) or by_output.dtype != images.dtype or by_output.shape[3] > _WIDEST:
        return None
    result = _dense(torch.empty_like(weight, dtype=torch.float32))
    seen = _look(images, result, moves)
    if seen is None or not by_output.sum().isfinite() or not (seen.are_ones or seen.images.sum().isfinite()):
        return None
    by_output = by_output.contiguous(memory_format=torch.channels_last)
    seen.call("gradient", seen.images, by_output, seen.geometry, seen.planes, seen.are_ones, result)
    return result


@dataclass(frozen=True)
class _Seen:
    """What the compiled code found of a convolution's images, and was told of it.

    Attributes:
        kernels: the compiled code.
        images: channels last.
        geometry: the sizes, as ``Geometry`` in C++.
        output_shape: ``[N, O, H', W']``.
        planes: which of the inputs are not zero, a bit each.
        are_ones: whether those are all one.
    """

    kernels: ctypes.CDLL
    images: Tensor
    geometry: Any
    output_shape: tuple[int, ...]
    planes: Tensor
    are_ones: bool

    def call(self, name: str, *arguments: Any) -> int:
        return _call(self.kernels, name, self.images.dtype, *arguments)


def _look(images: Tensor, weight: Tensor, moves: Moves) -> _Seen | None:
    """What is to be known before a convolution by events; None where that is not to be tried."""
    if not _is_worth_it(images, weight):
        return None
    count, channels, *size = images.shape
    outputs, _, *kernel = weight.shape
    rules = zip(size, kernel, moves.stride, moves.padding, moves.dilation, strict=True)
    out_size = [(length + 2 * pad - step * (taps - 1) - 1) // move + 1 for length, taps, move, pad, step in rules]
    if min(out_size) < 1 or count * out_size[0] * out_size[1] < _FEWEST_PLACES:
        return None
    kernels = library("spike_convolution.cpp")
    if kernels is None:
        return None
    numbers = (count, *size, channels, outputs, *kernel, *moves.stride, *moves.padding, *moves.dilation, *out_size)
    taps_first = weight.is_contiguous(memory_format=torch.channels_last)
    strides = (channels, 1) if taps_first else (1, kernel[0] * kernel[1])
    geometry = (ctypes.c_int64 * (len(numbers) + 2))(*numbers, *strides)
    padded = (length + 2 * pad for length, pad in zip(size, moves.padding, strict=True))
    planes = torch.zeros(-(-channels // 16), count, *padded, dtype=torch.int16, device="cpu")
    images, found = images.contiguous(memory_format=torch.channels_last), (ctypes.c_int64 * 2)()
    _call(kernels, "look", images.dtype, images, geometry, planes, found)
    if found[0] > _MOST_SPIKES[images.dtype] * images.numel():
        return None
    return _Seen(kernels, images, geometry, (count, outputs, *out_size), planes, found[1] == 0)


def _is_worth_it(images: Tensor, weight: Tensor) -> bool:
    """Whether these tensors are such that it may pay, and nobody watches what is done with them."""
    outputs, channels, *kernel = weight.shape
    is_covered = images.dtype in _NAMES and images.device.type == "cpu" == weight.device.type
    fits = images.dim() == 4 and images.shape[1] == channels
    taps = kernel[0] * kernel[1]
    is_large = min(outputs, channels) >= _FEWEST_CHANNELS and _FEWEST_TAPS <= taps <= _MOST_TAPS
    return is_covered and fits and is_large and fuses()


def _dense(weight: Tensor) -> Tensor:
    """Weights without gaps, the taps of a kernel in their order."""
    is_dense = any(
        weight.is_contiguous(memory_format=order) for order in (torch.channels_last, torch.contiguous_format)
    )
    return weight if is_dense else weight.contiguous()


def _call(kernels: ctypes.CDLL, name: str, dtype: torch.dtype, *arguments: Any) -> int:
    """Calls a function for numbers of this dtype; tensors go by address."""
    function = getattr(kernels, f"{name}_{_NAMES[dtype]}")
    given = (ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else one for one in arguments)
    return int(function(*given, torch.get_num_threads()))
