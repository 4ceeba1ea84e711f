"""What a run records beside its result."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spikestill.data import load as load_data
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription
from spikestill.report.evidence import Evidence
from spikestill.runs import Run
from spikestill.train import evaluate, train

AnnMaker = Callable[..., AnnRecipe]
StudentMaker = Callable[..., DistillRecipe]


def recorded(run: Run) -> Evidence:
    found = Evidence.read(run)
    assert found is not None
    return found


def logits(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the run's network for the test images ``[N, K]``, computed anew, and the labels."""
    description, data = NetworkDescription.of_run(run), load_data("digits")
    network = description.load(run)
    mean, std = (torch.tensor(values)[:, None, None] for values in (description.mean, description.std))
    with torch.no_grad():
        return network((data.test.images / 255 - mean) / std), data.test.labels


def test_a_student_s_evidence_agrees_with_its_network(student_recipe: StudentMaker, teacher: Run) -> None:
    run = train(student_recipe(teacher=str(teacher.folder), objectives=[{"name": "logits"}]))
    found, result = recorded(run), run.read_json("result.json")
    own, labels = logits(run)
    theirs, _ = logits(teacher)
    assert found.images == len(labels) == sum(map(sum, found.confusion))
    assert sum(line[index] for index, line in enumerate(found.confusion)) == round(
        result["test_accuracy"] * len(labels)
    )
    for label, predicted in zip(labels[:50].tolist(), own[:50].argmax(1).tolist(), strict=True):
        assert found.confusion[label][predicted] > 0
    assert found.teacher is not None
    assert found.teacher.name == str(teacher.folder)
    assert found.teacher.accuracy == teacher.read_json("result.json")["test_accuracy"]
    assert found.teacher.agreement == pytest.approx(float((own.argmax(1) == theirs.argmax(1)).float().mean()))
    assert found.timesteps == 2
    assert found.early_exit[-1].accuracy == result["test_accuracy"]
    assert found.early_exit[0].accuracy == result["test_accuracy_by_timestep"]["1"]
    assert {layer.name: layer.rate for layer in found.layers} == pytest.approx(result["test_rates"])
    assert all(layer.rate_error is not None and 0 < layer.rate_error <= 1 for layer in found.layers)
    surest = [mistake.confidence for mistake in found.mistakes]
    assert surest == sorted(surest, reverse=True)
    assert all(mistake.label != mistake.predicted for mistake in found.mistakes)
    assert all(mistake.teacher_predicted is not None for mistake in found.mistakes)
    assert len(found.mistakes) == min(24, sum(map(sum, found.confusion)) - round(result["test_accuracy"] * len(labels)))


def test_the_samples_are_test_images_with_a_map_each(student_recipe: StudentMaker, teacher: Run) -> None:
    run = train(student_recipe(teacher=str(teacher.folder), objectives=[{"name": "logits"}]))
    found, data = recorded(run), load_data("digits")
    assert [sample.label for sample in found.samples] == list(range(8))
    for sample in found.samples:
        row = int((data.test.labels == sample.label).nonzero()[0])
        assert base64.b64decode(sample.image.pixels) == bytes(data.test.images[row].flatten().tolist())
    assert found.attention
    for pair in found.attention:
        assert len(pair.maps) == len(pair.teacher_maps) == 8
        assert all(max(picture.content) in (0, 255) for picture in (*pair.maps, *pair.teacher_maps))
    assert found.raster
    assert all(1 <= step <= 2 for layer in found.raster for train in layer.neurons for step in train.spikes)


def test_an_ann_s_evidence_has_no_steps(teacher: Run) -> None:
    found = recorded(teacher)
    assert (found.timesteps, found.teacher, found.layers, found.early_exit, found.raster) == (None, None, (), (), ())
    assert found.attention[0].teacher_maps == ()
    assert sum(map(sum, found.confusion)) == found.images == 360
    assert found.calibration_error > 0
    assert sum(one.images for one in found.bins) == 360


def test_without_its_teacher_a_student_has_the_rest(student_recipe: StudentMaker) -> None:
    found = recorded(train(student_recipe()))
    assert found.teacher is None
    assert all(layer.rate_error is None for layer in found.layers)
    assert all(not pair.teacher_maps for pair in found.attention)
    assert found.early_exit


@pytest.mark.parametrize("encoder", ["direct", "poisson"])
def test_evaluate_writes_it_anew_and_the_same(student_recipe: StudentMaker, teacher: Run, encoder: str) -> None:
    fields = {"teacher": str(teacher.folder), "objectives": [{"name": "logits"}], "encoder": {"name": encoder}}
    run = train(student_recipe(**fields))
    before = (run.folder / "analysis.json").read_bytes()
    (run.folder / "analysis.json").unlink()
    evaluate(run.folder)
    assert (run.folder / "analysis.json").read_bytes() == before
    assert len(before) < 200_000


@pytest.mark.parametrize("options", [{"split": "validation"}, {"timesteps": [1]}, {"data": "digits"}])
def test_other_images_or_steps_leave_it_alone(student_recipe: StudentMaker, options: dict[str, Any]) -> None:
    run = train(student_recipe())
    (run.folder / "analysis.json").unlink()
    evaluate(run.folder, **options)
    assert not (run.folder / "analysis.json").exists()


def test_a_run_that_cannot_be_written_is_measured_all_the_same(
    student_recipe: StudentMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(student_recipe())

    def full(self: Path, other: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", full)
    assert evaluate(run.folder)["accuracy"] == run.read_json("result.json")["test_accuracy"]
