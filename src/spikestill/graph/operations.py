"""Which operations become neurons, which carry spikes as they are, and which cannot.

A spiking network adds up weighted spikes, so what stands between two neurons must be linear in the signal. Everything
else is an activation (becomes a neuron), a maximum (kept, with a remark), or refused.
"""

from __future__ import annotations

import operator
from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

from spikestill.graph.trace import module_of
from spikestill.nn import LIF, MaxGate

__all__ = [
    "is_activation",
    "is_concatenation_of",
    "is_dropout",
    "is_functional_dropout",
    "is_in_place",
    "is_linear",
    "is_max_pool",
    "is_watched",
    "name_of",
    "why_refused",
]

ACTIVATIONS: tuple[Any, ...] = (
    *(nn.ReLU, nn.ReLU6),
    *(functional.relu, functional.relu6, torch.relu, torch.relu_, "relu", "relu_"),
)
MAX_POOLS: tuple[Any, ...] = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, MaxGate),
    *(functional.max_pool1d, functional.max_pool2d, functional.adaptive_max_pool2d, torch.max_pool2d),
)
CONCATENATIONS: tuple[Any, ...] = (torch.cat, torch.concat)
DROPOUTS: tuple[Any, ...] = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
LINEAR: tuple[Any, ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.ZeroPad2d, nn.Upsample, nn.PixelShuffle, nn.ChannelShuffle),
    *(operator.add, operator.iadd, operator.sub, operator.neg, operator.getitem, getattr),
    *(torch.add, torch.sub, *CONCATENATIONS, torch.flatten, torch.mean, torch.reshape, torch.permute),
    *(torch.transpose, torch.chunk, torch.split, torch.squeeze, torch.unsqueeze, torch._assert),
    *(functional.avg_pool2d, torch.avg_pool1d, functional.adaptive_avg_pool2d, functional.pad, functional.interpolate),
    *("add", "add_", "sub", "view", "reshape", "flatten", "mean", "size", "contiguous", "permute", "transpose"),
    *("chunk", "split", "squeeze", "unsqueeze", "dim"),
)
PRODUCTS: tuple[Any, ...] = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
SCALINGS: tuple[Any, ...] = (*PRODUCTS, operator.truediv, torch.div, "div")
IN_PLACE: tuple[Any, ...] = (torch.relu_, "relu_", "add_", "mul_", operator.iadd, operator.imul)

_INTEGRALS: tuple[Any, ...] = (operator.floordiv, operator.mod, operator.eq, operator.mul, operator.add)
_NOT_PIECEWISE_LINEAR = "not a rectifier, so no firing rate can stand for it: train the ANN with ReLU"
_NORMALISES_EACH_INPUT = "normalises by the statistics of each input, which spikes do not carry: use BatchNorm"
_REASONS = {
    **dict.fromkeys(("SiLU", "GELU", "ELU", "SELU", "CELU", "Mish", "Softplus", "Tanh"), _NOT_PIECEWISE_LINEAR),
    **dict.fromkeys(("Hardswish", "LeakyReLU", "PReLU", "RReLU", "Softsign", "Threshold"), _NOT_PIECEWISE_LINEAR),
    **dict.fromkeys(("silu", "gelu", "elu", "hardswish", "leaky_relu", "mish", "tanh"), _NOT_PIECEWISE_LINEAR),
    **dict.fromkeys(("LayerNorm", "LayerNorm2d", "GroupNorm", "InstanceNorm2d", "RMSNorm"), _NORMALISES_EACH_INPUT),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "normalize"), _NORMALISES_EACH_INPUT),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Sigmoid", "softmax", "log_softmax", "sigmoid", "Hardsigmoid", "hardsigmoid"),
        "not linear in the signal: end the network at its logits, and use no gates inside it",
    ),
    **dict.fromkeys(
        ("clamp", "clamp_min", "clip", "maximum", "where", "hardtanh", "Hardtanh", "threshold"),
        "bends the signal in a way of its own: where it is a rectifier, write it as nn.ReLU or nn.ReLU6",
    ),
    **dict.fromkeys(
        ("max", "amax", "topk"), "takes a maximum outside a pooling: use nn.AdaptiveMaxPool2d, or the mean"
    ),
    **dict.fromkeys(("sum",), "has no rule: take the mean, times a number"),
    **dict.fromkeys(("stack",), "has no rule: put signals side by side with torch.cat"),
    **dict.fromkeys(
        ("float", "half", "bfloat16", "to", "type"), "changes the dtype, which is the caller's: leave it out"
    ),
    **dict.fromkeys(("detach",), "keeps gradients from what comes before: leave it out"),
    **dict.fromkeys(
        ("MultiheadAttention", "scaled_dot_product_attention", "matmul", "bmm", "einsum"),
        "multiplies two signals, which sums of weighted spikes cannot do",
    ),
}


