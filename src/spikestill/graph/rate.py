"""``rate``: a spiking graph as a training graph, spikes forward without autograd and the gradient through firing rates.

Every value is a pair: its sequence ``[T*B, ...]``, outside autograd, and its rate ``[B, ...]``, the mean of that
sequence over time, inside it (methods 6; Yu et al. 2024). A linear layer is computed on the sequence alone: the rate is
its mean, and its gradient needs only the rate that came in. Sequences are dropped as soon as the next layer has used
them, so what stays for the backward pass is of one time step's size, whatever T is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.dynamics import time_mean
from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.operations import DROPOUTS, is_linear
from spikestill.graph.rate_gradients import RateBatchNorm, RateConvolution, RateLinear, RateNeuron
from spikestill.nn import LIF

__all__ = ["Pair", "RateRun"]


@dataclass(frozen=True)
class Pair:
    """A value in the rate graph.

    Attributes:
        sequence: ``[T*B, ...]`` without autograd; None where the value is the same at every step.
        rate: ``[B, ...]`` with autograd; its mean over time.
    """

    sequence: Tensor | None
    rate: Tensor


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
        self.tapped: dict[str, Tensor] = {}

    def rate(self, encoded: Tensor) -> Tensor:
        """The output's mean over time ``[B, ...]`` for an encoded input ``[T, B, ...]`` or ``[1, B, ...]``."""
        if encoded.shape[0] == 1:
            return self.run(Pair(None, encoded[0])).rate
        mean = encoded.mean(0) if encoded.requires_grad else time_mean(encoded)
        return self.run(Pair(encoded.detach().flatten(0, 1), mean)).rate

    def run_node(self, n: fx.Node) -> Any:  # noqa: D102
        self._is_linear = n.op not in ("placeholder", "output", "get_attr") and is_linear(self.module, n)  # type: ignore[arg-type]
        result = super().run_node(n)
        if n in self.taps:
            self.tapped[self.taps[n]] = result.rate
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        module = self.fetch_attr(str(target))
        pair = args[0]
        if isinstance(module, LIF):
            return self._spike(module, pair)
        if pair.sequence is None:
            return self._generic(module, args, kwargs)
        if isinstance(module, nn.Linear):
            return self._linear(module, pair)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and RateConvolution.covers(module):
            return self._convolve(module, pair)
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            return self._normalise(module, pair.sequence, pair.rate)
        if isinstance(module, DROPOUTS) and module.training:
            mask = module(torch.ones_like(pair.rate))
            return Pair(self._masked(pair.sequence, mask), pair.rate * mask)
        return self._generic(module, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        return self._generic(target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: D102
        return self._generic(lambda value, *rest, **named: getattr(value, target)(*rest, **named), args, kwargs)

    def _spike(self, neuron: LIF, pair: Pair) -> Pair:
        current = pair.rate.unsqueeze(0) if pair.sequence is None else self._in_time(pair.sequence)
        spikes, rate, eligibility = neuron.rate(current, self.timesteps)
        rate = RateNeuron.apply(pair.rate, neuron.leak, neuron.threshold, rate.to(spikes.dtype), eligibility)
        return Pair(spikes.flatten(0, 1), rate)

    def _linear(self, module: nn.Linear, pair: Pair) -> Pair:
        with torch.no_grad():
            sequence = module(pair.sequence)
            mean = time_mean(self._in_time(sequence))
        return Pair(sequence, RateLinear.apply(pair.rate, module.weight, module.bias, mean))

    def _convolve(self, module: Any, pair: Pair) -> Pair:
        with torch.no_grad():
            sequence = module(pair.sequence)
            mean = time_mean(self._in_time(sequence))
        return Pair(sequence, RateConvolution.apply(pair.rate, module.weight, module.bias, mean, module))

    def _normalise(self, module: _BatchNorm, sequence: Tensor, rate: Tensor) -> Pair:
        with torch.no_grad():
            kept = (module.weight, module.bias, module.running_mean, module.running_var)
            sequence, mean, inverse_deviation = torch.native_batch_norm(
                sequence, *kept, True, _momentum(module), module.eps
            )
        return Pair(sequence, RateBatchNorm.apply(rate, module.weight, module.bias, mean, inverse_deviation))

    def _generic(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Any other operation: its value over all steps, its gradient that of the operation at the rates."""
        pairs = found_in((args, kwargs), Pair)

        def rates(item: Any) -> Any:
            return item.rate if isinstance(item, Pair) else item

        by_rate = function(*mapped(args, rates), **mapped(dict(kwargs), rates))
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
        if not self._is_linear:
            mean = time_mean(self._in_time(by_step))
            by_rate = by_rate + (mean - by_rate).detach()
        return Pair(by_step, by_rate)

    def _spread(self, pair: Pair) -> Tensor:
        if pair.sequence is not None:
            return pair.sequence
        still = pair.rate.detach()
        return still.unsqueeze(0).expand(self.timesteps, *still.shape).flatten(0, 1)

    def _in_time(self, sequence: Tensor) -> Tensor:
        return sequence.unflatten(0, (self.timesteps, -1))

    def _masked(self, sequence: Tensor, mask: Tensor) -> Tensor:
        return (self._in_time(sequence) * mask.to(sequence.dtype)).flatten(0, 1)


def _momentum(module: _BatchNorm) -> float:
    """The share of this batch in the running statistics; counts the batch, as the module's own forward does."""
    if module.num_batches_tracked is None:
        return 0.0
    module.num_batches_tracked.add_(1)
    return 1.0 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
