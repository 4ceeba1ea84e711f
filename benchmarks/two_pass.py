"""Rate-based backpropagation in two passes, as published (Yu et al. 2024): a rival that owes nothing to spikestill.

Pass one runs the spiking network over all T steps without autograd. Each neuron layer keeps its rate ``r`` and its
eligibility ``E``, each BatchNorm the statistics of all steps. Pass two runs the same layers again, on rates
``[B, ...]`` and with autograd: every linear layer is computed a second time, BatchNorm applies pass one's statistics,
and a neuron's value is ``r``, its derivative ``E``.

Native layers throughout. What precedes the first neuron is the same at every step and computed once per pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import replaced
from benchmarks.setting import LEAK, SURROGATE_SLOPE, THRESHOLD

__all__ = ["TwoPassNetwork", "TwoPassNeuron", "spike_pass"]

SpikePass = Callable[[list[Tensor]], tuple[Tensor, Tensor, Tensor]]


def spike_pass(currents: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes ``[T*B, ...]``, rate and eligibility ``[B, ...]`` of LIF neurons with soft, detached reset.

    Args:
        currents: of every step, ``[B, ...]``.
    """
    v = torch.zeros_like(currents[0], dtype=torch.float32)
    rate, eligibility = torch.zeros_like(v), torch.zeros_like(v)
    k, steps, spikes = 1.0, len(currents), []
    for current in currents:
        v.mul_(LEAK).add_(current)
        spike = (v >= THRESHOLD).to(torch.float32)
        gate = torch.sigmoid(SURROGATE_SLOPE * (v - THRESHOLD))
        eligibility.addcmul_(gate, 1 - gate, value=SURROGATE_SLOPE * k / steps)
        rate.add_(spike, alpha=1 / steps)
        v.sub_(spike, alpha=THRESHOLD)
        k = 1 + LEAK * k
        spikes.append(spike.to(current.dtype))
    return torch.cat(spikes), rate, eligibility


class TwoPassNeuron(nn.Module):
    """A neuron layer: spikes in pass one, the rate and its derivative in pass two."""

    def __init__(self, timesteps: int, run: SpikePass) -> None:
        super().__init__()
        self.timesteps, self.run = timesteps, run
        self.counted: tuple[Tensor, Tensor] | None = None

    def forward(self, current: Tensor) -> Tensor:
        """Spikes ``[T*B, ...]`` of currents ``[T*B, ...]``, or rates ``[B, ...]`` of rates."""
        if self.counted is not None:
            counted, self.counted = self.counted, None
            return _Rate.apply(current, *counted)
        spikes, rate, eligibility = self.run(self._steps(current))
        self.counted = rate, eligibility
        return spikes

    def _steps(self, current: Tensor) -> list[Tensor]:
        return list(current.chunk(self.timesteps))


class _FirstNeuron(TwoPassNeuron):
    """The neuron layer whose current is the same at every step."""

    def _steps(self, current: Tensor) -> list[Tensor]:
        return [current] * self.timesteps


class _Rate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, rate: Tensor, eligibility: Tensor) -> Tensor:
        ctx.save_for_backward(eligibility)
        ctx.dtype = current.dtype
        return rate

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (eligibility,) = ctx.saved_tensors
        return (gradients[0] * eligibility).to(ctx.dtype), None, None


class _BatchNorm(nn.BatchNorm2d):
    """BatchNorm: the statistics are pass one's, the gradient runs through mean and variance of the rates."""

    statistics: tuple[Tensor, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if self.statistics is not None:
            statistics, self.statistics = self.statistics, None
            return _Normalise.apply(input, self.weight, self.bias, *statistics, self.eps)
        running = (self.running_mean, self.running_var)
        momentum = 0.1 if self.momentum is None else self.momentum
        result = torch.native_batch_norm(input, self.weight, self.bias, *running, True, momentum, self.eps)
        self.statistics = (result[1], result[2])
        return result[0]


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rate: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse_deviation: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(rate, weight, mean, inverse_deviation)
        ctx.eps = eps
        return functional.batch_norm(rate, mean, inverse_deviation**-2 - eps, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        rate, weight, mean, inverse_deviation = ctx.saved_tensors
        through = torch.ops.aten.native_batch_norm_backward(
            gradients[0], rate, weight, None, None, mean, inverse_deviation, True, ctx.eps, [True, True, True]
        )
        return *through, None, None, None


class TwoPassNetwork(nn.Module):
    """An ANN's spiking twin, run in two passes.

    Args:
        ann: made of convolutions, BatchNorms, ReLUs, average poolings, sums and linear layers.
        timesteps: T.
        run: what a neuron layer does in pass one: ``spike_pass``, or its compiled form.
    """

    def __init__(self, ann: nn.Module, timesteps: int, run: SpikePass = spike_pass) -> None:
        super().__init__()
        self.timesteps = timesteps
        kinds = iter([_FirstNeuron])

        def replacement(path: str, module: nn.Module) -> nn.Module | None:
            if isinstance(module, nn.ReLU):
                return next(kinds, TwoPassNeuron)(timesteps, run)
            if isinstance(module, nn.BatchNorm2d):
                norm = _BatchNorm(module.num_features, module.eps, module.momentum or 0.1)
                norm.load_state_dict(module.state_dict())
                return norm
            return None

        self.body = replaced(ann, replacement)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]``, the mean over the time steps, with the rate gradient, of images ``[B, C, H, W]``."""
        self.spike(images)
        return self.body(images)

    @torch.no_grad()
    def spike(self, images: Tensor) -> Tensor:
        """Pass one: the logits of every step ``[T, B, K]``."""
        for module in self.body.modules():
            if isinstance(module, TwoPassNeuron):
                module.counted = None
            elif isinstance(module, _BatchNorm):
                module.statistics = None
        return self.body(images).unflatten(0, (self.timesteps, -1))
