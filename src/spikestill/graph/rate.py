"""``rate``: a spiking graph as a training graph, spikes forward without autograd and the gradient through firing rates.

Every value is a pair: its sequence ``[T, B, ...]``, outside autograd, and its rate ``[B, ...]``, the mean of that
sequence over time, inside it (methods 6; Yu et al. 2024). A linear layer is computed on the sequence alone: the rate is
its mean, and its gradient needs only the rate that came in. Sequences are dropped as soon as the next layer has used
them, so what stays for the backward pass is of one time step's size, whatever T is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.dynamics import Normalisation, Term, batch_norm, normalise, time_mean
from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.convolutions import KnownConvolution, spike_output
from spikestill.graph.fusion import deferred_to_neurons, has_one_reader, is_deferrable_norm
from spikestill.graph.operations import DROPOUTS, is_linear
from spikestill.graph.rate_gradients import RateBatchNorm, RateLinear
from spikestill.nn import LIF, MaxGate
from spikestill.nn.batch_norm import normalisation_of

__all__ = ["Pair", "RateRun", "at_rates", "moved", "normalised_rate", "repeated"]


class Pair:
    """A value in the rate graph: its ``sequence`` and its ``rate``.

    Args:
        sequence: ``[T, B, ...]`` without autograd; None where the value is the same at every step.
        rate: ``[B, ...]`` with autograd, the mean of the sequence over time; or, for layers that are computed on the
            sequence alone, the function that makes it of that mean. It is called where the rate is asked for.
        is_spare: whether the one that reads the sequence may write over it.
    """

    def __init__(
        self, sequence: Tensor | None, rate: Tensor | Callable[[Tensor], Tensor], is_spare: bool = False
    ) -> None:
        self.sequence, self._rate, self.is_spare = sequence, rate, is_spare

    @property
    def rate(self) -> Tensor:
        """``[B, ...]`` with autograd."""
        if not isinstance(self._rate, Tensor):
            self._rate = self._rate(self._time_mean())
        return self._rate

    def _time_mean(self) -> Tensor:
        assert self.sequence is not None
        return time_mean(self.sequence)

    def has_mean(self, mean: Tensor) -> None:
        """Takes note of the mean over time, where another pass over the sequence has gathered it."""
        if not isinstance(self._rate, Tensor):
            self._rate = self._rate(mean)

    def term(self) -> Term:
        """The value as a summand of a neuron's current, of which the neuron reads the sequence alone."""
        if self.sequence is None:
            return Term(self.rate.detach().unsqueeze(0), rate=self.rate)
        if isinstance(self._rate, Tensor):
            return Term(self.sequence, None, self._rate, self.is_spare)
        unread = self.sequence.new_full((), float("nan")).expand(self.sequence.shape[1:])
        return Term(self.sequence, None, self._rate(unread), self.is_spare)


