"""Convolutions of spikes on the CPU that add up the weights of those that are there (``spike_convolution.cpp``).

A dense convolution multiplies with every zero. Of spikes most are zeros: where few enough are not, it is faster to list
those, and to add up their weights alone. The values are those of torch's convolution, within rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from spikestill.dynamics.backend import fuses
from spikestill.dynamics.compiled import library

__all__ = ["convolve_spikes"]

_MOST_SPIKES = {torch.float32: 0.5, torch.bfloat16: 0.3}
"""Which part of the inputs may differ from zero: with more, oneDNN's dense convolution is as fast."""
_FEWEST_CHANNELS, _FEWEST_TAPS, _FEWEST_PLACES = 48, 4, 512
"""Below these, lists cost more than they save."""
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@torch.no_grad()
def convolve_spikes(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor | None:
    """The convolution ``[N, O, H', W']``, without autograd; None where torch's own is to be taken.

    That is so where it would be no slower (many of the inputs are not zero, or there are few channels or places),
    where a weight is not finite (which shows in a dense convolution whatever is zero), off the CPU, and where the
    images are not channels last.

    Args:
        images: ``[N, C, H, W]``, in the dtype of autocast or converted to it.
        weight: ``[O, C, h, w]``, likewise.
        bias: ``[O]`` or None.
        stride: of height and width.
        padding: of height and width, with zeros.
        dilation: of height and width.
    """
    if torch.is_autocast_enabled("cpu"):
        images = images.to(torch.get_autocast_dtype("cpu"))
    kernels = _kernels(images, weight)
    if kernels is None:
        return None
    count, channels, *size = images.shape
    outputs, _, *kernel = weight.shape
    rules = zip(size, kernel, stride, padding, dilation, strict=True)
    out_size = [(length + 2 * pad - step * (taps - 1) - 1) // move + 1 for length, taps, move, pad, step in rules]
    if min(out_size) < 1 or count * out_size[0] * out_size[1] < _FEWEST_PLACES:
        return None

    numbers = (count, *size, channels, outputs, *kernel, *stride, *padding, *dilation, *out_size)
    geometry = ctypes.byref((ctypes.c_int64 * len(numbers))(*numbers))
    padded = [length + 2 * pad for length, pad in zip(size, padding, strict=True)]
    planes = torch.zeros(-(-channels // 16), count, *padded, dtype=torch.int16)
    found, name, threads = (ctypes.c_int64 * 2)(), _NAMES[images.dtype], torch.get_num_threads()
    getattr(kernels, f"look_{name}")(_address(images), geometry, _address(planes), found, threads)
    if found[0] > _MOST_SPIKES[images.dtype] * images.numel():
        return None

    weight = weight.to(images.dtype).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.float().contiguous()
    result = torch.empty(count, outputs, *out_size, dtype=images.dtype, memory_format=torch.channels_last)
    given = (_address(images), _address(weight), _address(bias), geometry, _address(planes), found[1] == 0)
    is_finite = getattr(kernels, f"convolve_{name}")(*given, _address(result), threads)
    return result if is_finite else None


def _kernels(images: Tensor, weight: Tensor) -> ctypes.CDLL | None:
    """The compiled code, where these tensors are such that it may pay."""
    outputs, channels, *kernel = weight.shape
    is_worth = min(outputs, channels) >= _FEWEST_CHANNELS and kernel[0] * kernel[1] >= _FEWEST_TAPS
    is_covered = images.dtype in _NAMES and images.device.type == "cpu" == weight.device.type and fuses()
    if not (is_worth and is_covered and images.is_contiguous(memory_format=torch.channels_last)):
        return None
    return library("spike_convolution.cpp")


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
