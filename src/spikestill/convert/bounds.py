"""Bounds on the activations that follow from the weights alone: the model-based form of ``normalise``."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.convert.preparing import Conversion
from spikestill.convert.scaling import is_weighted
from spikestill.convert.values import require_positive
from spikestill.graph.trace import module_of
from spikestill.nn import LIF

__all__ = ["activation_bounds"]

_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv)

Range = tuple[float, float]


def activation_bounds(work: Conversion) -> dict[str, float]:
    """By neuron layer, the most that the ANN's activation can be for any input in the range of the calibration images.

    A layer's bound is the largest, over its outputs, sum of the positive incoming weights times the bound of what they
    read, plus the bias (Diehl et al. 2015, who have no biases and inputs in [0, 1]). Every range includes 0, which is
    what convolutions pad with.

    Raises:
        InputError: for a layer whose bound is not positive.
    """
    ranges: dict[fx.Node, Range] = {}
    found: dict[str, float] = {}
    for node in work.body.graph.nodes:
        module = module_of(work.body, node)
        if node.op == "placeholder":
            lowest, highest = (torch.stack([f(batch) for batch in work.images]) for f in (torch.amin, torch.amax))
            ranges[node] = _with_zero(lowest.min().item(), highest.max().item())
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(work.body)
            ranges[node] = (value.min().item(), value.max().item())
        elif isinstance(module, LIF):
            name = str(node.target)
            bound = min(ranges[node.args[0]][1], work.ceiling(name))
            found[name] = require_positive(name, bound, "bound on its activation")
            ranges[node] = (0.0, found[name])
        elif is_weighted(module):
            ranges[node] = _of_layer(module, ranges[node.args[0]])
        elif node.op != "output":
            ranges[node] = _of_function(node, [_range(item, ranges) for item in _leaves(node)])
    return found


def _of_layer(layer: Any, given: Range) -> Range:
    low, high = given
    bias: Tensor | float
    if isinstance(layer, _BatchNorm):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        scale = torch.rsqrt(layer.running_var + layer.eps) * (1.0 if layer.weight is None else layer.weight)
        weight, bias = scale.unsqueeze(1), (0.0 if layer.bias is None else layer.bias) - layer.running_mean * scale
    else:
        is_transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
        weight = (layer.weight.transpose(0, 1) if is_transposed else layer.weight).flatten(1)
        bias = _bias_of(layer, len(weight))
    positive, negative = weight.clamp(min=0).sum(1), weight.clamp(max=0).sum(1)
    above = positive * high + negative * low + bias
    below = positive * low + negative * high + bias
    return _with_zero(below.min().item(), above.max().item())


def _bias_of(layer: Any, rows: int) -> Tensor | float:
    if layer.bias is None:
        return 0.0
    return layer.bias if len(layer.bias) == rows else layer.bias.max()  # of a grouped transposed convolution


def _of_function(node: fx.Node, given: list[Range]) -> Range:
    if not given:
        return 0.0, 0.0
    if node.target is operator.neg:
        return _with_zero(-given[0][1], -given[0][0])
    if len(given) == 2:
        (low, high), (other_low, other_high) = given
        if node.target is operator.add:
            return _with_zero(low + other_low, high + other_high)
        if node.target is operator.sub:
            return _with_zero(low - other_high, high - other_low)
        if node.target in _ARITHMETIC:
            ends = [node.target(a, b) for a in (low, high) for b in (other_low, other_high)]
            return _with_zero(min(ends), max(ends))
    return _with_zero(min(low for low, _ in given), max(high for _, high in given))


def _leaves(node: fx.Node) -> list[Any]:
    """What a function computes with: the numbers too where it calculates, else the signals."""
    if node.target in _ARITHMETIC:
        return list(node.args[:2])
    return list(node.all_input_nodes)


def _range(item: Any, ranges: dict[fx.Node, Range]) -> Range:
    return ranges[item] if isinstance(item, fx.Node) else (float(item), float(item))


def _with_zero(low: float, high: float) -> Range:
    return min(low, 0.0), max(high, 0.0)
