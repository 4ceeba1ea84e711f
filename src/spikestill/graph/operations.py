"""Which operations become neurons, which carry spikes as they are, and which cannot.

A spiking network adds up weighted spikes, so what stands between two neurons must be linear in the signal. Everything
else is an activation (becomes a neuron), a maximum (kept, with a remark), or refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Container
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize

from spikestill.graph.ops import DROPOUTS, LAYERS, depends_on_input, operation_of
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, MaxGate

__all__ = [
    "CONCATENATIONS",
    "DROPOUTS",
    "PRODUCTS",
    "SCALINGS",
    "ceiling_of",
    "is_activation",
    "is_concatenation_of",
    "is_dropout",
    "is_linear",
    "is_max_pool",
    "is_module",
    "is_watched",
    "kind_of",
    "name_of",
    "why_refused",
]

CONCATENATIONS: tuple[Any, ...] = (torch.cat,)
PRODUCTS: tuple[Any, ...] = (operator.mul,)
SCALINGS: tuple[Any, ...] = (*PRODUCTS, operator.truediv)

_NOT_PIECEWISE_LINEAR = "not a rectifier, so no firing rate can stand for it: train the ANN with ReLU"
_NORMALISES_EACH_INPUT = "normalises by the statistics of each input, which spikes do not carry: use BatchNorm"
_COMPUTES_WEIGHTS = "computes its weights in the forward: let a parameter, or torch.nn.utils.parametrize, give them"
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
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear", "batch_norm"), _COMPUTES_WEIGHTS),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _COMPUTES_WEIGHTS),
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
    """Whether a node becomes a neuron, or calls one."""
    return _kind(node) == "activation" or isinstance(module_of(traced, node), LIF)


def is_max_pool(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node takes maxima over windows."""
    return _kind(node) == "maximum" or isinstance(module_of(traced, node), MaxGate)


def is_dropout(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a dropout module, or drop path."""
    return isinstance(module_of(traced, node), DROPOUTS)


def is_module(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the model has a module for an operation, whose path is then the last of its scope."""
    return node.op == "call_module" or bool(node.meta.get("is_module"))


def ceiling_of(node: fx.Node) -> float:
    """The value at which an activation saturates: 6 for ReLU6, infinity for ReLU."""
    return float(node.args[2]) if node.target is functional.hardtanh else math.inf  # type: ignore[arg-type]


def is_concatenation_of(node: fx.Node, known: Container[fx.Node]) -> bool:
    """Whether a node puts values side by side all of which are among ``known``."""
    parts = node.args[0] if node.target in CONCATENATIONS and node.args else ()
    return isinstance(parts, list | tuple) and len(parts) > 0 and all(part in known for part in parts)


def is_linear(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is linear in the signal (or of constants and sizes alone), so that spikes pass it as they are."""
    module = module_of(traced, node)
    if module is not None:
        return kind_of(module) in LAYERS or isinstance(module, DROPOUTS)
    if not depends_on_input(node):
        return True
    kind = _kind(node)
    if kind in ("linear", "size"):
        return True
    signals = [item for item in node.args if isinstance(item, fx.Node) and depends_on_input(item)]
    if kind not in ("product", "quotient") or len(signals) > 1:
        return False
    return kind == "product" or signals == [node.args[0]]


def kind_of(module: nn.Module) -> type[nn.Module]:
    """A layer's type; of one with a parametrised weight, that which it had before."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def is_watched(module: nn.Module) -> bool:
    """Whether hooks see the calls of a module, or another function does its work, so that it has to be called."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or _has_any_global_hook() or "forward" in vars(module)


def name_of(traced: fx.GraphModule, node: fx.Node) -> str:
    """What a node calls, as the model has written it: ``ReLU``, ``relu_``, ``add``."""
    module = module_of(traced, node)
    if module is not None:
        return type(module).__name__
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return str(node.meta.get("written", name))


def why_refused(traced: fx.GraphModule, node: fx.Node) -> str:
    """Why a node cannot carry spikes, and what to do."""
    if _kind(node) in ("product", "quotient"):
        return "multiplies or divides by a signal, which sums of weighted spikes cannot do"
    name = name_of(traced, node)
    return _REASONS.get(name, "no rule says how spikes pass it: build it from linear layers, pooling, sums and ReLU")


def _kind(node: fx.Node) -> str:
    row = operation_of(node)
    return "" if row is None or node.meta.get("unknown") else row.kind
