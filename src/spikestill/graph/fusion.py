"""Which operations of a spiking graph are left to the neurons that follow: BatchNorm, and sums of two.

A neuron's pass over time reads its current once and can scale, shift and add on the way. An operation is *deferred* to
it where nobody else wants its result: every use is a neuron, or a deferred sum.
"""

from __future__ import annotations

import operator
from collections.abc import Collection

from torch import fx, nn

from spikestill.graph.operations import is_watched
from spikestill.graph.trace import module_of
from spikestill.nn import LIF
from spikestill.nn.batch_norm import SynchronisedBatchNorm

__all__ = ["deferred_to_neurons", "has_one_reader", "is_deferrable_norm", "is_neuron"]


def deferred_to_neurons(body: fx.GraphModule, kept: Collection[fx.Node] = ()) -> frozenset[fx.Node]:
    """The nodes that neurons take over, but for ``kept`` ones, whose values are wanted."""
    deferred: set[fx.Node] = set()
    for node in reversed(body.graph.nodes):
        sums = {user for user in node.users if user in deferred and module_of(body, user) is None}
        users = [user for user in node.users if user not in sums and not is_neuron(body, user)]
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
    """Whether a module is a BatchNorm of torch's own or a synchronised one, and nobody watches its calls."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, SynchronisedBatchNorm)
    return module is not None and type(module) in kinds and not is_watched(module)


def is_neuron(body: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a layer of neurons."""
    return isinstance(module_of(body, node), LIF)


def _is_sum_of_two(node: fx.Node) -> bool:
    return (
        node.target is operator.add
        and all(isinstance(item, fx.Node) and "shape" in item.meta for item in node.args)
        and node.args[0].meta["shape"] == node.args[1].meta["shape"]  # type: ignore[union-attr]
    )