def is_activation(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node becomes a neuron."""
    return _is_among(traced, node, ACTIVATIONS)


def is_max_pool(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node takes maxima over windows."""
    return _is_among(traced, node, MAX_POOLS)


def is_dropout(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a dropout module."""
    return _is_among(traced, node, DROPOUTS)


def is_functional_dropout(node: fx.Node) -> bool:
    """Whether a node drops by a function, for which tracing has fixed whether it trains."""
    return node.target in (functional.dropout, torch.dropout)


def is_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node overwrites its input."""
    module = module_of(traced, node)
    overwrites = getattr(module, "inplace", False) or node.kwargs.get("inplace", False)
    return bool(overwrites) or _is_among(traced, node, IN_PLACE)


def is_concatenation_of(node: fx.Node, known: Container[fx.Node]) -> bool:
    """Whether a node puts values side by side all of which are among ``known``."""
    parts = node.args[0] if node.target in CONCATENATIONS and node.args else ()
    return isinstance(parts, list | tuple) and len(parts) > 0 and all(part in known for part in parts)


def is_linear(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is linear in the signal (or computes with sizes alone), so that spikes pass it as they are."""
    if _is_among(traced, node, LINEAR):
        return True
    given = [item for item in (*node.args, *node.kwargs.values()) if isinstance(item, fx.Node)]
    signals = [item for item in given if "shape" in item.meta and item.op != "get_attr"]
    if not signals:
        return _is_among(traced, node, (*_INTEGRALS, *SCALINGS))
    if len(signals) > 1 or not _is_among(traced, node, SCALINGS):
        return False
    return signals[0] is node.args[0] or _is_among(traced, node, PRODUCTS)


def is_watched(module: nn.Module) -> bool:
    """Whether hooks see the calls of a module, or another function does its work, so that it has to be called."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or _has_any_global_hook() or "forward" in vars(module)


def name_of(traced: fx.GraphModule, node: fx.Node) -> str:
    """What a node calls, by its own name: ``ReLU``, ``relu``, ``add``."""
    module = module_of(traced, node)
    if module is not None:
        return type(module).__name__
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def why_refused(traced: fx.GraphModule, node: fx.Node) -> str:
    """Why a node cannot carry spikes, and what to do."""
    if _is_among(traced, node, SCALINGS):
        return "multiplies or divides by a signal, which sums of weighted spikes cannot do"
    name = name_of(traced, node)
    return _REASONS.get(name, "no rule says how spikes pass it: build it from linear layers, pooling, sums and ReLU")


def _is_among(traced: fx.GraphModule, node: fx.Node, known: Iterable[Any]) -> bool:
    module = module_of(traced, node)
    if module is None:
        return any(node.target is item or node.target == item for item in known if not isinstance(item, type))
    if isinstance(module, LIF):
        return known is ACTIVATIONS
    return type(module) in [item for item in known if isinstance(item, type)]
