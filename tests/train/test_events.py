"""Recordings of an event camera, from the frames to a distilled student."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spikestill.data import Batches
from spikestill.graph import SpikingNetwork
from spikestill.recipes import AnnRecipe, DistillRecipe, load
from spikestill.report import write_page
from spikestill.report.evidence import Evidence
from spikestill.runs import Run
from spikestill.train import evaluate, loaders, train
from spikestill.train.learner import DistillLearner
from spikestill.types import InputError
from tests.data.event_files import write_cifar10_dvs, write_dvs_gesture

pytest.importorskip("tonic")
pytest.importorskip("aedat")

SMALL: dict[str, Any] = {
    "data": "cifar10-dvs",
    "image_size": 32,
    "width": 0.25,
    "batch_size": 16,
    "epochs": 2,
    "device": "cpu",
    "validation": 10,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10_dvs(tmp_path_factory.mktemp("dvs"), recordings=10).parent


@pytest.fixture(scope="module")
def teacher(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An ANN that sees the mean of four frames."""
    fields = {"model": "vgg5", "data_dir": str(place), "events": {"frames": 4}, "epochs": 10}
    fields |= {"optimiser": {"name": "adam", "lr": 0.003}, "out": str(tmp_path_factory.mktemp("teacher") / "run")}
    return train(load(AnnRecipe, SMALL | fields))


@pytest.fixture
def student(place: Path, tmp_path: Path) -> Callable[..., DistillRecipe]:
    def make(**fields: Any) -> DistillRecipe:
        base = {"method": "test", "student": "vgg5", "timesteps": 4, "data_dir": str(place)}
        return load(DistillRecipe, SMALL | base | {"out": str(tmp_path / "student")} | fields)

    return make


