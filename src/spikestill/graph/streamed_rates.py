"""Rate gradients of long sequences, in memory that does not grow with T.

The spikes are run some steps at a time, without autograd; neurons hand on their state, and what stands between them is
used up before the next steps begin. One pass of the same graph on rates follows, with autograd. It gives what
``rate.py`` gives, within rounding: a linear layer's value at the rates is the mean of its values over time, which is
why nothing but the neurons and the operations that are not linear has to be counted. BatchNorm is linear with running
statistics; with those of the batch it needs the whole sequence, and ``rate.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.dynamics import RateState, Term
from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.operations import is_linear
from spikestill.graph.rate import Pair, RateRun, moved
from spikestill.graph.sequence import SequenceRun, Signal
from spikestill.nn import LIF, MaxGate

__all__ = ["streamed_rates"]


def streamed_rates(
    body: fx.GraphModule, parts: Iterable[tuple[Tensor, int]], taps: Mapping[fx.Node, str] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output's mean over time ``[B, ...]`` and the rates at the taps, with the gradients of rates (methods 6).

    Args:
        body: the spiking graph, without a BatchNorm that takes the statistics of its batch.
        parts: the encoded input part by part, ``[t, B, ...]`` or, constant in time, ``[1, B, ...]``, with its number of
            steps t.
        taps: by node, the name under which its rate is returned, ``[B, ...]``.
    """
    counted, total, timesteps = _Counted(), _TimeSum(), 0
    for encoded, steps in parts:
        total.add(encoded, steps)
        timesteps += steps
        with torch.no_grad():
            _SpikePass(body, steps, counted).sequence(encoded)
    torch.clear_autocast_cache()  # older releases of torch keep there the weights that were cast without autograd
    run = _RatePass(body, timesteps, counted, taps)
    return run.run(Pair(None, total.mean(timesteps))).rate, run.tapped


class _TimeSum:
    """A sum over time, in float32 (float64 for float64)."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, sequence: Tensor, timesteps: int) -> None:
        """Adds ``[t, B, ...]``, or t times what is constant, ``[1, B, ...]``."""
        exact = torch.promote_types(sequence.dtype, torch.float32)
        some = sequence.sum(0, dtype=exact) * (timesteps // len(sequence))
        self._sum, self._dtype = some if self._sum is None else self._sum + some, sequence.dtype

    def mean(self, timesteps: int) -> Tensor:
        """``[B, ...]``, in the dtype of the sequence."""
        assert self._sum is not None
        return (self._sum / timesteps).to(self._dtype)


@dataclass
class _Counted:
    """What the spike passes leave to the rate pass, by node.

    Attributes:
        states: of every neuron layer.
        masks: of every dropout, one for all steps.
        values: of every operation that is not linear, its results.
        sums: of every maximum over time, what its inputs have counted.
    """

    states: dict[fx.Node, RateState] = field(default_factory=dict)
    masks: dict[fx.Node, Tensor] = field(default_factory=dict)
    values: dict[fx.Node, list[_TimeSum]] = field(default_factory=dict)
    sums: dict[fx.Node, Tensor] = field(default_factory=dict)


class _SpikePass(SequenceRun):
    """Some steps of all neurons, counted."""

    def __init__(self, body: fx.GraphModule, timesteps: int, counted: _Counted) -> None:
        super().__init__(body, timesteps)
        self.counted = counted

    def _spike(self, name: str, neuron: LIF, value: Signal | list[Term]) -> Signal:
        state = self.counted.states.get(self._node)
        spikes, self.counted.states[self._node] = neuron.rate_steps(self._terms(value), self.timesteps, state)
        return Signal(spikes.flatten(0, 1), True)

    def _gate(self, name: str, gate: MaxGate, signal: Signal) -> Signal:
        passed, self.counted.sums[self._node] = gate.run(self._steps(signal), self.counted.sums.get(self._node))
        return Signal(passed.flatten(0, 1), True)

    def _mask(self, dropout: nn.Module, step: Tensor) -> Tensor:
        if self._node not in self.counted.masks:
            self.counted.masks[self._node] = super()._mask(dropout, step)
        return self.counted.masks[self._node]

    def _generic(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = super()._generic(function, args, kwargs)
        if not is_linear(self.module, self._node):  # type: ignore[arg-type]
            signals = found_in(result, Signal)
            sums = self.counted.values.setdefault(self._node, [_TimeSum() for _ in signals])
            for sum_, signal in zip(sums, signals, strict=True):
                sum_.add(self._steps(signal), self.timesteps)
        return result


class _RatePass(RateRun):
    """The graph on rates, as if they were an input that does not move; counted values are put in their places."""

    def __init__(
        self, body: fx.GraphModule, timesteps: int, counted: _Counted, taps: Mapping[fx.Node, str] | None
    ) -> None:
        super().__init__(body, timesteps, taps)
        self.counted = counted

    def _spike(self, neuron: LIF, terms: list[Term]) -> Pair:
        return Pair(None, neuron.rate_after(self.counted.states.pop(self._node), self.timesteps, terms))

    def _mask(self, dropout: nn.Module, rate: Tensor) -> Tensor:
        return self.counted.masks[self._node]

    def _generic(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = super()._generic(function, args, kwargs)
        if self._node not in self.counted.values:
            return result
        sums = iter(self.counted.values.pop(self._node))

        def counted(item: Any) -> Any:
            return Pair(None, moved(item.rate, next(sums).mean(self.timesteps))) if isinstance(item, Pair) else item

        return mapped(result, counted)
