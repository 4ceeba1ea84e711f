"""What a student's recipe needs before it can begin: a teacher, an ANN to convert, trained or found finished."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from spikestill.recipes import DistillRecipe, Recipe
from spikestill.runs import Run
from spikestill.train.loop import execute
from spikestill.types import InputError

__all__ = ["with_stages"]

_STAGES: tuple[Literal["teacher", "source"], ...] = ("teacher", "source")


def with_stages(recipe: Recipe, *, resume: bool, overwrite: bool) -> Recipe:
    """The recipe with the run folders of its stages filled in; those that are not finished are trained now.

    Args:
        recipe: of an ANN, which has no stages, or of a student.
        resume: as for the student's own training, whose folder is looked at before any stage begins.
        overwrite: likewise; stages are never overwritten.

    Raises:
        InputError: for a stage whose folder holds another training, and for whatever a stage's training refuses.
    """
    if not isinstance(recipe, DistillRecipe):
        return recipe
    for name in _STAGES:
        stage = recipe.stage(name)
        if stage is None:
            continue
        Run.refuse_used(recipe.folder, resume=resume, overwrite=overwrite)
        try:
            run = execute(stage, resume=True)
        except InputError as error:
            raise InputError(f"stage {name}: {error}") from error
        found: dict[str, Any] = {name: str(run.folder)}
        recipe = dataclasses.replace(recipe, **found)
    return recipe
