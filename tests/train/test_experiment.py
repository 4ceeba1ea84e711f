"""An experiment from its file to finished runs: what is there is kept, what was interrupted goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml

from spikestill.recipes.experiment import Experiment, load_experiment
from spikestill.runs import Run
from spikestill.train import experiment as carrying
from spikestill.train.experiment import carry_out, unfinished
from spikestill.types import InputError

FILE = """
seeds: [0, 1]
common: {data: digits, width: 0.25, limit_train: 96, batch_size: 32, epochs: 1, device: cpu}
students: {student: vgg5, timesteps: 2, teacher: {run: teacher}}
runs:
  logits: {recipe: label-distillation}
  teacher: {recipe: ann, model: vgg5, seeds: [0]}
"""


def planned(folder: Path, text: str = FILE) -> Experiment:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_experiment(path, out=str(folder / "runs"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    carry_out(planned(folder))
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The experiment's folder at another place, with runs that remember the first one."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_every_run_is_finished_with_the_fields_of_the_file(finished: Path) -> None:
    runs = finished / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["logits-s0", "logits-s1", "teacher-s0"]
    for seed in (0, 1):
        run = Run(runs / f"logits-s{seed}")
        recipe = run.read_yaml("recipe.yaml")
        assert run.finished
        assert (recipe["seed"], recipe["timesteps"], recipe["teacher"]) == (seed, 2, str(runs / "teacher-s0"))
    assert unfinished(planned(finished)) == []


def test_finished_runs_are_kept_and_said_to_be(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(carrying, "train", None)
    carry_out(planned(finished))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"run {number} of 3: {finished / 'runs' / name} is finished"
        for number, name in ((1, "teacher-s0"), (2, "logits-s0"), (3, "logits-s1"))
    ]


def test_an_interrupted_run_goes_on_to_the_same_figures(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = planned(copied)
    run = Run(copied / "runs" / "logits-s1")
    before = run.read_json("result.json")["test_accuracy"]
    (run.folder / "result.json").unlink()
    assert [entry.folder for entry in unfinished(experiment)] == [str(run.folder)]
    carry_out(experiment)
    assert f"run 3 of 3: {run.folder} goes on\n" in capsys.readouterr().out
    assert run.read_json("result.json")["test_accuracy"] == before


def test_a_run_that_was_made_otherwise_is_refused_before_anything_runs(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "train", None)
    shutil.rmtree(copied / "runs" / "teacher-s0")
    with pytest.raises(InputError, match="logits-s0 and 1 more were made with other values of timesteps: change"):
        carry_out(planned(copied, FILE.replace("timesteps: 2", "timesteps: 3")))
    with pytest.raises(InputError, match="logits-s0 and 1 more were made with other values of limit_train, batch_size"):
        unfinished(planned(copied, FILE.replace("96, batch_size: 32", "95, batch_size: 16")))


def test_an_interrupted_run_goes_on_where_it_was_moved_to(copied: Path) -> None:
    run = Run(copied / "runs" / "logits-s1")
    (run.folder / "result.json").unlink()
    with pytest.raises(InputError, match="logits-s0 and 1 more were made with other values of timesteps"):
        carry_out(planned(copied, FILE.replace("timesteps: 2", "timesteps: 3")))
    carry_out(planned(copied))
    assert run.read_yaml("recipe.yaml")["teacher"] == str(copied / "runs" / "teacher-s0")


def test_the_place_of_a_teacher_and_of_data_does_not_count_but_other_weights_do(copied: Path) -> None:
    runs = copied / "runs"
    recipes = {name: Run(runs / name).read_yaml("recipe.yaml") for name in ("logits-s0", "logits-s1", "teacher-s0")}
    for name, recipe in recipes.items():
        Run(runs / name).write_yaml("recipe.yaml", recipe | {"data": "parquet:/there/cifar10", "data_dir": "/there"})
    text = FILE.replace("data: digits", "data: parquet:here/cifar10, augmentation: {crop: 1, flip: false}")
    assert unfinished(planned(copied, text)) == []
    with pytest.raises(InputError, match="logits-s0 and 2 more were made with other values of data:"):
        unfinished(planned(copied, text.replace("here/cifar10", "here/cifar100")))
    # The copies remember the first teacher, whose weights are those of its copy; then no longer.
    Run(runs / "teacher-s0").write_network("model", {}, {"model": "vgg5"})
    with pytest.raises(InputError, match="logits-s0 and 1 more were made with other values of teacher:"):
        unfinished(planned(copied, text))


def test_another_network_than_none_counts(copied: Path) -> None:
    run = Run(copied / "runs" / "logits-s0")
    run.write_yaml("recipe.yaml", run.read_yaml("recipe.yaml") | {"teacher": None})
    with pytest.raises(InputError, match="logits-s0 was made with other values of teacher"):
        unfinished(planned(copied))


def test_what_an_older_version_did_not_know_had_its_default(copied: Path) -> None:
    run = Run(copied / "runs" / "logits-s0")
    recipe = run.read_yaml("recipe.yaml")
    del recipe["stages"], recipe["source"], recipe["neuron"]["order"]
    run.write_yaml("recipe.yaml", recipe)
    assert unfinished(planned(copied)) == []


def test_a_training_that_is_refused_is_named_and_what_was_finished_stays(copied: Path) -> None:
    shutil.rmtree(copied / "runs" / "logits-s1")
    text = FILE.replace("{recipe: label-distillation}", "{recipe: label-distillation, seeds: [0, 1]}")
    experiment = planned(copied, text + "  broken: {recipe: ann, data: 'folder:absent', seeds: [0]}\n")
    with pytest.raises(InputError, match="broken, seed 0: .*absent"):
        carry_out(experiment)
    assert not (copied / "runs" / "broken-s0").exists()
    assert Run(copied / "runs" / "logits-s0").finished


def test_someone_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs" / "teacher-s0").mkdir(parents=True)
    (tmp_path / "runs" / "teacher-s0" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="neither empty nor a run folder"):
        carry_out(planned(tmp_path))


def test_a_run_that_another_process_trains_is_waited_for(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(copied / "runs" / "teacher-s0")
    result = run.read_json("result.json")
    (run.folder / "result.json").unlink()
    other = os.open(run.folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    def finish() -> None:
        run.write_json("result.json", result)
        os.close(other)

    experiment = planned(copied)
    later = threading.Timer(2, finish)
    later.start()
    carry_out(experiment)
    later.join()
    assert f"run 1 of 3: {run.folder} is being trained by another process\n" in capsys.readouterr().out


def test_a_run_that_another_process_trains_is_left_to_it_while_there_is_other_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = planned(tmp_path)
    carry_out(experiment)
    first, second = (Run(tmp_path / "runs" / f"logits-s{seed}") for seed in (0, 1))
    result = first.read_json("result.json")
    (first.folder / "result.json").unlink()
    (second.folder / "result.json").unlink()
    other = os.open(first.folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    def finish() -> None:
        while not second.finished:
            time.sleep(0.01)
        first.write_json("result.json", result)
        os.close(other)

    later = threading.Thread(target=finish)
    later.start()
    carry_out(experiment)
    later.join()
    assert f"run 2 of 3: {first.folder} is being trained by another process" in capsys.readouterr().out


def test_a_stage_is_a_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = yaml.safe_dump({"source": {"epochs": 1, "batch_size": 32}}, default_flow_style=True).strip()
    text = f"""
    common: {{data: digits, width: 0.25, limit_train: 96, epochs: 0}}
    runs:
      converted: {{recipe: conversion, student: vgg5, timesteps: 3, stages: {stage}}}
    """
    experiment = planned(tmp_path, text)
    carry_out(experiment)
    assert [Run(Path(entry.folder)).finished for entry in experiment.runs] == [True, True]
    assert "run 1 of 2: " in capsys.readouterr().out
    assert [entry.name for entry in experiment.shown] == ["converted"]
    assert Run(tmp_path / "runs" / "converted-s0").read_yaml("recipe.yaml")["source"] == experiment.runs[0].folder
