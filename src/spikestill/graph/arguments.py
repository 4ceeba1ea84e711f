"""The nested arguments of a graph's calls (tuples, lists, mappings), as the runs over time see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import fx

__all__ = ["found_in", "mapped"]

Kind = TypeVar("Kind")


def mapped(arguments: Any, function: Callable[[Any], Any]) -> Any:
    """``arguments`` with ``function`` applied to every leaf."""
    return fx.node.map_aggregate(arguments, function)


def found_in(arguments: Any, kind: type[Kind]) -> list[Kind]:
    """The leaves that are of one kind, in order."""
    found: list[Kind] = []

    def note(leaf: Any) -> None:
        if isinstance(leaf, kind):
            found.append(leaf)

    mapped(arguments, note)
    return found
