"""What a resume needs, what it may change and what it notices."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikestill.cli import main
from spikestill.recipes import AnnRecipe, DistillRecipe
from spikestill.runs import Run, read_metadata
from spikestill.train import train
from spikestill.train.callbacks import Journal, best_weights_file, kept_weights_file, last_checkpoint_file
from spikestill.train.provenance import relocated
from spikestill.types import InputError
from tests.train.test_loop import KilledError, kill_after, weights
from tests.train.test_stages import staged

AnnMaker = Callable[..., AnnRecipe]
StudentMaker = Callable[..., DistillRecipe]
POISSON = {"name": "poisson", "options": {"seed": 3}}
EACH_STEP = {"checkpoint_minutes": 1e-9}


def killed(recipe: Any, monkeypatch: pytest.MonkeyPatch, steps: int = 3) -> Run:
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            train(recipe)
    return Run(Path(recipe.folder))


def pictures(folder: Path, colour: int = 0, *, test: int = 6) -> str:
    """Two classes of pictures of 8 x 8 pixels."""
    draw = np.random.RandomState(colour)
    for part, count in (("train", 24), ("test", test)):
        for label in range(2):
            place = folder / part / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = draw.randint(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize("steps", [3, 7])
def test_every_generator_goes_on(
    student_recipe: StudentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Of the student's encoder, of its copy in the average, and of the teacher's."""
    teacher = train(student_recipe(out=str(tmp_path / "teacher"), encoder=POISSON, epochs=1))
    fields = {
        "encoder": POISSON,
        "ema": 0.5,
        "teacher": str(teacher.folder),
        "objectives": [{"name": "spikes", "options": {"window": 1}}],
    }
    fields |= {"gradient": "bptt"}
    whole = train(student_recipe(out=str(tmp_path / "whole"), **fields))
    recipe = student_recipe(out=str(tmp_path / "broken"), **EACH_STEP, **fields)
    killed(recipe, monkeypatch, steps)
    resumed = train(recipe, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    for expected, got in zip(whole.read_table("metrics.csv"), resumed.read_table("metrics.csv"), strict=True):
        assert expected | {"seconds": ""} == got | {"seconds": ""}


def test_the_result_names_the_epoch_whose_weights_it_holds(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between weights and checkpoint; the resume does not repeat the epoch exactly, and it does worse."""
    recipe = ann_recipe()
    with monkeypatch.context() as patch:
        ordinary = Journal.save

        def die(self: Journal, trainer: Any, learner: Any) -> None:
            if trainer.current_epoch == 1:
                raise KilledError
            ordinary(self, trainer, learner)

        patch.setattr(Journal, "save", die)
        with pytest.raises(KilledError):
            train(recipe)
    run = Run(Path(recipe.folder))
    assert best_weights_file(run, 2).exists()  # of an epoch that counts for nothing
    assert kept_weights_file(run) == best_weights_file(run, 1)
    with monkeypatch.context() as patch:
        from spikestill.train.learner import Learner

        figures = Learner.take_figures
        patch.setattr(Learner, "take_figures", lambda self: figures(self) | {"validation_accuracy": 0.0})
        train(recipe, resume=True)
    result = run.read_json("result.json")
    assert result["best_epoch"] == 1
    assert read_metadata(run.folder / "model.safetensors") == {
        "epoch": 1,
        "validation_accuracy": result["validation_accuracy"],
    }
    kept = torch.load(last_checkpoint_file(run), weights_only=True)["callbacks"]["Journal"]["best_epoch"]
    assert kept == 1
    assert [path.name for path in run.checkpoints.glob("best*")] == ["best-1.safetensors"]


def test_weights_of_another_epoch_are_not_taken(ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ann_recipe()
    run = train(recipe)
    best = run.read_json("result.json")["best_epoch"]
    (run.folder / "result.json").unlink()
    from spikestill.runs import read_weights, write_weights

    file = best_weights_file(run, best)
    write_weights(file, read_weights(file), {"epoch": best + 1, "validation_accuracy": 1.0})
    with pytest.raises(InputError, match="does not hold the weights of the best epoch"):
        train(recipe, resume=True)


def test_weights_that_an_earlier_version_wrote_are_taken(ann_recipe: AnnMaker) -> None:
    recipe = ann_recipe()
    run = train(recipe)
    expected = weights(run)
    (run.folder / "result.json").unlink()
    (file,) = run.checkpoints.glob("best-*")
    file.rename(file.with_name("best.safetensors"))
    train(recipe, resume=True)
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())


def test_data_that_changed_are_noticed(ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ann_recipe(data=pictures(tmp_path / "data"), validation=0.25, batch_size=8, **EACH_STEP)
    killed(recipe, monkeypatch)
    pictures(tmp_path / "data", 1)
    with pytest.raises(InputError, match=r"cannot resume: the data folder:.* have changed since the training began"):
        train(recipe, resume=True)
    pictures(tmp_path / "data")
    assert train(recipe, resume=True).finished


def test_data_may_lie_elsewhere(ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"validation": 0.25, "batch_size": 8} | EACH_STEP
    killed(ann_recipe(data=pictures(tmp_path / "here" / "data"), data_dir=str(tmp_path), **fields), monkeypatch)
    moved = ann_recipe(data=pictures(tmp_path / "there" / "data"), data_dir=str(tmp_path / "there"), **fields)
    assert train(moved, resume=True).finished


def test_a_checkpoint_of_another_recipe_is_noticed(
    ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = killed(ann_recipe(out=str(tmp_path / "other"), optimiser={"lr": 0.3}, **EACH_STEP), monkeypatch)
    recipe = ann_recipe(**EACH_STEP)
    run = killed(recipe, monkeypatch)
    shutil.copy(last_checkpoint_file(other), last_checkpoint_file(run))
    with pytest.raises(InputError, match="written by a training with other values of optimiser; remove it"):
        train(recipe, resume=True)


def test_a_teacher_with_other_weights_is_noticed(
    ann_recipe: AnnMaker, student_recipe: StudentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = ann_recipe(out=str(tmp_path / "teacher"), epochs=1)
    train(teacher)
    recipe = student_recipe(teacher=teacher.folder, objectives=[{"name": "logits"}], **EACH_STEP)
    killed(recipe, monkeypatch)
    train(ann_recipe(out=teacher.folder, epochs=1, seed=1), overwrite=True)
    with pytest.raises(InputError, match=r"the teacher .*teacher has other weights than when the training began"):
        train(recipe, resume=True)


def test_files_that_were_left_out_are_counted_over_a_kill(
    ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(tmp_path / "data")
    broken = tmp_path / "data" / "train" / "class0" / "0.png"
    broken.write_bytes(b"no picture")
    fields: dict[str, Any] = {"data": data, "validation": 0.25, "batch_size": 8, "skip_corrupt": True} | EACH_STEP
    recipe = ann_recipe(**fields)
    run = killed(recipe, monkeypatch)
    stored = torch.load(last_checkpoint_file(run), weights_only=True)["callbacks"]["Journal"]["unreadable"]
    assert len(stored) == 1
    # As of data that are decoded when they are used: the first process met it, this one does not.
    monkeypatch.setattr("spikestill.data.unreadable.Unreadable.meet", lambda self, error: None)
    assert train(recipe, resume=True).read_json("result.json")["unreadable_files_skipped"] == 1


def test_an_unfinished_run_can_be_moved_with_its_stages(
    student_recipe: StudentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = staged(student_recipe, out=str(tmp_path / "here" / "student"), checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(KilledError):
            train(recipe)  # in the first stage
    train(staged(student_recipe, out=str(tmp_path / "here" / "student")), resume=True)
    (tmp_path / "here" / "student" / "result.json").unlink()
    shutil.move(tmp_path / "here", tmp_path / "there")
    out = tmp_path / "there" / "student"
    assert main(["distill", "--resume", "--out", str(out)]) == 0
    stored = Run(out).read_yaml("recipe.yaml")
    assert Path(stored["teacher"]).parent == Path(stored["source"]).parent == tmp_path / "there"
    (out / "result.json").unlink()
    shutil.move(tmp_path / "there", tmp_path / "again")
    moved = staged(student_recipe, out=str(tmp_path / "again" / "student"))
    assert train(moved, resume=True).finished


def test_only_networks_that_are_gone_are_looked_for_beside_the_run(
    student_recipe: StudentMaker, ann_recipe: AnnMaker, tmp_path: Path
) -> None:
    teacher = train(ann_recipe(out=str(tmp_path / "teacher"), epochs=1)).folder
    fields: dict[str, Any] = {"objectives": [{"name": "logits"}], "out": str(tmp_path / "student")}
    assert relocated(student_recipe(teacher="/gone/teacher", **fields)).teacher == str(teacher)
    for name in ("/gone/other", str(teacher), "timm:resnet18"):
        assert relocated(student_recipe(teacher=name, **fields)).teacher == name


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "outside"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "mlflow.db", "tensorboard/hparams.yaml"])
def test_a_link_out_of_the_run_is_not_followed(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch, outside: Path, name: str
) -> None:
    recipe = ann_recipe(logger="tensorboard", **EACH_STEP)
    run = killed(recipe, monkeypatch)
    link = run.folder / name
    link.unlink() if link.is_file() else shutil.rmtree(link, ignore_errors=True)
    link.symlink_to(outside if "." not in name else outside / "file")
    with pytest.raises(InputError, match=rf"{name} is a link that leads out of the run folder: remove it"):
        train(recipe, resume=True)
    assert train(recipe, overwrite=True).finished
    assert not link.is_symlink()
