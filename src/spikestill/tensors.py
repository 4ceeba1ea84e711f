"""Checks of tensors that come from files."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spikestill.types import InputError

__all__ = ["require_finite"]

_MOST_NAMED = 3


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that are NaN or infinite: what a network computes with them means nothing.

    Args:
        tensors: by name, as in a ``state_dict``.
        what: whose they are, as the message begins.

    Raises:
        InputError: naming the tensors, and of the first one how many of its values.
    """
    wrong = {name: int((~value.isfinite()).sum()) for name, value in tensors.items() if value.is_floating_point()}
    names = [name for name, count in wrong.items() if count]
    if names:
        first = names[0]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        raise InputError(
            f"{what} holds values that are not finite: {wrong[first]} of {tensors[first].numel()} in '{first}'"
            + "".join(f", '{name}'" for name in names[1:_MOST_NAMED])
            + f"{more}; take the weights of an earlier epoch, or train again"
        )