def test_an_ann_learns_from_the_mean_of_the_frames(teacher: Run) -> None:
    result = teacher.read_json("result.json")
    assert result["images"] == {"train": 80, "validation": 10, "test": 10}
    assert any("10 of 100 recordings are the test set" in note for note in result["data_notes"])
    # The class is where the square lies, which augmentation only blurs.
    assert result["test_accuracy"] >= 0.4
    assert teacher.read_json("model.json")["frames"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_blockwise_distillation_on_frames(
    gradient: str, channels_last: bool, teacher: Run, student: Callable[..., DistillRecipe]
) -> None:
    terms = [{"name": name} for name in ("cross-entropy", "logits", "blockwise")]
    fields = {
        "gradient": gradient,
        "channels_last": channels_last,
        "objectives": terms,
        "initialise": "teacher-weights",
    }
    run = train(student(teacher=str(teacher.folder), **fields))
    result = run.read_json("result.json")
    assert list(result["test_accuracy_by_timestep"]) == ["1", "2", "3", "4"]
    first, last = (run.read_table("metrics.csv")[row] for row in (0, -1))
    assert float(last["train_loss"]) < float(first["train_loss"])
    measured = evaluate(run.folder, timesteps=(1, 2))
    assert measured["accuracy_by_timestep"]["2"] == result["test_accuracy_by_timestep"]["2"]
    with pytest.raises(InputError, match="the events have 4 frames, the network runs 9 time steps"):
        evaluate(run.folder, timesteps=(9,))


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_anytime_training_sees_the_first_frames(
    gradient: str, student: Callable[..., DistillRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an exit after t frames will have seen."""
    seen: list[tuple[int, bool]] = []
    given: list[Tensor] = []
    compute, plain = DistillLearner.losses, SpikingNetwork.record

    def losses(self: DistillLearner, images: Tensor, *rest: Any) -> Any:
        given.append(images)
        return compute(self, images, *rest)

    def record(self: SpikingNetwork, images: Tensor, taps: Any = (), timesteps: int | None = None) -> Any:
        if self.training:
            assert timesteps is not None
            seen.append((len(images), torch.equal(images, given[-1][:timesteps])))
            assert len(given[-1]) == 4
        return plain(self, images, taps, timesteps)

    monkeypatch.setattr(DistillLearner, "losses", losses)
    monkeypatch.setattr(SpikingNetwork, "record", record)
    train(student(gradient=gradient, train_timesteps="anytime"))
    assert len(seen) == 10
    assert len({frames for frames, _ in seen}) > 1
    assert all(first for _, first in seen)


def test_a_student_with_images_sees_the_mean(teacher: Run, student: Callable[..., DistillRecipe]) -> None:
    recipe = student(encoder={"name": "direct"}, events={"frames": 4}, timesteps=2, epochs=1)
    assert train(recipe).read_json("result.json")["images"]["test"] == 10


def test_a_converted_ann_sees_the_mean(teacher: Run, student: Callable[..., DistillRecipe]) -> None:
    fields = {"encoder": {"name": "direct"}, "events": {"frames": 4}, "timesteps": 8, "epochs": 0}
    run = train(student(source=str(teacher.folder), initialise="normalise", neuron={"name": "if"}, **fields))
    assert run.read_json("result.json")["epochs"] == 0


def test_a_teacher_of_other_frames_is_refused(teacher: Run, student: Callable[..., DistillRecipe]) -> None:
    with pytest.raises(InputError, match="was trained on 4 frames a recording, the data has 6 frames a recording"):
        train(student(teacher=str(teacher.folder), timesteps=6, objectives=[{"name": "logits"}]))


def test_a_resume_in_mid_epoch_gives_the_same_bits(student: Callable[..., DistillRecipe]) -> None:
    recipe = student(augmentation={"crop": 2, "roll": 3, "cutout": 8, "flip": True})
    data = loaders.load_data(recipe)

    def fresh(merge: bool) -> Batches:
        options: dict[str, Any] = {"augmentation": recipe.augmentation, "shuffle": True, "merge_frames": merge}
        return Batches(data.train, batch_size=16, mean=data.mean, std=data.std, **options)

    whole, first, second, merged = list(fresh(False)), fresh(False), fresh(False), fresh(True)
    seen = list(islice(first, 2))
    second.load_state_dict(first.state_dict())
    seen += second
    assert len(seen) == len(whole) == 5
    for (left, labels), (right, others), (mean, _) in zip(seen, whole, merged, strict=True):
        assert left.shape == (4, len(labels), 2, 32, 32)
        assert left.is_contiguous()
        assert torch.equal(left, right)
        assert torch.equal(labels, others)
        torch.testing.assert_close(left.mean(0), mean)


def test_every_frame_of_a_recording_is_moved_alike_and_no_event_is_lost(
    student: Callable[..., DistillRecipe],
) -> None:
    recipe = student()
    assert recipe.encoder.name == "events"
    assert (recipe.augmentation.crop, recipe.augmentation.roll, recipe.augmentation.flip) == (0, 5, True)
    data = loaders.load_data(recipe)
    same = data.train.subset(torch.zeros(8, dtype=torch.int64))
    same.frames[:] = same.frames[:, :1].clone()  # type: ignore[attr-defined]
    options: dict[str, Any] = {"mean": data.mean, "std": data.std, "augmentation": recipe.augmentation}
    frames, _ = next(iter(Batches(same, batch_size=8, **options)))
    assert all(torch.equal(frames[0], frames[t]) for t in range(4))
    assert not torch.equal(frames[0, 0], frames[0, 1])
    # Rolled and mirrored: every event is still there.
    torch.testing.assert_close(frames.sum((0, 2, 3, 4)), frames[:, :1].sum((0, 2, 3, 4)).expand(8))
    assert (frames == 0).float().mean() > 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "digits", "encoder": {"name": "events"}}, "encoder events needs data of events"),
        ({"events": {"frames": 5}}, r"events.frames must be timesteps \(4\) or left out, not 5"),
        ({"data": "digits", "events": {"by": "time"}}, "events is for data of events"),
        ({"encoder": {"name": "poisson"}}, "has no pixels between -1 and 1"),
        ({"initialise": "normalise", "source": "x"}, "the encoder events gives it frames"),
        ({"data": "dvs-gesture", "augmentation": {"flip": True}}, "makes left hands of right ones"),
    ],
)
def test_what_does_not_fit_events_is_one_line(
    fields: dict[str, Any], message: str, student: Callable[..., DistillRecipe]
) -> None:
    with pytest.raises(InputError, match=message):
        student(**fields)


def test_gestures_are_never_mirrored_and_stages_share_the_frames(
    tmp_path: Path, student: Callable[..., DistillRecipe]
) -> None:
    place = write_dvs_gesture(tmp_path / "data")
    terms = [{"name": "cross-entropy"}, {"name": "logits"}]
    fields = {"data": "dvs-gesture", "data_dir": str(place), "image_size": 16, "epochs": 1, "timesteps": 3}
    stages = {"teacher": {"model": "vgg5", "width": 0.25, "epochs": 1, "batch_size": 8}}
    run = train(student(**fields, objectives=terms, stages=stages, validation=2))
    recipe = run.read_yaml("recipe.yaml")
    assert recipe["augmentation"]["flip"] is False
    assert Run.open(recipe["teacher"]).read_json("model.json")["frames"] == 3


def test_what_it_did_is_recorded(student: Callable[..., DistillRecipe], teacher: Run) -> None:
    run = train(student(teacher=str(teacher.folder), objectives=[{"name": "logits"}]))
    found = Evidence.read(run)
    assert found is not None
    assert found.images == 10
    assert found.teacher is not None
    assert found.teacher.accuracy == teacher.read_json("result.json")["test_accuracy"]
    assert len(found.samples) == 8
    assert {sample.image.channels for sample in found.samples} == {1}
    assert all(max(sample.image.content) == 255 for sample in found.samples)
    assert found.attention
    assert found.raster
    assert write_page([str(run.folder)]).is_file()


@pytest.mark.slow
def test_a_student_learns_from_simulated_events_at_ten_steps(tmp_path: Path) -> None:
    """Teacher on the merged frames first, then the student, one time step for each of ten frames."""
    fields = {
        "method": "blockwise",
        "data": "digits-events",
        "data_dir": str(tmp_path / "data"),
        "image_size": 16,
        "student": "vgg5",
        "width": 0.25,
        "timesteps": 10,
        "gradient": "rate",
        "batch_size": 32,
        "epochs": 4,
        "limit_train": 600,
        "augmentation": {"crop": 0, "roll": 1},
        "objectives": [{"name": "cross-entropy"}, {"name": "logits"}, {"name": "blockwise"}],
        "optimiser": {"name": "adamw", "lr": 0.003},
        "stages": {"teacher": {"model": "vgg5", "width": 0.25, "epochs": 4}},
        "device": "cpu",
        "out": str(tmp_path / "student"),
    }
    run = train(load(DistillRecipe, fields))
    result = run.read_json("result.json")
    assert list(result["test_accuracy_by_timestep"]) == [str(step) for step in range(1, 11)]
    assert result["test_accuracy"] > 0.5
    assert result["images"] == {"train": 600, "validation": 144, "test": 360}
    assert any("split: that of digits" in note for note in result["data_notes"])
    assert evaluate(run.folder)["accuracy_by_timestep"]["10"] == result["test_accuracy"]
