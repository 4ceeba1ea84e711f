"""Running a spiking graph over all time steps at once, differentiable through time.

Stateless layers see the steps as a larger batch ``[T*B, ...]``, neurons see ``[T, B, ...]``. What does not change in
time (everything before the first neuron, under direct encoding) is computed once, as ``[B, ...]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikestill.dynamics import Term
from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.convolutions import spike_output
from spikestill.graph.fusion import deferred_to_neurons, has_one_reader
from spikestill.graph.operations import DROPOUTS
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, MaxGate
from spikestill.nn.batch_norm import normalisation_of

__all__ = ["Observer", "SequenceRun", "Signal", "Watch", "over_signals"]

Observer = Callable[[str, Tensor], None]
"""Is shown each neuron layer's name and its spikes ``[T, B, ...]``."""


@dataclass(frozen=True)
class Signal:
    """A value in a spiking graph: ``[T*B, ...]`` where it moves, ``[B, ...]`` where it is the same at every step."""

    value: Tensor
    moves: bool
    is_spare: bool = False
    """Whether the one operation that reads it may write over it."""


Watch = Callable[[fx.Node, Signal], None]
"""Is shown the value of every node that has one (see ``fusion``), before the next node is computed."""


class SequenceRun(fx.Interpreter):
    """One run of a spiking graph over T time steps.

    Args:
        body: the spiking graph.
        timesteps: T.
        carries: by neuron name, the state to start from; it is replaced by the state after the last step. None where
            the network starts at rest and its state is not wanted.
        observe: is shown every neuron layer's spikes.
        taps: by node, the name under which its value is kept in ``tapped``, as ``[T, B, ...]``.
        watch: is shown the value of every node.
    """

    def __init__(
        self,
        body: fx.GraphModule,
        timesteps: int,
        carries: MutableMapping[str, Tensor] | None = None,
        observe: Observer | None = None,
        taps: Mapping[fx.Node, str] | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(body)
        self.timesteps, self.carries, self.observe, self.taps = timesteps, carries, observe, taps or {}
        self.watch = watch
        self.tapped: dict[str, Tensor] = {}
        self._deferred = deferred_to_neurons(body, self.taps)

    def sequence(self, encoded: Tensor) -> Tensor:
        """The output ``[T, B, ...]`` for an encoded input ``[T, B, ...]`` or, constant in time, ``[1, B, ...]``."""
        moves = encoded.shape[0] > 1 or self.timesteps == 1
        return self._in_time(self.run(Signal(encoded.flatten(0, 1), moves)))

    def run_node(self, n: fx.Node) -> Any:  # noqa: D102
        self._defers, self._node = n in self._deferred, n
        result = super().run_node(n)
        if isinstance(result, Signal) and not torch.is_grad_enabled() and self._gives_spare(n):
            result = replace(result, is_spare=True)
        if self.watch is not None and isinstance(result, Signal):
            self.watch(n, result)
        if n in self.taps:
            self.tapped[self.taps[n]] = self._in_time(result)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        module = self.fetch_attr(str(target))
        if isinstance(module, LIF):
            return self._spike(str(target), module, args[0])
        if isinstance(module, MaxGate) and args[0].moves:
            return self._gate(str(target), module, args[0])
        if self._defers:
            term = self._term(args[0])
            return [replace(term, normalisation=normalisation_of(module, term.sequence.detach())[0])]
        if isinstance(module, DROPOUTS) and module.training:
            steps = self._steps(args[0])
            return Signal((steps * self._mask(module, steps[0])).flatten(0, 1), args[0].moves)
        if isinstance(module, nn.Conv2d) and isinstance(args[0], Signal) and args[0].moves:
            return self._generic(partial(spike_output, module), args, kwargs)
        return self._generic(module, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        if self._defers:
            return [term for value in args for term in self._terms(value)]
        return self._generic(target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        if self._defers:
            return [term for value in args for term in self._terms(value)]
        return self._generic(lambda value, *rest, **named: getattr(value, target)(*rest, **named), args, kwargs)

    def _spike(self, name: str, neuron: LIF, value: Signal | list[Term]) -> Signal:
        carry = None if self.carries is None else self.carries.get(name)
        spikes, last = neuron.run(self._terms(value), self.timesteps, carry)
        if self.carries is not None:
            self.carries[name] = last
        if self.observe is not None:
            self.observe(name, spikes.detach())
        return Signal(spikes.flatten(0, 1), True)

    def _gate(self, name: str, gate: MaxGate, signal: Signal) -> Signal:
        """What passes a maximum over time."""
        carry = None if self.carries is None else self.carries.get(name)
        passed, last = gate.run(self._steps(signal), carry)
        if self.carries is not None:
            self.carries[name] = last
        return Signal(passed.flatten(0, 1), True)

    def _mask(self, dropout: nn.Module, step: Tensor) -> Tensor:
        """What a dropout multiplies every time step with, one step being ``[B, ...]``."""
        mask: Tensor = dropout(torch.ones_like(step))
        return mask

    def _generic(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return over_signals(function, args, kwargs, self.timesteps)

    def _terms(self, value: Signal | list[Term]) -> list[Term]:
        return value if isinstance(value, list) else [self._term(value)]

    def _term(self, signal: Signal) -> Term:
        return Term(self._steps(signal), is_spare=signal.is_spare)

    def _gives_spare(self, node: fx.Node) -> bool:
        """Whether a node's value is new memory, which is read once."""
        module = module_of(self.module, node)  # type: ignore[arg-type]
        is_new = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
        return is_new and has_one_reader(self.module, node, self.taps, self._deferred)  # type: ignore[arg-type]

    def _steps(self, signal: Signal) -> Tensor:
        """``[T, B, ...]``, or ``[1, B, ...]`` for what does not move."""
        return signal.value.unflatten(0, (self.timesteps, -1)) if signal.moves else signal.value.unsqueeze(0)

    def _in_time(self, signal: Signal) -> Tensor:
        if signal.moves:
            return self._steps(signal)
        return signal.value.unsqueeze(0).expand(self.timesteps, *signal.value.shape)


def over_signals(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], timesteps: int) -> Any:
    """A stateless function of signals: once if none of them moves, else over all steps as one batch.

    Of no signals at all (of a parameter, or of sizes) it is no signal either, but a constant.
    """
    signals = found_in((args, kwargs), Signal)
    moves = any(signal.moves for signal in signals)

    def unwrap(item: Any) -> Any:
        if not isinstance(item, Signal):
            return item
        if moves and not item.moves:
            return item.value.unsqueeze(0).expand(timesteps, *item.value.shape).flatten(0, 1)
        return item.value

    result = function(*mapped(args, unwrap), **mapped(dict(kwargs), unwrap))
    if not signals:
        return result
    return mapped(result, lambda item: Signal(item, moves) if isinstance(item, Tensor) else item)
