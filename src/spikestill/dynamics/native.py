"""The passes over a layer in C++ (``kernels.cpp``, compiled for each rule), for float32 and bfloat16 on the CPU."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from spikestill.dynamics.compiled import library
from spikestill.dynamics.layout import Channels, FlatTerm
from spikestill.dynamics.neuron import NeuronRule
from spikestill.dynamics.rate_state import RateState
from spikestill.dynamics.surrogate import ATan, Linear, Rectangular, Sigmoid, Triangle

__all__ = ["affine", "covers", "moments", "products", "rate", "rate_steps", "spikes", "spikes_backward", "time_mean"]

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_SURROGATES = (ATan, Linear, Rectangular, Sigmoid, Triangle)


def covers(dtype: torch.dtype, rule: NeuronRule | None = None) -> bool:
    """Whether these kernels serve sequences of this dtype and neurons of this rule on this machine."""
    rule = rule or NeuronRule()
    known = type(rule) is NeuronRule and type(rule.surrogate) in _SURROGATES
    return dtype in _NAMES and known and _library(rule) is not None


def spikes(
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
) -> tuple[Tensor, Tensor]:
    """As :func:`plain.spikes`."""
    like = terms[0].values
    carry = None if carry is None else carry.contiguous()
    out, last = _place_for_spikes(terms, timesteps), _row(like)
    arguments = _Arguments(terms, channels, timesteps)
    _call("spikes", like, rule, *arguments.terms, arguments.shape, _neuron(rule, leak, threshold), carry, out, last)
    return out, last


def spikes_backward(
    by_spikes: Tensor,
    by_last: Tensor | None,
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """As :func:`plain.spikes_backward`."""
    like = terms[0].values
    by_spikes = by_spikes.contiguous()
    by_last, carry = (None if row is None else row.contiguous() for row in (by_last, carry))
    by_current, by_carry = like.new_empty(timesteps, like.shape[1]), _row(like)
    by_parameters = like.new_zeros(2, dtype=torch.float64) if learn else None
    arguments = _Arguments(terms, channels, timesteps)
    neuron = _neuron(rule, leak, threshold)
    outputs = (by_current, by_carry, by_parameters)
    _call("spikes_backward", like, rule, by_spikes, by_last, *arguments.terms, arguments.shape, neuron, carry, *outputs)
    by_leak, by_threshold = (None, None) if by_parameters is None else by_parameters.float().unbind()
    return by_current, by_carry, by_leak, by_threshold


def rate(
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """As :func:`plain.rate`."""
    like = terms[0].values
    out, counted, by_current = _place_for_spikes(terms, timesteps), torch.empty_like(like[0]), _row(like)
    by_leak, by_threshold = (_row(like), _row(like)) if learn else (None, None)
    start, end = _RateState(carry), _RateState(None, None, None, by_current, None, by_leak, None, by_threshold)
    arguments = _Arguments(terms, channels, timesteps)
    neuron = _neuron(rule, leak, threshold)
    _call("rate", like, rule, *arguments.terms, arguments.shape, neuron, start, out, counted, end)
    return out, counted, by_current, by_leak, by_threshold


def rate_steps(
    terms: Sequence[FlatTerm],
    channels: Channels,
    state: RateState,
    leak: Tensor,
    threshold: Tensor,
    timesteps: int,
    rule: NeuronRule,
) -> tuple[Tensor, RateState]:
    """As :func:`plain.rate_steps`."""
    like = terms[0].values
    # A block's state is read before its steps and written after them, so the new one takes the old one's place.
    out, after = _place_for_spikes(terms, timesteps), state.mapped(lambda row: row.contiguous())
    arguments = _Arguments(terms, channels, timesteps)
    neuron = _neuron(rule, leak, threshold)
    place = _RateState(*after)
    _call("rate", like, rule, *arguments.terms, arguments.shape, neuron, place, out, None, place)
    return out, after


def moments(values: Tensor, channels: Channels) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`plain.moments`; the sums are of distances from a channel's first value, so that none is large."""
    values = values.contiguous()
    count, inner = channels.count, channels.inner
    pivot = values[0, : count * inner : inner].float().contiguous()
    sums, over_time = values.new_zeros(2, count, dtype=torch.float64), torch.empty_like(values[0])
    _call("moments", values, None, values, _shape(values, channels), pivot, sums, over_time)
    mean, square = (sums / (values.numel() / count)).unbind()
    return (mean + pivot).float(), (square - mean * mean).clamp_(min=0).float(), over_time


def time_mean(values: Tensor) -> Tensor:
    """As :func:`plain.time_mean`."""
    return moments(values, Channels(1, max(values.shape[1], 1)))[2]


