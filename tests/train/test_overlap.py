"""Run folders that would write over what they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikestill.cli import main
from spikestill.recipes import AnnRecipe, DistillRecipe, Stages
from spikestill.runs import Run
from spikestill.train import train
from spikestill.train.overlap import check_folder
from spikestill.types import InputError

AnnMaker = Callable[..., AnnRecipe]
StudentMaker = Callable[..., DistillRecipe]
LOGITS: dict[str, Any] = {"objectives": [{"name": "logits"}]}


def test_a_teacher_is_not_overwritten_by_its_student(
    student_recipe: StudentMaker, teacher: Run, tmp_path: Path
) -> None:
    before = teacher.fingerprint
    link = tmp_path / "link"
    link.symlink_to(teacher.folder)
    for out in (teacher.folder, link, teacher.folder / "student", teacher.folder.parent):
        with pytest.raises(InputError, match=r"--out .* (is|overlaps) the teacher .*, which is read: choose another"):
            train(student_recipe(out=str(out), teacher=str(teacher.folder), **LOGITS), overwrite=True)
    source: dict[str, Any] = {"source": str(teacher.folder), "initialise": "source-weights"}
    with pytest.raises(InputError, match="the source"):
        train(student_recipe(out=str(link), **source), overwrite=True)
    assert teacher.fingerprint == before
    assert teacher.finished


def test_neither_is_the_start_nor_what_is_converted(
    ann_recipe: AnnMaker, teacher: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="the start"):
        train(ann_recipe(out=str(teacher.folder), start=str(teacher.folder)), overwrite=True)
    file = teacher.folder / "model.safetensors"
    with pytest.raises(InputError, match="the start"):
        train(ann_recipe(out=str(teacher.folder), start=str(file)), overwrite=True)
    assert main(["convert", str(teacher.folder), "--out", str(teacher.folder), "--overwrite"]) == 2
    assert "is the source" in capsys.readouterr().err
    assert teacher.finished


def test_a_stage_and_its_student_have_two_folders(student_recipe: StudentMaker, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    recipe = student_recipe(out=out, stages=Stages(teacher={"model": "vgg5", "out": out}).__dict__, **LOGITS)
    with pytest.raises(InputError, match="is the stage test-teacher"):
        train(recipe, overwrite=True)


def test_data_are_not_overwritten_but_a_run_may_lie_among_them(ann_recipe: AnnMaker, tmp_path: Path) -> None:
    for fields in ({"data": f"folder:{tmp_path / 'data'}"}, {"data_dir": str(tmp_path / "data")}):
        for out in (tmp_path / "data", tmp_path):
            with pytest.raises(InputError, match=r"(is|overlaps) the data (set|folder) "):
                check_folder(ann_recipe(out=str(out), **fields))
        check_folder(ann_recipe(out=str(tmp_path / "data" / "runs" / "a"), **fields))


def test_a_model_by_name_is_no_folder(student_recipe: StudentMaker) -> None:
    check_folder(student_recipe(out="vgg5", teacher="vgg5", teacher_weights="pretrained", **LOGITS))


def test_a_page_replaces_pages_alone(teacher: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(teacher.folder), "--to", str(teacher.folder / "model.safetensors")]) == 2
    assert "name a file that ends in .html" in capsys.readouterr().err
    assert teacher.read_weights()
