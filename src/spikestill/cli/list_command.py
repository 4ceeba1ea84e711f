"""``spikestill list [KIND]``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spikestill.cli.signature import call
from spikestill.recipes import KINDS, names, presets

__all__ = ["list_names", "run"]


def run(words: Sequence[str]) -> None:
    """Parse and list."""
    # The kind is positional and optional, which a signature cannot say.
    given = list(words)
    call(list_names, "list", given if given and given[0].startswith("-") else [f"--kind={word}" for word in given])


def list_names(kind: str = "all") -> None:
    """Print the names that recipes and options may use.

    Args:
        kind: methods, models, datasets, objectives, encoders, neurons, or all.

    Raises:
        InputError: for another kind.
    """
    for one in KINDS if kind == "all" else (kind,):
        known = names(one)
        if one == "methods":
            known = [f"{name:<20} {_summary(name)}" for name in known]
        if one == "models":
            known += ["timm:NAME", "torchvision:NAME", "python:PACKAGE.MODULE:FUNCTION"]
        print(f"{one}:" if kind == "all" else "", *known, sep="\n  " if kind == "all" else "\n")


def _summary(name: str) -> str:
    """The first sentence of a preset's comment."""
    lines = presets()[name].read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    return re.split(r"(?<!et al)\. ", comment, maxsplit=1)[0].rstrip(".")
