"""``fold``: BatchNorm into the weights before it, for conversion, deployment and export; and ``separate_calls``."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from spikestill.graph.canonical.modules import with_plain_weights
from spikestill.graph.trace import calls, module_of
from spikestill.graph.tracers import evaluating
from spikestill.nn import LIF
from spikestill.types import InputError

__all__ = ["fold", "separate_calls"]


def fold(traced: fx.GraphModule, *, strict: bool = True) -> fx.GraphModule:
    """A copy of a graph without BatchNorm: each is folded, with its running statistics, into the layer before it.

    Weights that are parametrised (weight_norm, spectral_norm) become plain ones. The copy equals the original in
    evaluation mode up to rounding.

    Args:
        traced: from ``trace``, or a spiking network's body.
        strict: False keeps each BatchNorm that cannot be folded.

    Raises:
        InputError: if strict, for a BatchNorm that does not directly follow a convolution or linear layer of its own,
            or that keeps no running statistics.
    """
    folded = copy.deepcopy(traced)
    _settle_weights(folded)
    for node in list(calls(folded.graph)):
        norm = module_of(folded, node)
        if isinstance(norm, _BatchNorm):
            try:
                _fold_into_previous(folded, node, norm)
            except InputError:
                if strict:
                    raise
    folded.graph.lint()
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def separate_calls(traced: fx.GraphModule) -> fx.GraphModule:
    """A copy of a graph in which every call of a module with weights has a module of its own.

    Two calls of one layer may need two scales, and a BatchNorm that is called twice could not be folded. The first call
    keeps the module's name, further ones are numbered from 2.
    """
    separated, met = copy.deepcopy(traced), set[str]()
    for node in list(calls(separated.graph)):
        module = module_of(separated, node)
        if module is None or not any(True for _ in module.state_dict()):
            continue
        path = str(node.target)
        if path in met:
            existing, number = {name for name, _ in separated.named_modules()}, 2
            while f"{path}_{number}" in existing:
                number += 1
            node.target = f"{path}_{number}"
            separated.add_submodule(node.target, copy.deepcopy(module))
        met.add(path)
    return separated


def _settle_weights(folded: fx.GraphModule) -> None:
    """Give each layer with parametrised weights their present value as plain parameters; neurons keep learning."""
    with evaluating(folded):
        for path, module in list(folded.named_modules()):
            if parametrize.is_parametrized(module) and not isinstance(module, LIF):
                folded.set_submodule(path, with_plain_weights(module))


def _fold_into_previous(folded: fx.GraphModule, node: fx.Node, norm: _BatchNorm) -> None:
    source = node.args[0]
    layer = module_of(folded, source) if isinstance(source, fx.Node) else None
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) or not isinstance(source, fx.Node):
        raise InputError(f"cannot fold '{node.target}': it does not follow a convolution or linear layer")
    if isinstance(layer, nn.Linear) and len(source.meta["shape"]) > 2:
        raise InputError(f"cannot fold '{node.target}': it normalises another axis than '{source.target}' leaves")
    if len(source.users) > 1 or sum(other.target == source.target for other in calls(folded.graph)) > 1:
        raise InputError(f"cannot fold '{node.target}': '{source.target}' is used elsewhere too")
    if norm.running_mean is None or norm.running_var is None:
        raise InputError(f"cannot fold '{node.target}': it keeps no running statistics")
    weight = norm.weight if norm.weight is not None else torch.ones_like(norm.running_mean)
    bias = norm.bias if norm.bias is not None else torch.zeros_like(norm.running_mean)
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    statistics = (norm.running_mean, norm.running_var, norm.eps)
    layer.weight, layer.bias = fuse(layer.weight, layer.bias, *statistics, weight, bias)
    layer.bias.requires_grad_(layer.weight.requires_grad)  # torch leaves a bias that was none without
    node.replace_all_uses_with(source)
    folded.graph.erase_node(node)
