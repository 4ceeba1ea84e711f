"""A command from a function: options, types, defaults and help are those of its signature and docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from spikestill.recipes.words import one_line, refuse_unknown_options, spelled
from spikestill.types import InputError
from spikestill.values import unusable_values

__all__ = ["call", "numbers"]


_MOST = 1_000_000
_MOST_SHOWN = 100


def call(function: Callable[..., None], command: str, words: Sequence[str]) -> None:
    """Parse ``words`` for ``function`` and call it; parameters without a default are positional.

    Raises:
        InputError: for an unknown option (with the nearest one suggested), a missing or a mistyped value.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    description = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]  # the arguments are listed by themselves
    parser = ArgumentParser(prog=f"spikestill {command}", exit_on_error=False, description=description)
    parser.add_function_arguments(function, as_group=False, as_positional=True, fail_untyped=True)
    words = [spelled(word) for word in words]
    refuse_unknown_options(words, inspect.signature(function).parameters)
    try:
        values: dict[str, Any] = parser.parse_args(words).as_dict()
    except RecursionError as error:
        raise InputError("an option is nested too deeply") from error
    except ArgumentError as error:
        raise InputError(one_line(error)) from error
    if unusable := list(unusable_values(values)):
        raise InputError("; ".join(unusable))
    function(**values)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers separated by commas, as in ``1,2,4``.

    Raises:
        InputError: when there is anything else, or a number below 1.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > _MOST:
        raise InputError(
            f"{option} must be whole numbers of 1 to {_MOST:,}, separated by commas, not '{text[:_MOST_SHOWN]}'"
        )
    return found
