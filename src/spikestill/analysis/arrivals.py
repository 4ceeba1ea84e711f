"""Where spikes arrive: the counts of all spikes, pushed through the graph once, for all images and time steps together.

What stands between two neurons is linear, so a layer's accumulates are linear in how often each neuron fired. One pass
over a spiking graph whose weights are all 1, with these counts in the neurons' places, therefore gives them exactly: a
convolution with ones adds up every spike once for each synapse that it passes, at borders and strides too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikestill.graph.arguments import found_in, mapped
from spikestill.graph.operations import DROPOUTS, SCALINGS, is_max_pool, name_of
from spikestill.graph.trace import module_of
from spikestill.nn import LIF

__all__ = ["Arrivals", "ArrivalsRun", "LayerArrivals"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED_FUNCTIONS: dict[type, Callable[..., Tensor]] = {
    nn.ConvTranspose1d: functional.conv_transpose1d,
    nn.ConvTranspose2d: functional.conv_transpose2d,
    nn.ConvTranspose3d: functional.conv_transpose3d,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SCALED: tuple[Any, ...] = (*SCALINGS, operator.neg)
_SUMS: tuple[Any, ...] = (operator.add, operator.sub)
_REARRANGED: tuple[Any, ...] = (
    *(torch.cat, torch.flatten, torch.reshape, torch.permute, torch.split, operator.getitem, getattr),
    *(torch.pixel_shuffle, torch.pixel_unshuffle, torch.channel_shuffle),
)
_AVERAGE_POOLS: tuple[Any, ...] = (torch.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_ADAPTIVE_POOLS: tuple[Any, ...] = (
    *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d),
)


@dataclass(frozen=True)
class Arrivals:
    """What comes to a place of the graph, in all images and time steps.

    Attributes:
        counts: ``[3, ...]``, float64. Row 0: how many spikes; row 1: 1 for an analog value that is the same at every
            step, else 0; row 2: 1 for an analog value that moves. A place with a moving value has nothing else.
        is_single: whether at most one spike comes to a place in a time step.
    """

    counts: Tensor
    is_single: bool

    @classmethod
    def of_spikes(cls, counts: Tensor, is_single: bool = True) -> Arrivals:
        """Spikes alone; ``counts`` is ``[...]``."""
        none = torch.zeros_like(counts)
        return cls(torch.stack([counts, none, none]), is_single)

    @classmethod
    def of_values(cls, like: Tensor, move: bool) -> Arrivals:
        """Analog values alone, at every place of ``like``, ``[...]``."""
        none, ones = torch.zeros_like(like), torch.ones_like(like)
        return cls(torch.stack([none, none, ones] if move else [none, ones, none]), False)

    @property
    def are_spikes(self) -> bool:
        """Whether nothing but spikes comes."""
        return not bool(self.counts[1:].any())

    @property
    def move(self) -> bool:
        """Whether anything of it differs between time steps."""
        return bool(self.counts[0].any() or self.counts[2].any())


@dataclass(frozen=True)
class LayerArrivals:
    """What the calls of one layer have to compute.

    Attributes:
        accumulates: the sum over all spikes of each one's fan-out, in all images and time steps.
        still: multiply-accumulates of analog values that are the same at every step, for one image.
        moving: multiply-accumulates of analog values that move, for one image and time step.
        dense: multiply-accumulates of the same layer in an ANN, for one image.
    """

    accumulates: float = 0.0
    still: float = 0.0
    moving: float = 0.0
    dense: float = 0.0

    def __add__(self, other: LayerArrivals) -> LayerArrivals:
        return LayerArrivals(
            self.accumulates + other.accumulates,
            self.still + other.still,
            self.moving + other.moving,
            self.dense + other.dense,
        )


class ArrivalsRun(fx.Interpreter):
    """One pass of the counts over a spiking graph, on the CPU.

    Args:
        body: the spiking graph.
        fired: for every neuron layer and every maximum, how often each place was not zero, ``[...]``.

    Attributes:
        layers: by layer, what its calls have to compute.
        uncounted: the operations met that are in none of these, by name, in order.
    """

    def __init__(self, body: fx.GraphModule, fired: Mapping[fx.Node, Tensor]) -> None:
        super().__init__(body)
        self._fired = fired
        self.layers: dict[str, LayerArrivals] = {}
        self.uncounted: list[str] = []

    @torch.no_grad()
    def count(self, given: Arrivals) -> None:
        """Fill ``layers`` and ``uncounted`` for this input."""
        self.run(given)

    def run_node(self, n: fx.Node) -> Any:  # noqa: D102
        if n.op not in ("call_module", "call_function", "call_method"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = found_in((args, kwargs), Arrivals)
        if not given:  # of parameters, or of sizes: it is computed as it is
            return super().run_node(n)
        module = module_of(self.module, n)  # type: ignore[arg-type]
        kind = n.target if module is None else type(module)
        if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)):
            return self._layer(str(n.target), module, given[0])
        if kind not in (*_REARRANGED, *DROPOUTS):
            self._note(name_of(self.module, n))  # type: ignore[arg-type]
        if isinstance(module, LIF):
            return Arrivals.of_spikes(self._fired[n])
        if kind in (*DROPOUTS, *_SCALED):
            return given[0]
        if kind in _NORMS:
            return Arrivals(given[0].counts, False)
        if kind in _SUMS:
            total = given[0].counts if len(given) == 1 else given[0].counts + given[1].counts
            return _settled(total, False)
        if is_max_pool(self.module, n) and all(one.are_spikes and one.is_single for one in given):  # type: ignore[arg-type]
            return Arrivals.of_spikes(self._fired[n])
        summed = _summed(kind, mapped(args, _counts_in))
        if summed is not None:
            return _settled(summed, False)
        result = self._computed(n, module, *mapped((args, kwargs), _counts_in))
        if kind in _REARRANGED or _copies(kind, args):
            is_single = all(one.is_single for one in given)
            return mapped(result, lambda item: _settled(item, is_single) if isinstance(item, Tensor) else item)
        move = any(one.move for one in given)
        return mapped(result, lambda item: Arrivals.of_values(item[0], move) if isinstance(item, Tensor) else item)

    def _layer(self, path: str, module: Any, given: Arrivals) -> Arrivals:
        counts = given.counts
        if isinstance(module, nn.Linear):
            result = counts.new_ones(*counts.shape[1:-1], module.out_features)
            accumulates, places = counts[0].sum() * module.out_features, math.prod(counts.shape[1:-1])
        else:
            passed = _with_ones(module, counts[:1])
            result = passed[0, :1].expand(module.out_channels, *passed.shape[2:])
            accumulates = passed.sum() * (module.out_channels // module.groups)
            places = math.prod((counts if isinstance(module, _TRANSPOSED) else passed).shape[2:])
        dense = float(module.weight.numel() * places)
        still, moving = (dense * float(share) for share in counts[1:].flatten(1).mean(1))
        found = LayerArrivals(float(accumulates), still, moving, dense)
        self.layers[path] = self.layers.get(path, LayerArrivals()) + found
        if module.bias is not None:
            self._note("bias")
        return Arrivals.of_values(result, given.move)

    def _computed(self, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any) -> Any:
        if module is not None:
            return module.forward(*args, **kwargs)  # not its hooks, which watch the network's own signals
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _note(self, name: str) -> None:
        if name not in self.uncounted:
            self.uncounted.append(name)


def _counts_in(item: Any) -> Any:
    return item.counts if isinstance(item, Arrivals) else item


def _settled(counts: Tensor, is_single: bool) -> Arrivals:
    """Analog values as marks again, and nothing beside a moving one: what was added to it is part of it."""
    moving = (counts[2] != 0).double()
    still = (counts[1] != 0).double()
    return Arrivals(torch.stack([counts[0] * (1 - moving), still * (1 - moving), moving]), is_single)


def _with_ones(module: Any, counts: Tensor) -> Tensor:
    """A convolution of ``[1, C, ...]`` with ones, one output channel a group, since its channels are all alike."""
    if isinstance(module, _TRANSPOSED):
        ones = counts.new_ones(module.in_channels, 1, *module.kernel_size)
        options = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
        return _TRANSPOSED_FUNCTIONS[type(module)](counts, ones, None, *options)
    ones = counts.new_ones(module.groups, module.in_channels // module.groups, *module.kernel_size)
    convolved: Tensor = module._conv_forward(counts, ones, None)
    return convolved


def _summed(kind: Any, args: Any) -> Tensor | None:
    """What a mean takes the mean of, added up; None for what is no mean."""
    if kind in _AVERAGE_POOLS:
        return _window_sums(*args[:5])
    if kind in _ADAPTIVE_POOLS:
        return _adaptive_sums(args[0], kind(*args))
    return torch.sum(*args) if kind is torch.mean else None


def _window_sums(counts: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Tensor:
    """Sums over the windows of an average pooling in one, two or three dimensions."""
    missing = 5 - counts.dim()
    volume = counts.reshape(*counts.shape[:2], *(1,) * missing, *counts.shape[2:])
    windows, steps, sides = ((filler,) * missing + given for given, filler in ((kernel, 1), (stride, 1), (padding, 0)))
    pooled = functional.avg_pool3d(volume, windows, steps, sides, ceil_mode, divisor_override=1)
    return pooled.reshape(*pooled.shape[:2], *pooled.shape[2 + missing :])


def _adaptive_sums(counts: Tensor, means: Tensor) -> Tensor:
    """Sums over the windows of an adaptive average pooling, of its means: window i of n runs from floor to ceiling."""
    for axis in range(2, counts.dim()):
        size, n = counts.shape[axis], means.shape[axis]
        windows = [-(-(i + 1) * size // n) - i * size // n for i in range(n)]
        means = means * means.new_tensor(windows).reshape(-1, *(1,) * (counts.dim() - 1 - axis))
    return means.round()


def _copies(kind: Any, args: Any) -> bool:
    """Whether padding or resizing copies signals and puts at most zeros beside them."""
    if kind is functional.interpolate:
        return str(args[3]).startswith("nearest")
    return kind is functional.pad and not args[3]
