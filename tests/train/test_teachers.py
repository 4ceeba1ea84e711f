"""Teachers, starts and sources that are no runs: files of weights, published weights, and models alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spikestill import models
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription, load
from spikestill.runs import Run
from spikestill.train import distill, train
from spikestill.train.loaders import load_data
from spikestill.train.teachers import find_source, find_teacher, training_it_needs
from spikestill.trust import consent
from spikestill.types import InputError

StudentMaker = Callable[..., DistillRecipe]
AnnMaker = Callable[..., AnnRecipe]
SMALL = f"python:{__name__}:small"
LOGITS = [{"name": "cross-entropy"}, {"name": "logits"}]


@pytest.fixture(autouse=True)
def _consent() -> Iterator[None]:
    with consent([SMALL]):
        yield


def small(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, num_classes)),
    )


def saved(folder: Path, classes: int = 10) -> tuple[str, dict[str, torch.Tensor]]:
    torch.manual_seed(9)
    state = small(classes).state_dict()
    save_file(state, folder / "a.safetensors")
    return str(folder / "a.safetensors"), state


def test_a_file_teaches_as_it_is(student_recipe: StudentMaker, tmp_path: Path) -> None:
    path, state = saved(tmp_path)
    recipe = student_recipe(teacher=SMALL, teacher_weights=path, objectives=LOGITS, epochs=1)
    data = load_data(recipe)
    teacher = find_teacher(SMALL, data, weights=path)
    assert all(torch.equal(value, state[name]) for name, value in teacher.network.state_dict().items())
    assert (teacher.mean, teacher.std, teacher.network.training) == (data.mean, data.std, False)
    assert training_it_needs(SMALL, path, data) is None
    run = train(recipe)
    assert run.finished
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.safetensors", "student"]
    assert "remarks" not in run.read_json("environment.json")


def test_a_file_of_other_classes_is_fine_tuned_first_and_the_record_says_so(
    student_recipe: StudentMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, state = saved(tmp_path, classes=7)
    recipe = student_recipe(teacher=SMALL, teacher_weights=path, objectives=LOGITS, epochs=1)
    with caplog.at_level(logging.INFO, "spikestill"):
        run = train(recipe)
    stored = load(DistillRecipe, run.folder / "recipe.yaml")
    assert (stored.teacher != SMALL, stored.teacher_weights) == (True, None)
    stage = Run(Path(str(stored.teacher)))
    replaced = "a.safetensors knows 7 classes, not 10: the classifier '6' is replaced by a new one"
    assert stage.read_json("environment.json")["remarks"] == [replaced]
    assert caplog.messages[0].startswith(
        f"the teacher {SMALL} has not learned the 10 classes of digits: it is trained on them first, from {path} ("
    )
    assert caplog.messages.count(replaced) == 1
    taught = load(AnnRecipe, stage.folder / "recipe.yaml")
    assert (taught.model, taught.start, taught.epochs, taught.batch_size) == (SMALL, path, 1, 32)
    assert not torch.equal(load_file(stage.folder / "model.safetensors")["0.weight"], state["0.weight"])


def test_a_librarys_model_alone_is_trained_first(
    student_recipe: StudentMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(models.external, "from_timm", lambda name, *, pretrained, **given: small(**given))
    recipe = student_recipe(
        teacher="timm:resnet18", objectives=LOGITS, epochs=1, stages={"teacher": {"epochs": 2, "model": "vgg9"}}
    )
    with caplog.at_level(logging.INFO, "spikestill"):
        run = train(recipe)
    assert "first, from random weights (epochs: 2, run: " in caplog.messages[0]
    teacher = Run(run.folder.parent / "test-teacher-digits-timm-resnet18-s0")
    assert load(AnnRecipe, teacher.folder / "recipe.yaml").model == "timm:resnet18"
    before = (teacher.folder / "result.json").stat().st_mtime_ns
    train(recipe, overwrite=True)
    assert (teacher.folder / "result.json").stat().st_mtime_ns == before
    assert train(load(DistillRecipe, run.folder / "recipe.yaml"), resume=True).finished


def test_published_weights_that_are_asked_for_are_fine_tuned(student_recipe: StudentMaker) -> None:
    data = load_data(student_recipe(epochs=1))
    assert training_it_needs("timm:resnet18", "pretrained", data) == {"model": "timm:resnet18", "pretrained": True}
    assert training_it_needs("timm:resnet18", None, data) == {"model": "timm:resnet18", "pretrained": False}
    assert training_it_needs(SMALL, None, data) is None


@pytest.mark.parametrize("classes", [10, 7])
def test_an_ann_may_start_from_a_file(ann_recipe: AnnMaker, tmp_path: Path, classes: int) -> None:
    path, _ = saved(tmp_path, classes)
    run = train(ann_recipe(model=SMALL, width=1.0, start=path, epochs=1))
    said = run.read_json("environment.json").get("remarks", [])
    assert len(said) == (classes != 10)


@pytest.mark.parametrize("classes", [10, 7])
def test_a_student_may_start_from_a_file(student_recipe: StudentMaker, tmp_path: Path, classes: int) -> None:
    path, state = saved(tmp_path, classes)
    fields: dict[str, Any] = {
        "student": SMALL,
        "width": 1.0,
        "epochs": 1,
        "optimiser": {"lr": 1e-30, "weight_decay": 0},
    }
    run = train(student_recipe(initialise="source-weights", source=path, **fields))
    kept = load_file(run.folder / "student.safetensors")
    same = [
        name for name, value in state.items() if name.endswith("weight") and torch.equal(kept[f"body.{name}"], value)
    ]
    assert same == ["0.weight", "1.weight", "3.weight"] + ["6.weight"] * (classes == 10)


def test_what_is_converted_must_know_the_classes(student_recipe: StudentMaker, tmp_path: Path) -> None:
    path, _ = saved(tmp_path, 7)
    fields: dict[str, Any] = {"student": SMALL, "width": 1.0, "epochs": 0, "initialise": "normalise", "source": path}
    with pytest.raises(InputError, match="knows other classes, not the 10 of digits: fine-tune it with"):
        train(student_recipe(**fields))
    with pytest.raises(
        InputError, match=f"weights of {SMALL}, knows the 1000 classes of ImageNet, not the 10 of digits"
    ):
        train(student_recipe(**(fields | {"source": "pretrained"})))
    saved(tmp_path)
    assert train(student_recipe(**fields)).finished


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher": SMALL, "teacher_weights": "absent.pt"}, "there is no file of weights at absent.pt"),
        (
            {"teacher": "runs/a", "teacher_weights": "a.pt"},
            "teacher_weights are those of a model, such as timm:resnet18",
        ),
        ({"teacher": "vgg5", "teacher_weights": "pretrained"}, "model 'vgg5' has no pretrained weights"),
    ],
)
def test_weights_that_cannot_be_used(student_recipe: StudentMaker, fields: dict[str, Any], message: str) -> None:
    recipe = student_recipe(objectives=LOGITS, **fields)
    with pytest.raises(InputError, match=message):
        train(recipe)
    assert not Path(recipe.folder).exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher_weights": "a.pt"}, "teacher_weights are given, but no teacher"),
        ({"initialise": "source-weights"}, "initialise: source-weights needs a source: give --source RUN_OR_FILE"),
        ({"source": "a.pt"}, "a source is given, but initialise: random converts none"),
    ],
)
def test_fields_that_belong_together(student_recipe: StudentMaker, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        student_recipe(**fields)


def test_published_weights_keep_the_pixels_that_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def published(name: str, *, pretrained: bool, **given: Any) -> nn.Module:
        network = small(**given)
        network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # type: ignore[assignment]
        return network

    monkeypatch.setattr(models.external, "from_timm", published)
    data: Any = SimpleNamespace(num_classes=1000, input_shape=(3, 8, 8), name="imagenet")
    wanted = NetworkDescription(
        model="timm:resnet18",
        num_classes=1000,
        input_shape=(3, 8, 8),
        mean=(0.4,) * 3,
        std=(0.2,) * 3,
        class_names=tuple(map(str, range(1000))),
    )
    source = find_source("pretrained", data, wanted)
    assert (source.mean, source.std, source.knows_classes) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), True)


def test_a_network_in_hand_has_its_weights_already() -> None:
    with pytest.raises(InputError, match="the teacher is a network in hand: load its weights with models.load_weights"):
        distill(student="vgg5", teacher=small(), teacher_weights="a.pt", objectives=["logits"])
