"""Run folders that would write over what a training reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spikestill.files import expanded
from spikestill.recipes import DistillRecipe, Recipe
from spikestill.runs import NETWORKS
from spikestill.train.teachers import PUBLISHED, names_model
from spikestill.types import InputError

__all__ = ["check_folder"]


def check_folder(recipe: Recipe) -> None:
    """Look whether the run folder is, holds, or lies in a folder that the recipe reads; links are followed.

    With ``--overwrite``, what lies there would be removed. A run may lie in the folder of its data.

    Raises:
        InputError: naming both.
    """
    folder = Path(recipe.folder).resolve()
    for what, path in _networks(recipe):
        other = path.resolve()
        if folder.is_relative_to(other) or other.is_relative_to(folder):
            raise InputError(_complaint(recipe, folder, what, path))
    for what, path in _data(recipe):
        if expanded(path).resolve().is_relative_to(folder):
            raise InputError(_complaint(recipe, folder, what, path))


def _complaint(recipe: Recipe, folder: Path, what: str, path: Path) -> str:
    how = "is" if path.resolve() == folder else "overlaps"
    return f"--out {recipe.folder} {how} the {what} {path}, which is read: choose another --out"


def _networks(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """What is read as networks, by what it is called."""
    for name in (*NETWORKS, "teacher_weights"):
        value = getattr(recipe, name, None)
        if value is not None and value != PUBLISHED and not names_model(value):
            yield name, Path(value)
    if isinstance(recipe, DistillRecipe):
        for stage in (recipe.stage("teacher"), recipe.stage("source")):
            if stage is not None:
                yield f"stage {stage.method}", Path(stage.folder)


def _data(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    kind, colon, path = recipe.data.partition(":")
    if colon and path and kind in ("folder", "parquet"):
        yield "data set", Path(path)
    if recipe.data_dir is not None:
        yield "data folder", Path(recipe.data_dir)
