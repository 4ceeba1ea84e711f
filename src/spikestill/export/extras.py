"""The optional packages behind the exchange formats, imported where one is needed."""

from __future__ import annotations

import importlib
from typing import Any

from spikestill.types import InputError

__all__ = ["optional"]


def optional(name: str, extra: str) -> Any:
    """The module ``name`` of an optional package.

    Raises:
        InputError: where it is not installed: with the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(f"this needs {package} ({error}): pip install 'spikestill[{extra}]'") from error