class RateRun(fx.Interpreter):
    """One training run of a spiking graph under rate gradients.

    Args:
        body: the spiking graph.
        timesteps: T.
        taps: by node, the name under which its rate is kept in ``tapped``, ``[B, ...]``.
    """

    def __init__(self, body: fx.GraphModule, timesteps: int, taps: Mapping[fx.Node, str] | None = None) -> None:
        super().__init__(body)
        self.timesteps, self.taps = timesteps, taps or {}
        self._deferred = deferred_to_neurons(body, self.taps)
        self.tapped: dict[str, Tensor] = {}

    def rate(self, encoded: Tensor) -> Tensor:
        """The output's mean over time ``[B, ...]`` for an encoded input ``[T, B, ...]`` or ``[1, B, ...]``."""
        if encoded.shape[0] == 1:
            return self.run(Pair(None, encoded[0])).rate
        mean = encoded.mean(0) if encoded.requires_grad else time_mean(encoded)
        return self.run(Pair(encoded.detach(), mean)).rate

    def run_node(self, n: fx.Node) -> Any:  # noqa: D102
        self._is_linear = n.op not in ("placeholder", "output", "get_attr") and is_linear(self.module, n)  # type: ignore[arg-type]
        self._defers, self._node = n in self._deferred, n
        result = super().run_node(n)
        if n in self.taps:
            self.tapped[self.taps[n]] = result.rate
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        module = self.fetch_attr(str(target))
        value = args[0]
        if isinstance(module, LIF):
            return self._spike(module, _terms(value))
        if self._defers:
            return [self._normalised(module, value)]
        if isinstance(module, DROPOUTS) and module.training:
            return self._dropped(value, self._mask(module, value.rate))
        if value.sequence is None:
            return self._generic(module, args, kwargs)
        if isinstance(module, MaxGate):
            return self._gated(module, value)
        if isinstance(module, nn.Linear):
            return self._counted(module, value, RateLinear)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and KnownConvolution.covers(module):
            return self._counted(module, value, KnownConvolution)
        if is_deferrable_norm(module) and (module.training or module.running_mean is None):
            return self._normalised_pair(module, value)
        return self._generic(module, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        if self._defers:
            return [term for value in args for term in _terms(value)]
        return self._generic(target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        if self._defers:
            return [term for value in args for term in _terms(value)]
        return self._generic(lambda value, *rest, **named: getattr(value, target)(*rest, **named), args, kwargs)

    def _spike(self, neuron: LIF, terms: list[Term]) -> Pair:
        return Pair(*neuron.rate(terms, self.timesteps))

    def _gated(self, gate: MaxGate, pair: Pair) -> Pair:
        """A maximum over time: its rate is the maximum of the rates."""
        assert pair.sequence is not None
        with torch.no_grad():
            passed = gate.run(pair.sequence)[0]
        return Pair(passed, gate(pair.rate))

    def _mask(self, dropout: nn.Module, rate: Tensor) -> Tensor:
        """What a dropout multiplies the rate and every time step with, ``[B, ...]``."""
        mask: Tensor = dropout(torch.ones_like(rate))
        return mask

    def _dropped(self, pair: Pair, mask: Tensor) -> Pair:
        dropped = None if pair.sequence is None else pair.sequence * mask.to(pair.sequence.dtype)
        return Pair(dropped, pair.rate * mask)

    def _counted(self, module: Any, pair: Pair, layer: type[RateLinear | KnownConvolution]) -> Pair:
        """A linear layer: computed on the sequence alone."""
        assert pair.sequence is not None
        with torch.no_grad():
            sequence = spike_output(module, pair.sequence.flatten(0, 1)).unflatten(0, (self.timesteps, -1))
        is_spare = has_one_reader(self.module, self._node, self.taps, self._deferred)  # type: ignore[arg-type]
        return Pair(sequence, lambda mean: layer.apply(pair.rate, module.weight, module.bias, mean, module), is_spare)

    def _normalised(self, module: _BatchNorm, pair: Pair) -> Term:
        sequence = pair.rate.detach().unsqueeze(0) if pair.sequence is None else pair.sequence
        normalisation, mean = normalisation_of(module, sequence)
        if mean is not None:
            pair.has_mean(mean)
        return Term(sequence, normalisation, pair.rate, pair.is_spare)

    def _normalised_pair(self, module: _BatchNorm, pair: Pair) -> Pair:
        term = self._normalised(module, pair)
        assert term.normalisation is not None
        assert term.rate is not None
        return Pair(normalise(term.sequence, term.normalisation), normalised_rate(term.rate, term.normalisation))

    def _generic(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Any other operation: its value over all steps, its gradient that of the operation at the rates."""
        pairs = found_in((args, kwargs), Pair)
        by_rate = at_rates(function, args, kwargs)
        if not pairs:  # of a parameter, or of sizes: a constant
            return by_rate
        if all(pair.sequence is None for pair in pairs):
            return mapped(by_rate, lambda item: Pair(None, item) if isinstance(item, Tensor) else item)

        def sequences(item: Any) -> Any:
            return self._spread(item) if isinstance(item, Pair) else item

        with torch.no_grad():
            by_step = function(*mapped(args, sequences), **mapped(dict(kwargs), sequences))
        if isinstance(by_rate, tuple | list):
            return type(by_rate)(self._paired(step, rate) for step, rate in zip(by_step, by_rate, strict=True))
        return self._paired(by_step, by_rate)

    def _paired(self, by_step: Any, by_rate: Any) -> Any:
        if not isinstance(by_rate, Tensor):
            return by_step
        sequence = by_step.unflatten(0, (self.timesteps, -1))
        if not self._is_linear:
            by_rate = moved(by_rate, time_mean(sequence))
        return Pair(sequence, by_rate)

    def _spread(self, pair: Pair) -> Tensor:
        """All steps as one batch ``[T*B, ...]``."""
        return repeated(pair.rate, self.timesteps) if pair.sequence is None else pair.sequence.flatten(0, 1)


def at_rates(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a function makes of the rates of its pairs, inside autograd."""

    def rates(item: Any) -> Any:
        return item.rate if isinstance(item, Pair) else item

    return function(*mapped(args, rates), **mapped(dict(kwargs), rates))


def repeated(rate: Tensor, timesteps: int) -> Tensor:
    """All steps ``[T*B, ...]`` of what is constant in time, ``[B, ...]``, without autograd."""
    return rate.detach().unsqueeze(0).expand(timesteps, *rate.shape).flatten(0, 1)


def moved(differentiated: Tensor, value: Tensor) -> Tensor:
    """A tensor of this value, with the gradient of another."""
    return differentiated + (value - differentiated).detach()


def _terms(value: Pair | list[Term]) -> list[Term]:
    return value if isinstance(value, list) else [value.term()]


def normalised_rate(rate: Tensor, norm: Normalisation) -> Tensor:
    """The rate ``[B, C, ...]`` of a normalised sequence, inside autograd, of the sequence's own."""
    if norm.is_shared:
        return batch_norm(rate, norm)
    result: Tensor = RateBatchNorm.apply(rate, norm.weight, norm.bias, norm.mean, norm.inverse_deviation)
    return result
