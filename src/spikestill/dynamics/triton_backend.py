"""The passes over a layer as Triton kernels, for float32, bfloat16 and float16 on a CUDA device.

Neurons are independent, so a program takes a block of them through all their steps; everything within it is float32.
Steps come by the segment: as many as divide T, up to 8, are unrolled, read before the first of them is written, and
kept in registers. Sums by channel or over a layer are added up within each program and then, in float64, over the
programs, so they come out the same every time. Nothing waits for the device: leak and threshold are read there.

Multiplications and additions are not fused (``enable_fp_fusion=False``), so spikes and carries are bit for bit those of
``plain.py``. Divisions are exact where they make rates and means; where they make slopes they are the device's fast
ones, within two units in the last place.

No launch setting is tuned: ``_BLOCK``, ``_TILE``, ``_WIDEST``, ``_WARPS``, ``_PROGRAMS`` and the longest segments were
chosen by the compiled code (wide loads and stores, no spilled registers), not by a clock, and neither the number of
pipeline stages nor the caches' eviction was looked at. With ``TRITON_INTERPRET=1`` in the environment before Triton is
imported, all this runs on the CPU.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from spikestill.dynamics import triton_kernels as kernels
from spikestill.dynamics.layout import Channels, FlatTerm
from spikestill.dynamics.neuron import NeuronRule
from spikestill.dynamics.rate_state import RateState
from spikestill.dynamics.surrogate import ATan, Linear, Rectangular, Sigmoid, Triangle
from spikestill.types import InputError

__all__ = ["affine", "covers", "moments", "products", "rate", "rate_steps", "spikes", "spikes_backward", "time_mean"]

_log = logging.getLogger("spikestill")

_OLDEST = (3, 4)
"""The first Triton that compiles these kernels, which are given tuples of tensors."""
_BLOCK = 512
"""Neurons a program: with 4 warps four a thread, so that float32 is read 16 bytes at a time, the halves 8."""
_TILE = 1024
"""Values a program adds up at a time, in the sums by channel."""
_WIDEST = 256
"""Columns of a tile, where there are rows enough."""
_WARPS = 4
_PROGRAMS = 2048
"""About as many programs share the sums by channel, each with tile after tile."""
_LONGEST_SEGMENT = 8
"""Eight steps of four neurons keep 32 potentials a thread in registers."""
_LONGEST_OF_TILES = 2
"""Two steps of a tile are 16 values a thread."""
_MOST = 2**31 - _BLOCK
"""Neurons of a step: they are counted in 32 bits."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SURROGATES: dict[type, Callable[[Any], tuple[float, float]]] = {
    Sigmoid: lambda surrogate: (surrogate.alpha, 0.0),
    Linear: lambda surrogate: (surrogate.gamma, 0.0),
    ATan: lambda surrogate: (surrogate.alpha / 2, math.pi / 2 * surrogate.alpha),
    Triangle: lambda surrogate: (surrogate.alpha, surrogate.alpha**2),
    Rectangular: lambda surrogate: (surrogate.alpha, 0.5 / surrogate.alpha),
}
"""By surrogate, the two numbers that its slope is computed from, as ``surrogate.py`` has them."""


def covers(dtype: torch.dtype, rule: NeuronRule | None = None) -> bool:
    """Whether these kernels serve sequences of this dtype and neurons of this rule on this machine."""
    rule = rule or NeuronRule()
    return dtype in _DTYPES and type(rule) is NeuronRule and type(rule.surrogate) in _SURROGATES and _works()


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
    out, last = _place_for_spikes(terms, timesteps), _row(like)
    current = _Current.of(terms, channels)
    neuron = _neuron(rule, leak, threshold, like)
    _launch(kernels.spikes, like, *current, *neuron, _dense(carry), out, last, **_steps(timesteps))
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
    like, steps = terms[0].values, _steps(timesteps)
    neurons = like.shape[1]
    by_current, by_carry = like.new_empty(timesteps, neurons), _row(like)
    saved = like.new_empty(steps["segments"] - 1, neurons, dtype=torch.float32) if steps["segments"] > 1 else None
    sums = like.new_empty(2, triton.cdiv(neurons, _BLOCK), dtype=torch.float32) if learn else None
    current = _Current.of(terms, channels)
    neuron = _neuron(rule, leak, threshold, like)
    given = (_dense(by_spikes), _dense(by_last), _dense(carry))
    _launch(kernels.spikes_backward, like, *current, *neuron, *given, by_current, by_carry, saved, sums, **steps)
    by_leak, by_threshold = (None, None) if sums is None else sums.sum(1, dtype=torch.float64).float().unbind()
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
    out, counted, by_current = _place_for_spikes(terms, timesteps), like.new_empty(like.shape[1]), _row(like)
    by_leak, by_threshold = (_row(like), _row(like)) if learn else (None, None)
    current = _Current.of(terms, channels)
    neuron = _neuron(rule, leak, threshold, like)
    means = tuple(row for row in (counted, by_current, by_leak, by_threshold) if row is not None)
    rest = (out, means, None, float(timesteps), learn)
    _launch(kernels.rate, like, *current, *neuron, _dense(carry), None, *rest, **_steps(timesteps))
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
    out, after = _place_for_spikes(terms, timesteps), state.mapped(lambda _: _row(like))
    current = _Current.of(terms, channels)
    neuron = _neuron(rule, leak, threshold, like)
    given, wanted = (tuple(row.contiguous() for row in rows if row is not None) for rows in (state, after))
    rest = (out, None, wanted, float(timesteps), state.leak_sensitivity is not None)
    _launch(kernels.rate, like, *current, *neuron, None, given, *rest, **_steps(timesteps))
    return out, after


