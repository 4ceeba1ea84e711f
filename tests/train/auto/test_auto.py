"""``auto`` from end to end, on digits and small networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.cli import main
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription, load
from spikestill.runs import Run
from spikestill.train import auto, evaluate, train
from spikestill.train.auto import candidates, carrying_out
from spikestill.train.auto.context import Context
from spikestill.train.auto.ledger import Ledger
from spikestill.train.auto.result import AutoResult
from spikestill.train.auto.sweep import has_max_pool
from spikestill.types import InputError

QUICK: dict[str, Any] = {
    "timesteps": 2,
    "budget": "5m",
    "images": 60,
    "epochs": 2,
    "precision": "float32",
    "device": "cpu",
}
TRAINS: dict[str, Any] = QUICK | {"tolerance": 0.0}
"""No conversion of the small ANN is as good as it at T = 2."""


@pytest.fixture(autouse=True)
def two_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two conversions, with both rules for maxima, stand for all."""
    monkeypatch.setattr(candidates, "_METHODS", candidates._METHODS[:2])


@pytest.fixture(scope="session")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small network with max pooling, good enough to be worth converting."""
    fields = {"model": "vgg5", "width": 0.25, "model_options": {"pooling": "max"}, "epochs": 5, "batch_size": 32}
    fields |= {"optimiser": {"lr": 0.05}, "device": "cpu", "out": str(tmp_path_factory.mktemp("ann") / "run")}
    return train(load(AnnRecipe, fields))


def network_of(run: Run) -> nn.Module:
    return NetworkDescription.of_run(run).load(run)


def stored(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "auto.json").read_text()))


def without_times(result: AutoResult) -> list[tuple[Any, ...]]:
    return [(row.method, row.timesteps, row.accuracy, row.energy_nanojoules) for row in result.table]


@pytest.mark.slow
def test_a_conversion_within_the_tolerance_is_taken_without_training(ann: Run, tmp_path: Path) -> None:
    out = tmp_path / "auto"
    result = auto(str(ann.folder), out=out, **QUICK | {"tolerance": 100.0})
    assert result.run.folder == out / "conversion"
    assert not (out / "trained").exists()
    assert any("within the tolerance: nothing is trained" in reason for reason in result.reasons)
    assert {row.timesteps for row in result.table} == {1, 2, 4, 8, 16, 32}
    assert "max pooling keep" in result.method or "max pooling average" in result.method
    finished = result.run.read_json("result.json")
    assert result.test["student"] == finished["test_accuracy"] == evaluate(result.run.folder)["accuracy"]
    assert result.test["ann"] == ann.read_json("result.json")["test_accuracy"]
    row = next(row for row in result.table if (row.method, row.timesteps) == (result.method, 2))
    assert row.accuracy == max(row.accuracy for row in result.table if row.timesteps == 2)
    assert row.gap == pytest.approx(100 * (stored(out)["steps"]["ann"]["accuracy"] - row.accuracy))
    assert result.recommendation in str(result)
    assert (out / "table.csv").read_text().count("\n") == 1 + len(result.table)
    page = result.page.read_text()
    for word in ("2 systems on digits", "How it was found", "Pareto front", result.reasons[0]):
        assert word in page
    torch.testing.assert_close(
        result.student(torch.zeros(1, 1, 8, 8)),
        NetworkDescription.of_run(result.run).load(result.run)(torch.zeros(1, 1, 8, 8)),
    )


@pytest.mark.slow
def test_where_no_conversion_is_good_enough_a_student_is_trained_from_the_best_start(ann: Run, tmp_path: Path) -> None:
    out = tmp_path / "auto"
    result = auto(str(ann.folder), out=out, **TRAINS)
    steps = stored(out)["steps"]
    assert steps["plan"]["training"]["epochs"] == 2
    assert {"trial: conversion", "trial: weights", "trained", "test"} <= steps.keys()
    assert any("the training starts from" in reason for reason in result.reasons)
    assert any(row.trained for row in result.table)
    recipe = Run(out / "trained").read_yaml("recipe.yaml")
    assert recipe["train_timesteps"] == "anytime"
    assert (recipe["schedule"]["name"], recipe["optimiser"]["name"]) == ("cosine", "adamw")
    assert [term["name"] for term in recipe["objectives"]] == ["cross-entropy", "logits", "blockwise"]
    # The test set is read for the chosen student alone.
    assert [path.parent.name for path in out.glob("*/result.json")] == [result.run.folder.name]


@pytest.mark.slow
def test_a_training_that_diverges_leaves_the_conversion(
    ann: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_context = Context.train

    def diverging(self: Context, recipe: DistillRecipe, *, read_test: bool) -> Run:
        if recipe.epochs > 0:
            raise InputError("the loss is not finite at step 3 (epoch 1)")
        return train_context(self, recipe, read_test=read_test)

    monkeypatch.setattr(Context, "train", diverging)
    result = auto(str(ann.folder), out=tmp_path / "auto", **TRAINS)
    assert result.run.folder.name == "conversion"
    assert any("the training ended without a student: the loss is not finite" in reason for reason in result.reasons)


class KilledError(Exception):
    """In the place of a kill."""


@pytest.mark.slow
def test_killed_after_and_within_every_step_it_ends_as_if_it_had_not_been(
    ann: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = auto(str(ann.folder), out=tmp_path / "whole", **TRAINS)
    names = list(stored(tmp_path / "whole")["steps"])
    step = Ledger.step
    out = tmp_path / "killed"
    for name in names:

        def killing(self: Ledger, asked: str, work: Callable[[], Any], name: str = name, within: bool = True) -> Any:
            if asked == name and self.find(name) is None:
                if name in ("trained", "test", "done"):
                    work()  # all of it was done, and nothing of it was noted
                raise KilledError
            return step(self, asked, work)

        monkeypatch.setattr(Ledger, "step", killing)
        with pytest.raises(KilledError):
            auto(str(ann.folder), out=out, **TRAINS)
    monkeypatch.setattr(Ledger, "step", step)
    result = auto(str(ann.folder), out=out, **TRAINS)
    assert list(stored(out)["steps"]) == names
    assert without_times(result) == without_times(whole)
    assert result.test | {"run": ""} == whole.test | {"run": ""}
    assert result.run.fingerprint == whole.run.fingerprint


@pytest.mark.slow
def test_the_same_command_again_reads_what_is_there(ann: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "auto"
    first = auto(str(ann.folder), out=out, **QUICK | {"tolerance": 100.0})
    monkeypatch.setattr(carrying_out, "find_ann", lambda *_: pytest.fail("nothing is left to do"))
    again = auto(str(ann.folder), out=out, **QUICK | {"tolerance": 100.0})
    assert again == first


@pytest.mark.slow
def test_a_module_in_hand_and_a_file_give_what_the_run_gives(ann: Run, tmp_path: Path) -> None:
    wide = QUICK | {"tolerance": 100.0, "data": "digits"}
    of_run = auto(str(ann.folder), out=tmp_path / "run", **wide)
    module = network_of(ann)
    in_hand = ss.auto(module, out=tmp_path / "hand", **wide)
    options = {"model": "vgg5", "width": 0.25, "model_options": {"pooling": "max"}}
    of_file = auto(str(ann.folder / "model.safetensors"), out=tmp_path / "file", **wide | options)
    assert without_times(of_run) == without_times(in_hand) == without_times(of_file)
    assert of_run.test["student"] == in_hand.test["student"] == of_file.test["student"]
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(in_hand.student(images), of_run.student(images))


@pytest.mark.slow
def test_a_network_that_cannot_spike_teaches_the_student_that_is_named(tmp_path: Path) -> None:
    data = ss.data.load("digits")
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(smooth.parameters(), 0.01)
    for _ in range(2):
        for images, labels in ss.data.Batches(data.train, batch_size=32, mean=data.mean, std=data.std):
            optimiser.zero_grad()
            nn.functional.cross_entropy(smooth(images), labels).backward()
            optimiser.step()
    with pytest.raises(InputError, match=r"cannot become spiking \(2 \(SiLU\).*name a student that it teaches, as in"):
        ss.auto(smooth, data="digits", out=tmp_path / "a", **QUICK)
    with pytest.raises(InputError, match="unknown model 'vgg6': did you mean"):
        ss.auto(smooth, data="digits", student="vgg6", out=tmp_path / "a", **QUICK)
    result = ss.auto(smooth, data="digits", student="conv3", out=tmp_path / "a", **QUICK)
    assert {row.method for row in result.table} == {"trained from random weights"}
    assert result.run.read_json("result.json")["network"] == "conv3"
    assert any("from labels and logits alone" in reason for reason in result.reasons)


def test_an_ann_near_chance_is_told_about_its_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untaught = ss.models.create("vgg5", num_classes=10, in_channels=1, image_size=8, width=0.25)
    with pytest.raises(InputError, match=r"chance: 10.0%\): its pixels are probably scaled otherwise"):
        auto(untaught, data="digits", out=tmp_path / "auto", **QUICK)
    assert not (tmp_path / "auto").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["absent", "--data=digits"], "'absent' is no run folder, no file of weights"),
        (["vgg5", "--data=digits"], "vgg5 is an architecture without weights: give a run of it, or --weights FILE"),
        (["x.pt", "--data=digits"], "x.pt is a file of weights: name their architecture, as in --model resnet18"),
        (["x.pt", "--model=vgg5"], "name the data that the ANN was trained for, as in --data cifar10"),
        (["x.pt", "--model=vgg5", "--data=digits"], "there is no file of weights at x.pt"),
        (["vgg5", "--data=digits", "--model=vgg5"], "'vgg5' is a model: --model is for a file of weights"),
        (["timm:resnet18", "--data=digits"], "has not learned the 10 classes of digits: fine-tune it first"),
        (["x", "--budget=soon"], "the budget must be a time such as 90s, 30m, 2h or 1h30m"),
        (["x", "--mean=a", "--std=1"], "--mean must be numbers separated by commas, one a channel, not 'a'"),
        (["x", "--tolerence=1"], "unknown option '--tolerence': did you mean '--tolerance'?"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["auto", *words]) == 2
    complaint = capsys.readouterr().err
    assert expected in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_is_no_network_and_no_option_is_refused() -> None:
    with pytest.raises(InputError, match="auto takes a trained module, or the name of one, not int"):
        auto(3, data="digits")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown option of auto 'timestep': did you mean 'timesteps'"):
        auto("x", timestep=3)


def test_maxima_are_found_in_the_report() -> None:
    pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))
    assert has_max_pool(ss.check(pooled, (1, 8, 8)))
    assert not has_max_pool(ss.check(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()), (1, 8, 8)))
