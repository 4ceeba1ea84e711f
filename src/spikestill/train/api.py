"""The trainings as plain functions; Lightning is loaded when one is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikestill import trust
from spikestill.types import InputError

if TYPE_CHECKING:
    from torch import nn

    from spikestill.graph import SpikingNetwork
    from spikestill.recipes import Objective, Recipe
    from spikestill.runs import Run

__all__ = ["distill", "train"]


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, trust_code: bool = False) -> Run:
    """Train the ANN or the student that ``recipe`` describes, its stages first.

    Args:
        recipe: an AnnRecipe or a DistillRecipe, for instance from ``spikestill.recipes.load``.
        resume: continue an unfinished run; a finished one is returned as it is.
        overwrite: replace an earlier run.
        trust_code: import and call ``python:`` functions that the recipe, or a run that it names, names.

    Returns:
        The finished run.

    Raises:
        InputError: for whatever cannot be used, and when the loss is not finite.
    """
    from spikestill.recipes import as_mapping
    from spikestill.train.loop import execute
    from spikestill.train.stages import with_stages

    with trust.consent(trust_code=trust_code):
        for name in trust.code_names(as_mapping(recipe)):  # at once, not after the stages
            trust.require_consent(name)
        return execute(with_stages(recipe, resume=resume, overwrite=overwrite), resume=resume, overwrite=overwrite)


def distill(
    *,
    student: SpikingNetwork | str,
    teacher: nn.Module | str | Path | None = None,
    data: str = "digits",
    objectives: Sequence[str | Objective] = ("cross-entropy",),
    method: str = "custom",
    resume: bool = False,
    overwrite: bool = False,
    trust_code: bool = False,
    **fields: Any,
) -> Run:
    """Train a spiking student, with everything that ``spikestill distill`` does.

    Args:
        student: a spiking network, trained in place; or an architecture's name.
        teacher: a trained ANN that takes the images as normalised for the student; or a run folder.
        data: a data set's name.
        objectives: names, or Objective(name=..., weight=..., options=...).
        method: what the run is called.
        resume: continue an unfinished run; a finished one is returned as it is.
        overwrite: replace an earlier run.
        trust_code: import and call ``python:`` functions that a run names; those among the arguments need no consent.
        **fields: further fields of a DistillRecipe: epochs, batch_size, out, optimiser={"lr": 0.05}, ...

    Returns:
        The finished run. A student given as a network has the weights that validation chose.

    Raises:
        InputError: for whatever cannot be used, and when the loss is not finite.
    """
    from spikestill.graph import SpikingNetwork
    from spikestill.recipes import DistillRecipe, load
    from spikestill.recipes.networks import describe_spiking
    from spikestill.recipes.overlay import overlaid
    from spikestill.train.loop import execute
    from spikestill.train.stages import with_stages

    network = ann = None
    fields |= {"method": method, "data": data, "objectives": [_objective(term) for term in objectives]}
    if isinstance(student, str):
        fields["student"] = student
    elif not isinstance(student, SpikingNetwork):
        raise InputError("the student must be a spiking network: make one with to_spiking(ann, ...)")
    else:
        network = student
        known = {"student": f"custom:{type(student).__name__}"} | describe_spiking(student)
        fields = overlaid(DistillRecipe, known, fields)
    if isinstance(teacher, str | Path):
        fields["teacher"] = str(teacher)
    elif teacher is not None:
        if fields.get("teacher_weights") is not None:
            raise InputError("the teacher is a network in hand: load its weights with models.load_weights")
        ann = teacher
        fields["teacher"] = f"custom:{type(teacher).__name__}"
    with trust.consent(trust.code_names(fields), trust_code=trust_code):
        recipe = with_stages(load(DistillRecipe, fields), resume=resume, overwrite=overwrite)
        return execute(recipe, resume=resume, overwrite=overwrite, network=network, teacher=ann)


def _objective(term: str | Objective) -> dict[str, Any]:
    if isinstance(term, str):
        return {"name": term}
    return {"name": term.name, "weight": term.weight, "options": dict(term.options)}
