"""Which operations of a spiking graph are left to the neurons that follow: BatchNorm, and sums of two.

A neuron's pass over time reads its current once and can scale, shift and add on the way. An operation is *deferred* to
it where nobody else wants its result: every use is a neuron, or a deferred sum.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.dynamics import Normalisation, batch_moments
from spikestill.graph.trace import module_of
from spikestill.nn import LIF
from spikestill.types import InputError

__all__ = ["deferred_to_neurons", "has_one_reader", "is_deferrable_norm", "normalisation_of"]

_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")


def deferred_to_neurons(body: fx.GraphModule, kept: Collection[fx.Node] = ()) -> frozenset[fx.Node]:
    """The nodes that neurons take over, but for ``kept`` ones, whose values are wanted."""
    deferred: set[fx.Node] = set()
    for node in reversed(body.graph.nodes):
        sums = {user for user in node.users if user in deferred and module_of(body, user) is None}
        users = [user for user in node.users if user not in sums and not _is_neuron(body, user)]
        if node in kept or users or not node.users:
            continue
        if is_deferrable_norm(module_of(body, node)) or (_is_sum_of_two(node) and not sums):
            deferred.add(node)
    return frozenset(deferred)


def has_one_reader(
    body: fx.GraphModule, node: fx.Node, kept: Collection[fx.Node] = (), deferred: Collection[fx.Node] = ()
) -> bool:
    """Whether a node's value is read by one operation alone, so that this one may write over it.

    A ``deferred`` operation is not one that reads: those that it is left to are.
    """
    module = module_of(body, node)
    if node in kept or module is None or module._forward_hooks:
        return False
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node not in deferred:
            return True
    return False


def is_deferrable_norm(module: nn.Module | None) -> bool:
    """Whether a module is a BatchNorm of torch's own, and nobody watches its calls."""
    if module is None or type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return False
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks)


def normalisation_of(module: _BatchNorm, sequence: Tensor) -> tuple[Normalisation, Tensor | None]:
    """What a BatchNorm does to a sequence ``[T, B, C, ...]``, and that sequence's mean over time if it was gathered.

    In training the statistics are those over time, batch and space, gathered in one pass; the running ones are updated
    once, as the module's own forward does.

    Raises:
        InputError: for statistics of a single value a channel.
    """
    if module.training or module.running_mean is None or module.running_var is None:
        mean, variance, over_time = batch_moments(sequence)
        members = sequence.numel() // max(len(mean), 1)
        if members == 1:
            raise InputError("BatchNorm needs more than one value a channel for its statistics: give a larger batch")
        if module.training:
            _update(module, mean, variance, members)
        inverse = torch.rsqrt(variance + module.eps)
        return Normalisation(mean, inverse, module.weight, module.bias, True), over_time
    exact = torch.promote_types(module.running_var.dtype, torch.float32)
    inverse = torch.rsqrt(module.running_var.to(exact) + module.eps)
    return Normalisation(module.running_mean.to(exact, copy=True), inverse, module.weight, module.bias, False), None


@torch.no_grad()
def _update(module: _BatchNorm, mean: Tensor, variance: Tensor, members: int) -> None:
    if not module.track_running_stats or module.running_mean is None or module.running_var is None:
        return
    momentum = module.momentum
    if module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(module.num_batches_tracked)
    if momentum is None or members == 0:
        momentum = 0.0
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), momentum)
    unbiased = variance * (members / max(members - 1, 1))
    module.running_var.lerp_(unbiased.to(module.running_var.dtype), momentum)


def _is_neuron(body: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(body, node), LIF)


def _is_sum_of_two(node: fx.Node) -> bool:
    return (
        node.target in _SUMS
        and len(node.args) == 2
        and not node.kwargs
        and all(isinstance(item, fx.Node) and "shape" in item.meta for item in node.args)
        and node.args[0].meta["shape"] == node.args[1].meta["shape"]  # type: ignore[union-attr]
    )