def products(
    delta: Tensor, factor: Tensor | None, values: Tensor | None, mean: Tensor | None, channels: Channels
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`plain.products`."""
    delta = delta.contiguous()
    values, factor = (None if rows is None else rows.contiguous() for rows in (values, factor))
    mean = None if mean is None else mean.float().contiguous()
    product = delta if factor is None else torch.empty_like(delta)
    sums = delta.new_zeros(2, 0 if values is None else channels.count, dtype=torch.float64)
    written = None if factor is None else product
    _call("products", delta, None, delta, factor, values, mean, _shape(delta, channels), written, sums)
    by_channel = sums.float()
    return product, by_channel[0], by_channel[1]


def affine(
    values: Tensor,
    slope: Tensor,
    shift: Tensor,
    channels: Channels,
    addend: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """As :func:`plain.affine`."""
    values = values.contiguous()
    addend = None if addend is None else addend.contiguous()
    result = torch.empty_like(values)
    tables = [None if table is None else table.float().contiguous() for table in (scale, slope, shift)]
    _call("affine", values, None, addend, tables[0], values, *tables[1:], _shape(values, channels), result)
    return result


# ------------------------------------------------------------------------------------------------------ calling C++


class _Term(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        ("steps", ctypes.c_int64),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
    ]


class _Shape(ctypes.Structure):
    _fields_ = [
        ("timesteps", ctypes.c_int64),
        ("neurons", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("inner", ctypes.c_int64),
    ]


class _Neuron(ctypes.Structure):
    _fields_ = [("leak", ctypes.c_float), ("threshold", ctypes.c_float), ("parameter", ctypes.c_float)]


class _RateState(ctypes.Structure):
    """The rows of a ``RateState``; holds them for as long as the call runs."""

    _fields_ = [(name, ctypes.c_void_p) for name in RateState._fields]

    def __init__(self, *rows: Tensor | None) -> None:
        self._held = [None if row is None else row.contiguous() for row in rows]
        super().__init__(*(None if row is None else row.data_ptr() for row in self._held))


class _Arguments:
    """The terms and the shape as C structures; holds what they point to for as long as the call runs."""

    def __init__(self, terms: Sequence[FlatTerm], channels: Channels, timesteps: int) -> None:
        self._held: list[Tensor] = []
        array = (_Term * len(terms))(*(self._term(term) for term in terms))
        self.terms = (ctypes.byref(array), len(terms))
        self.shape = _Shape(timesteps, terms[0].values.shape[1], channels.count, channels.inner)

    def _term(self, term: FlatTerm) -> _Term:
        scale, shift = (None if table is None else table.float() for table in (term.scale, term.shift))
        return _Term(self._address(term.values), len(term.values), self._address(scale), self._address(shift))

    def _address(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._held.append(tensor.contiguous())
        return self._held[-1].data_ptr()


def _call(name: str, like: Tensor, rule: NeuronRule | None, *arguments: Any) -> None:
    """Calls a pass for tensors like this one: tensors go by address, structures by reference."""
    function = getattr(_library(rule or NeuronRule()), f"{name}_{_NAMES[like.dtype]}")
    function(*(_as_c(argument) for argument in arguments), torch.get_num_threads())


def _as_c(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


def _shape(values: Tensor, channels: Channels) -> _Shape:
    return _Shape(*values.shape, channels.count, channels.inner)


def _neuron(rule: NeuronRule, leak: Tensor, threshold: Tensor) -> _Neuron:
    parameter = getattr(rule.surrogate, fields(rule.surrogate)[0].name)
    return _Neuron(leak.item(), threshold.item(), parameter)


def _place_for_spikes(terms: Sequence[FlatTerm], timesteps: int) -> Tensor:
    """``[T, N]``: over a spare term's, since a pass has read a block's step before it writes its spikes."""
    for term in terms:
        if term.is_spare and len(term.values) == timesteps and term.values.is_contiguous():
            return term.values
    return terms[0].values.new_empty(timesteps, terms[0].values.shape[1])


def _row(like: Tensor) -> Tensor:
    return like.new_empty(like.shape[1], dtype=torch.float32)


@functools.cache
def _library(rule: NeuronRule) -> ctypes.CDLL | None:
    """The kernels for a rule, whatever its surrogate's parameter; None where they cannot be compiled."""
    return library(
        "kernels.cpp",
        "-ffp-contract=off",
        f"-DHARD={int(rule.reset == 'hard')}",
        f"-DLEAK_FIRST={int(rule.order == 'leak-then-subtract')}",
        f"-DDETACH={int(rule.detach_reset)}",
        f"-DSURROGATE_{type(rule.surrogate).__name__}",
    )
