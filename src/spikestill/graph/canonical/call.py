"""A call of a traced graph, as the forms see it: with the values of its arguments, and a way to add calls before it."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, MutableMapping
from typing import Any

from torch import Tensor, fx, nn

__all__ = ["Call"]


class Call:
    """One node that is being rewritten.

    Args:
        node: the node.
        values: of every node of the graph, as it was traced.
        signals: the nodes whose value depends on the images, sizes aside.
        model: that was traced.
    """

    def __init__(
        self, node: fx.Node, values: MutableMapping[fx.Node, Any], signals: set[fx.Node], model: nn.Module
    ) -> None:
        self.node, self._values, self._signals, self.model = node, values, signals, model

    def value(self, item: Any) -> Any:
        """The value of a node, for the images that the graph was traced with; of anything else, itself."""
        return self._values[item] if isinstance(item, fx.Node) else item

    def shape(self, item: Any) -> tuple[int, ...]:
        """The shape of a node's value, with the batch."""
        return tuple(self.value(item).shape)

    def is_signal(self, item: Any) -> bool:
        """Whether a value depends on the images."""
        return isinstance(item, fx.Node) and item in self._signals

    def number(self, item: Any) -> float | None:
        """The number that a constant is, everywhere; None for a signal, a parameter or buffer, and for no number."""
        if isinstance(item, int | float):
            return float(item)
        if not isinstance(item, fx.Node) or not _is_literal(item):
            return None
        value = self._values[item]
        if not isinstance(value, Tensor) or value.numel() == 0 or bool((value != value.flatten()[0]).any()):
            return None
        return float(value.flatten()[0])

    def axes(self, item: Any, given: Any) -> tuple[int, ...]:
        """Axes of a node's value, counted from the front."""
        rank = len(self.shape(item))
        return tuple(axis % rank for axis in (given if isinstance(given, tuple | list) else (given,)))

    def flat(self, given: Any) -> list[Any]:
        """Sizes or axes, which torch takes one by one or together."""
        if len(given) == 1 and isinstance(given[0], tuple | list):
            given = given[0]
        return list(given)

    def scaled(self, item: Any, factor: Any) -> Any:
        """``item`` times a number."""
        if factor == 1:
            return item
        return item * factor if not isinstance(item, fx.Node) else self.before(operator.mul, item, factor)

    def before(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        """A further call in front of this one."""
        with self.node.graph.inserting_before(self.node):
            made = self.node.graph.call_function(function, args)
        made.meta = copy.copy(self.node.meta)
        self._values[made] = function(*(self.value(item) for item in args))
        if any(self.is_signal(item) for item in args):
            self._signals.add(made)
        return made


_MADE_OF_A_NUMBER = (
    "zeros_like",
    "new_zeros",
    "full_like",
    "new_full",
    "ones_like",
    "new_ones",
    "tensor",
    "new_tensor",
)


def _is_literal(node: fx.Node) -> bool:
    """Whether a node is a constant that the forward writes down: a tensor of no module, or made of one number."""
    if node.op == "get_attr":
        return str(node.target).startswith("_tensor_constant")
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in _MADE_OF_A_NUMBER
