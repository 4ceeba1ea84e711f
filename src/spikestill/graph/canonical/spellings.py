"""The names that torch and Python have for the operations that have a form, and the functions that go by them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.nn import functional

from spikestill.graph.canonical.forms import FORMS

__all__ = ["ALIASES", "NAMES"]

ALIASES = {
    "subtract": "sub",
    "multiply": "mul",
    "truediv": "div",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "itruediv": "div",
    "positive": "pos",
    "clip": "clamp",
    "max": "maximum",
    "min": "minimum",
    "view": "reshape",
    "view_as": "reshape_as",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "concat": "cat",
    "concatenate": "cat",
    "clone": "contiguous",
    "unsafe_chunk": "chunk",
    "unsafe_split": "split",
    "upsample": "interpolate",
}
"""Other names that torch has for the same, and those of Python's in-place operators."""


def _known_functions() -> dict[Any, str]:
    spaces = (operator, torch, functional, torch._C._nn)
    names = [*FORMS, *ALIASES, *(f"{name}_" for name in (*FORMS, *ALIASES))]
    found = {getattr(space, name): name for space in spaces for name in names if hasattr(space, name)}
    return {function: name for function, name in found.items() if callable(function)}


NAMES: dict[Any, str] = _known_functions()
"""The name of every function of torch and Python that has a form."""
