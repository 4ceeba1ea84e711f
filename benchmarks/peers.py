"""The same network in the hands of SpikingJelly 2 and snnTorch 1: their layers and neurons, the ANN's weights.

SpikingJelly's ``LIFNode`` with ``tau=2``, ``decay_input=False``, ``v_reset=None`` and ``detach_reset=True`` is our LIF
of leak 0.5 with soft reset: it charges, fires at the threshold, resets, and leaks the remainder. snnTorch's ``Leaky``
with ``reset_mechanism="subtract"`` subtracts the last spike's threshold after the leak and fires above the threshold,
which is our order "leak-then-subtract".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from benchmarks.networks import replaced
from benchmarks.setting import LEAK, SURROGATE_SLOPE, THRESHOLD

__all__ = ["snntorch_network", "spikingjelly_network"]


def spikingjelly_network(ann: nn.Module, timesteps: int, *, head_once: bool = False) -> nn.Module:
    """The network in SpikingJelly's multi-step mode: ``[T, B, C, H, W]`` to ``[T, B, K]``.

    Args:
        ann: the network to copy.
        timesteps: T.
        head_once: the network takes ``[1, B, C, H, W]`` and repeats in time before the first neuron, so that what
            precedes it is computed once.
    """
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    first = iter([True])

    def replacement(path: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, nn.ReLU):
            lif = neuron.LIFNode(
                tau=1 / (1 - LEAK),
                decay_input=False,
                v_threshold=THRESHOLD,
                v_reset=None,
                surrogate_function=surrogate.Sigmoid(alpha=SURROGATE_SLOPE),
                detach_reset=True,
            )
            return nn.Sequential(_Repeat(timesteps), lif) if next(first, False) and head_once else lif
        made = _stepping(layer, module)
        if made is not None:
            made.load_state_dict(module.state_dict())
        return made

    network = replaced(ann, replacement)
    functional.set_step_mode(network, "m")
    return network


def snntorch_network(ann: nn.Module) -> nn.Module:
    """The network of one time step, its neurons holding their potentials: ``[B, C, H, W]`` to ``[B, K]``."""
    import snntorch
    from snntorch import surrogate

    def replacement(path: str, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, nn.ReLU):
            return None
        return snntorch.Leaky(
            beta=LEAK, threshold=THRESHOLD, spike_grad=surrogate.sigmoid(slope=SURROGATE_SLOPE), init_hidden=True
        )

    return replaced(ann, replacement)


class _Repeat(nn.Module):
    """``[1, B, ...]`` seen as ``[T, B, ...]``."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(self, current: Tensor) -> Tensor:
        return current.expand(self.timesteps, *current.shape[1:])


def _stepping(layer: Any, module: nn.Module) -> nn.Module | None:
    """SpikingJelly's own kind of a layer of torch; None for what works on sequences as it is."""
    if isinstance(module, nn.Conv2d):
        return layer.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            bias=module.bias is not None,
        )
    if isinstance(module, nn.BatchNorm2d):
        return layer.BatchNorm2d(module.num_features, module.eps)
    if isinstance(module, nn.Linear):
        return layer.Linear(module.in_features, module.out_features)
    if isinstance(module, nn.AvgPool2d):
        return layer.AvgPool2d(module.kernel_size)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return layer.AdaptiveAvgPool2d(module.output_size)
    if isinstance(module, nn.Flatten):
        return layer.Flatten()
    return None