def moments(values: Tensor, channels: Channels) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`plain.moments`; the sums are of distances from a channel's first value, so that none is large."""
    values, count = values.contiguous(), channels.count
    over_time, tiles = values.new_empty(values.shape[1]), _Tiles.of(values, channels)
    parts = tiles.place_for_parts(values)
    _launch_tiles(kernels.moments, values, tiles, values, over_time, parts, float(len(values)))
    pivot = values[0, : count * channels.inner : channels.inner]
    mean, square = (parts.sum(1, dtype=torch.float64) / max(values.numel() // count, 1)).unbind()
    return (mean + pivot).float(), square.addcmul(mean, mean, value=-1).clamp_(min=0).float(), over_time


def time_mean(values: Tensor) -> Tensor:
    """As :func:`plain.time_mean`."""
    values = values.contiguous()
    over_time, tiles = values.new_empty(values.shape[1]), _Tiles.of(values, Channels(1, values.shape[1]))
    _launch_tiles(kernels.moments, values, tiles, values, over_time, None, float(len(values)))
    return over_time


def products(
    delta: Tensor, factor: Tensor | None, values: Tensor | None, mean: Tensor | None, channels: Channels
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`plain.products`."""
    delta, summed = delta.contiguous(), values is not None and mean is not None
    product = None if factor is None else torch.empty_like(delta)
    tiles = _Tiles.of(delta, channels if summed else Channels(1, delta.shape[1]))
    parts = tiles.place_for_parts(delta) if summed else None
    if factor is not None or summed:
        sources = (_dense(values), _table(mean)) if summed else (None, None)
        given = (delta, _dense(factor), *sources)
        _launch_tiles(kernels.products, delta, tiles, *given, product, parts)
    empty = delta.new_empty(2, 0, dtype=torch.float32)
    by_channel = empty if parts is None else parts.sum(1, dtype=torch.float64).float()
    return delta if product is None else product, by_channel[0], by_channel[1]


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
    result = torch.empty_like(values)
    given = (values, _table(slope), _table(shift), _dense(addend), _table(scale))
    _launch(kernels.affine, values, *given, result, values.shape[1], _dividing(channels), **_steps(len(values)))
    return result


# -------------------------------------------------------------------------------------------------------- launching


class _Rule(NamedTuple):
    """What a kernel is compiled for."""

    hard: bool
    leak_first: bool
    detach: bool
    surrogate: str


class _Current(NamedTuple):
    """The current as the kernels take it: terms with or without tables, which are constant, and where channels are."""

    terms: tuple[tuple[Tensor, ...], ...]
    constant: tuple[bool, ...]
    neurons: int
    channels: tuple[int, ...]

    @classmethod
    def of(cls, terms: Sequence[FlatTerm], channels: Channels) -> _Current:
        tables = ((_table(term.scale), _table(term.shift)) for term in terms)
        given = tuple(
            (term.values.contiguous(), *(table for table in pair if table is not None))
            for term, pair in zip(terms, tables, strict=True)
        )
        constant = tuple(len(term.values) == 1 for term in terms)
        return cls(given, constant, terms[0].values.shape[1], _dividing(channels))


class _Tiles(NamedTuple):
    """How neurons are divided where there are sums by channel: as ``[rows, strips, width]``, in the order of memory.

    Where channels lie innermost, they are the columns of the only strip; else each strip is a channel. A program adds
    up ``each`` tiles that lie below each other, and hands in two numbers a channel. Kernels are told the width in units
    of ``aligned`` neurons: so they know how many can be read at once.
    """

    rows: int
    strips: int
    width: int
    blocks: int
    each: int
    row_block: int
    column_block: int
    aligned: int
    by_column: bool

    @classmethod
    def of(cls, values: Tensor, channels: Channels) -> _Tiles:
        neurons, count = values.shape[1], channels.count
        by_column = channels.inner == 1 and count > 1
        strips, width = (1, count) if by_column else (count, channels.inner if count > 1 else max(neurons, 1))
        rows, padded = neurons // (strips * width), triton.next_power_of_2(width)
        row_block = min(_TILE // min(padded, _WIDEST), triton.next_power_of_2(max(rows, 1)))
        column_block = min(_TILE // row_block, padded)
        tiles, blocks = triton.cdiv(rows, row_block), triton.cdiv(width, column_block)
        each = max(min(triton.cdiv(tiles * blocks * strips, _PROGRAMS), tiles), 1)
        return cls(rows, strips, width, blocks, each, row_block, column_block, math.gcd(width, 16), by_column)

    @property
    def chunks(self) -> int:
        return triton.cdiv(self.rows, self.row_block * self.each)

    def place_for_parts(self, like: Tensor) -> Tensor:
        """``[2, parts, C]``: two sums a channel from everyone who has a part in it."""
        shape = (self.chunks, self.width) if self.by_column else (self.chunks * self.blocks, self.strips)
        return like.new_empty(2, *shape, dtype=torch.float32)


def _launch(kernel: Any, like: Tensor, *arguments: Any, **steps: int) -> None:
    """A program to every block of neurons."""
    _run(kernel, triton.cdiv(like.shape[1], _BLOCK), like, *arguments, **steps, block=_BLOCK)


def _launch_tiles(kernel: Any, like: Tensor, tiles: _Tiles, *arguments: Any) -> None:
    """A program to every column of tiles."""
    programs = tiles.chunks * tiles.blocks * tiles.strips
    tiles = tiles._replace(width=tiles.width // tiles.aligned)
    _run(kernel, programs, like, *arguments, like.shape[1], *tiles, **_steps(len(like), _LONGEST_OF_TILES))


def _run(kernel: Any, programs: int, like: Tensor, *arguments: Any, **constants: int) -> None:
    neurons = like.shape[1]
    if neurons > _MOST:
        raise InputError(f"a time step of {neurons} neurons is more than the CUDA kernels count: give smaller batches")
    if programs == 0:
        return
    with torch.cuda.device_of(like):
        kernel[(programs,)](*arguments, **constants, num_warps=_WARPS, enable_fp_fusion=False)


@functools.cache
def _works() -> bool:
    """Whether a first kernel can be compiled and launched; why not is said once, and the plain functions serve."""
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < _OLDEST:
        _log.warning("Triton %s is too old (below 3.4): neurons run on plain torch operations", triton.__version__)
        return False
    try:
        time_mean(torch.zeros(1, 1, device="cuda" if torch.cuda.is_available() else "cpu"))
    except Exception as error:  # whatever a compiler, a driver or a linker may raise
        _log.warning("Triton cannot run here (%s): neurons run on plain torch operations", error)
        return False
    return True


def _steps(timesteps: int, longest: int = _LONGEST_SEGMENT) -> dict[str, int]:
    """The segments of a sequence, and the steps of each: the most that divide it."""
    segment = max(steps for steps in range(1, longest + 1) if timesteps % steps == 0)
    return {"segments": timesteps // segment, "segment": segment}


def _neuron(rule: NeuronRule, leak: Tensor, threshold: Tensor, like: Tensor) -> tuple[tuple[Any, ...], _Rule]:
    """The numbers of a neuron, those that are learned as tensors on the device, and its rule."""
    learned = (scalar.to(like.device, torch.float32) for scalar in (leak, threshold))
    numbers = (float(number) for number in _SURROGATES[type(rule.surrogate)](rule.surrogate))
    return (*learned, *numbers), _Rule(
        rule.reset == "hard", rule.order == "leak-then-subtract", rule.detach_reset, type(rule.surrogate).__name__
    )


def _dividing(channels: Channels) -> tuple[int, ...]:
    """C, and for both divisions of ``Channels`` a factor and a shift, which cost less than a division."""
    return (channels.count, *_reciprocal(channels.inner), *_reciprocal(channels.count))


def _reciprocal(divisor: int) -> tuple[int, int]:
    """``n // divisor`` is ``(n + the upper half of n * factor) >> shift`` for n < 2^31 (Granlund, Montgomery 1994).

    The factor comes as the signed number of the same 32 bits.
    """
    shift = (divisor - 1).bit_length()
    factor = (((1 << shift) - divisor) << 32) // divisor + 1
    return factor - (1 << 32) if factor >= 1 << 31 else factor, shift


def _place_for_spikes(terms: Sequence[FlatTerm], timesteps: int) -> Tensor:
    """``[T, N]``: over a spare term's, since a program has read a segment before it writes its spikes."""
    for term in terms:
        if term.is_spare and len(term.values) == timesteps and term.values.is_contiguous():
            return term.values
    return terms[0].values.new_empty(timesteps, terms[0].values.shape[1])


def _row(like: Tensor) -> Tensor:
    return like.new_empty(like.shape[1], dtype=torch.float32)


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _table(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.float().contiguous()
