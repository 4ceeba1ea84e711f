"""Consent to run code that a file names: a ``python:`` name runs only if the user typed it, or consented to all code.

What a run folder, an experiment or a recipe names is data. A program gives consent for a block of code with
:func:`consent`; whatever imports a name that may come from a file asks :func:`require_consent` first.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from spikestill.types import InputError

__all__ = ["PREFIX", "code_names", "consent", "consents_to_all", "names_in_argv", "require_consent"]

PREFIX = "python:"

_NETWORK_FIELDS = ("model", "student", "teacher", "source", "start")
"""The fields of a recipe or of a network's description that can name code."""

_NAME = re.compile(rf"{PREFIX}[^\s,;'\"{{}}\[\]()]+")

_names: ContextVar[frozenset[str]] = ContextVar("consented_names", default=frozenset())
_to_all: ContextVar[bool] = ContextVar("consents_to_all", default=False)


@contextlib.contextmanager
def consent(names: Iterable[str] = (), *, trust_code: bool = False) -> Iterator[None]:
    """Allow code by name within the block, beside what is allowed already.

    Args:
        names: such as ``python:package.module:function``.
        trust_code: allow every name.
    """
    before = _names.set(_names.get() | frozenset(names)), _to_all.set(_to_all.get() or trust_code)
    try:
        yield
    finally:
        _names.reset(before[0])
        _to_all.reset(before[1])


def consents_to_all() -> bool:
    """Whether every name is allowed now."""
    return _to_all.get()


def require_consent(name: str) -> None:
    """Refuse a name that nobody consented to; nothing is imported.

    Raises:
        InputError: with the name, and how to consent.
    """
    if not _to_all.get() and name not in _names.get():
        raise InputError(
            f"'{name}' is code that a file names, not this command line, and code can do whatever you can do: read it, "
            "then consent with --trust-code (in Python: trust_code=True)"
        )


def code_names(fields: Any) -> Iterator[str]:
    """The ``python:`` names in the fields of a recipe, at any depth, where a network is named."""
    if isinstance(fields, Mapping):
        for field, value in fields.items():
            if field in _NETWORK_FIELDS and isinstance(value, str) and value.startswith(PREFIX):
                yield value
            yield from code_names(value)
    elif isinstance(fields, list | tuple):
        for value in fields:
            yield from code_names(value)


def names_in_argv(argv: Iterable[str]) -> list[str]:
    """The ``python:`` names that stand in command-line words, also within a mapping or behind an equals sign."""
    return [name for word in argv for name in _NAME.findall(word)]
