"""What a student's recipe needs before it can begin: a teacher, an ANN to convert, trained or found finished."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Literal

from spikestill.data import DataSet
from spikestill.recipes import AnnRecipe, DistillRecipe, Recipe
from spikestill.runs import Run
from spikestill.train.loaders import load_data
from spikestill.train.loop import execute
from spikestill.train.overlap import check_folder
from spikestill.train.provenance import relocated
from spikestill.train.teachers import names_model, training_it_needs
from spikestill.types import InputError

__all__ = ["with_stages"]

_log = logging.getLogger("spikestill")

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
    recipe = relocated(recipe)
    check_folder(recipe)
    for name in _STAGES:
        stage, data = recipe.stage(name), None
        if stage is None and name == "teacher" and recipe.teacher is not None and names_model(recipe.teacher):
            Run.refuse_used(recipe.folder, resume=resume, overwrite=overwrite)
            data = load_data(recipe)
            stage = _teacher_stage(recipe, recipe.teacher, data)
        if stage is None:
            continue
        Run.refuse_used(recipe.folder, resume=resume, overwrite=overwrite)
        try:
            run = execute(stage, resume=True, data=data, wait=True)
        except InputError as error:
            raise InputError(f"stage {name}: {error}") from error
        found: dict[str, Any] = {name: str(run.folder)} | ({"teacher_weights": None} if name == "teacher" else {})
        recipe = dataclasses.replace(recipe, **found)
    return recipe


def _teacher_stage(recipe: DistillRecipe, teacher: str, data: DataSet) -> AnnRecipe | None:
    """The training of a teacher that is named by its model; None where its weights know the data's classes."""
    fields = training_it_needs(teacher, recipe.teacher_weights, data)
    if fields is None:
        return None
    stage = recipe.training_of_teacher(fields)
    start = "published weights" if stage.pretrained else stage.start or "random weights"
    _log.info(
        f"the teacher {teacher} has not learned the {data.num_classes} classes of {data.name}: it is trained on them "
        f"first, from {start} (epochs: {stage.epochs}, run: {stage.folder})"
    )
    return stage
