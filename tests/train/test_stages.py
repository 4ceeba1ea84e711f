"""A recipe that begins with its teacher and with the ANN that it converts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from spikestill.recipes import AnnRecipe, DistillRecipe, Encoder, Objective, Stages, load
from spikestill.runs import Run
from spikestill.train import train
from spikestill.types import InputError

StudentMaker = Callable[..., DistillRecipe]
ANN = {"epochs": 1, "batch_size": 32}


def staged(student_recipe: StudentMaker, **fields: object) -> DistillRecipe:
    recipe = student_recipe(method="staged", epochs=1)
    given: dict[str, object] = {
        "initialise": "shift",
        "gradient": "bptt",
        "objectives": (Objective(name="cross-entropy"), Objective(name="logits")),
        "stages": Stages(teacher=ANN | {"model": "vgg7", "width": 0.125}, source=ANN),
    }
    return dataclasses.replace(recipe, **(given | fields))  # type: ignore[arg-type]


def test_stages_are_trained_first_and_found_again(
    student_recipe: StudentMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = staged(student_recipe)
    run = train(recipe)
    beside = run.folder.parent
    teacher, source = (
        Run(beside / f"staged-{name}-digits-s0".replace("-digits", f"-digits-{model}"))
        for name, model in (("teacher", "vgg7"), ("source", "vgg5"))
    )
    assert teacher.finished
    assert source.finished
    stored = load(DistillRecipe, run.folder / "recipe.yaml")
    assert (stored.teacher, stored.source) == (str(teacher.folder), str(source.folder))
    ours = load(AnnRecipe, source.folder / "recipe.yaml")
    assert (ours.width, ours.limit_train, ours.data, ours.epochs) == (recipe.width, 160, "digits", 1)
    assert load(AnnRecipe, teacher.folder / "recipe.yaml").width == 0.125

    before = (source.folder / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    train(dataclasses.replace(recipe, seed=1, out=str(beside / "other")))
    assert (source.folder / "result.json").stat().st_mtime_ns == before
    assert "staged-source" not in capsys.readouterr().out


def test_a_stage_that_is_given_or_not_needed_is_not_trained(student_recipe: StudentMaker, teacher: Run) -> None:
    recipe = staged(student_recipe, teacher=str(teacher.folder), initialise="random")
    run = train(recipe)
    assert sorted(path.name for path in run.folder.parent.iterdir()) == ["student"]


def test_without_a_stage_the_teacher_is_the_source(student_recipe: StudentMaker, teacher: Run) -> None:
    recipe = staged(student_recipe, stages=Stages(), teacher=str(teacher.folder))
    assert train(recipe).finished
    with pytest.raises(InputError, match="logits and initialise: shift need a teacher: give --teacher RUN_OR_MODEL"):
        staged(student_recipe, stages=Stages())


def test_the_source_is_trained_on_the_pixels_of_the_student(student_recipe: StudentMaker) -> None:
    recipe = staged(student_recipe, encoder=Encoder(name="poisson"))
    stage = recipe.stage("source")
    assert stage is not None
    assert (stage.pixel_scale, stage.model) == ("signed", "vgg5")
    assert staged(student_recipe).stage("source").pixel_scale == "standardised"  # type: ignore[union-attr]


def test_another_training_in_a_stages_folder_is_refused_by_the_stages_name(student_recipe: StudentMaker) -> None:
    recipe = staged(student_recipe)
    train(recipe)
    other = dataclasses.replace(recipe, out=f"{recipe.out}-2", stages=Stages(teacher=ANN, source=ANN | {"epochs": 2}))
    with pytest.raises(InputError, match="stage source: cannot resume .*: it was started with other values of epochs"):
        train(dataclasses.replace(other, teacher=str(Path(recipe.folder).parent / "staged-teacher-digits-vgg7-s0")))


def test_a_folder_that_is_taken_is_refused_before_any_stage(student_recipe: StudentMaker) -> None:
    recipe = staged(student_recipe)
    Path(recipe.folder).mkdir()
    (Path(recipe.folder) / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="neither empty nor a run folder"):
        train(recipe)
    assert len(list(Path(recipe.folder).parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            Stages(teacher={"modell": "vgg5"}),
            r"unknown option 'stages\.teacher\.modell': did you mean 'stages.teacher.m",
        ),
        (Stages(teacher={"model": "vgg55"}), r"stages\.teacher: .*unknown model 'vgg55': did you mean 'vgg5'"),
        (Stages(source={"epochs": 0}), r"stages\.source: .*epochs must be at least 1"),
    ],
)
def test_stages_are_checked_with_the_recipe(student_recipe: StudentMaker, stages: Stages, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        staged(student_recipe, stages=stages, teacher=None)
    assert "\n" not in str(caught.value)
