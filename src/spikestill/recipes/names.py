"""The names a recipe may use, looked up where they are defined; nothing is loaded or built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spikestill.types import unknown_name

if TYPE_CHECKING:
    from spikestill.objectives import Objective

__all__ = ["KINDS", "learns_from_spikes", "names", "needs_teacher", "objective_named", "presets", "unknown"]

KINDS = ("methods", "models", "datasets", "objectives", "encoders", "neurons")
"""What :func:`names` knows, in the words of ``spikestill list``."""

_PREFIXES = ("timm", "torchvision", "python", "custom", "folder", "parquet")

_SINGULAR = {
    "method": "methods",
    "model": "models",
    "data set": "datasets",
    "objective": "objectives",
}


def presets() -> dict[str, Path]:
    """The named methods: by name, the YAML preset that each one is."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def names(kind: str) -> list[str]:
    """The names of one kind, each as a user types it.

    Raises:
        InputError: for a kind that is none of :data:`KINDS`.
    """
    if kind == "methods":
        return list(presets())
    if kind == "models":
        from spikestill import models

        return models.names()
    if kind == "datasets":
        from spikestill import data

        return data.names()
    if kind == "objectives":
        from spikestill import objectives

        return objectives.names()
    if kind == "encoders":
        return ["direct", "events", "poisson"]
    if kind == "neurons":
        return ["if", "lif"]
    raise unknown_name("list", kind, KINDS)


def unknown(kind: str, name: str) -> Iterator[str]:
    """The complaint about ``name``, if it is none of its kind; with the nearest one suggested.

    Args:
        kind: method, model, data set or objective.
        name: as the user typed it; what follows a prefix like ``timm:`` is left to its own loader.
    """
    from spikestill.data import shown_images

    known = names(_SINGULAR[kind])
    if kind == "data set" and ":" in name and (source := shown_images(name)):
        yield from unknown(kind, source)
    elif not _is_known(name, known):
        yield str(unknown_name(kind, name, known))


def objective_named(name: str) -> type[Objective] | None:
    """The class of the objective of this name; None for a name that is none."""
    from spikestill.objectives import Objective

    return next((kind for kind in Objective.__subclasses__() if kind.name == name), None)


def needs_teacher(objective: str) -> bool:
    """Whether the objective of this name needs a teacher; False for a name that is none."""
    kind = objective_named(objective)
    return kind is not None and kind.needs_teacher


def learns_from_spikes(objective: str) -> bool:
    """Whether the objective of this name can learn from a spiking network; False for a name that is none."""
    kind = objective_named(objective)
    return kind is not None and kind.needs_teacher and "snn" in kind.teachers


def _is_known(name: str, known: Iterable[str]) -> bool:
    prefix, colon, rest = name.partition(":")
    return name in known or bool(colon and rest and prefix in _PREFIXES)
