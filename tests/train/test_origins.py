"""The networks that a student comes from: their accuracy, the gap, and what is said of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from spikestill.cli import main
from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription
from spikestill.report import compare
from spikestill.report.finished import origins, read_result
from spikestill.runs import Run
from spikestill.train import train
from spikestill.train.loaders import load_data
from spikestill.train.origins import is_near_chance

StudentMaker = Callable[..., DistillRecipe]
AnnMaker = Callable[..., AnnRecipe]
LOGITS = [{"name": "cross-entropy"}, {"name": "logits"}]


def by_hand(run: Run) -> float:
    """Accuracy of an ANN on the validation images, computed another way."""
    description = NetworkDescription.of_run(run)
    network = description.load(run)
    data = load_data(AnnRecipe(data="digits"))
    pixels = data.validation.images.float() / 255  # type: ignore[attr-defined]
    normalised = (pixels - description.mean[0]) / description.std[0]
    with torch.no_grad():
        return float((network(normalised).argmax(1) == data.validation.labels).double().mean())


def test_a_teachers_accuracy_and_the_gap_are_said_and_recorded(
    student_recipe: StudentMaker, teacher: Run, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = student_recipe(teacher=str(teacher.folder), objectives=LOGITS, epochs=1)
    with caplog.at_level(logging.INFO, "spikestill"):
        run = train(recipe)
    result = read_result(run)
    (found,) = origins(result)
    assert (found.role, found.name, found.is_spiking) == ("teacher", str(teacher.folder), False)
    assert found.validation_accuracy == by_hand(teacher)
    assert found.gap == pytest.approx(found.validation_accuracy - result["validation_accuracy"])
    said = f"the teacher {teacher.folder} answers {found.validation_accuracy:.2%} of the 144 validation images right"
    assert caplog.messages.count(said) == 1
    (row,) = compare([str(run.folder)])
    assert row.gap == (found.gap,)
    assert row.figures([1])["validation gap, points"] == (100 * found.gap,)
    assert main(["report", str(run.folder)]) == 0
    page = (run.folder / "report.html").read_text()
    assert f"{found.validation_accuracy:.2%} of the validation images" in page
    capsys.readouterr()


@pytest.mark.slow
def test_what_is_converted_is_judged_by_its_ann_and_a_spiking_teacher_is_named(
    student_recipe: StudentMaker, teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields: dict[str, Any] = {"neuron": {"name": "if"}, "source": str(teacher.folder), "initialise": "shift"}
    with caplog.at_level(logging.INFO, "spikestill"):
        converted = train(student_recipe(epochs=0, out=str(tmp_path / "converted"), timesteps=16, **fields))
    (found,) = origins(read_result(converted))
    assert (found.role, found.validation_accuracy) == ("source", by_hand(teacher))
    assert caplog.messages[0].startswith(f"the ANN that is converted, {teacher.folder}, answers ")
    spikes = [{"name": "cross-entropy"}, {"name": "spikes"}]
    with caplog.at_level(logging.INFO, "spikestill"):
        taught = train(student_recipe(teacher=str(converted.folder), objectives=spikes, epochs=1, timesteps=16))
    (found,) = origins(read_result(taught))
    assert (found.role, found.is_spiking) == ("teacher", True)
    assert found.validation_accuracy == read_result(converted)["validation_accuracy"]
    assert any(message.startswith(f"the spiking teacher {converted.folder} answers ") for message in caplog.messages)


def test_measuring_leaves_the_training_as_it_was(
    student_recipe: StudentMaker, teacher: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = student_recipe(teacher=str(teacher.folder), objectives=LOGITS, epochs=1)
    first = train(recipe).read_weights()
    monkeypatch.setattr("spikestill.train.origins.Meter.measured", lambda self: ())
    second = train(student_recipe(teacher=str(teacher.folder), objectives=LOGITS, epochs=1, out=str(tmp_path / "b")))
    assert all(torch.equal(value, first[name]) for name, value in second.read_weights().items())
    assert "origins" not in second.read_json("result.json")


@pytest.mark.parametrize("is_file", [True, False])
def test_an_ann_near_chance_points_to_its_pixels(
    is_file: bool, student_recipe: StudentMaker, teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = teacher.read_weights()
    weights = {name: torch.zeros_like(value) for name, value in weights.items()}  # every answer is class 0
    if is_file:
        save_file(weights, tmp_path / "a.safetensors")
        fields: dict[str, Any] = {"source": str(tmp_path / "a.safetensors"), "initialise": "source-weights"}
    else:
        broken = Run(tmp_path / "broken")
        broken.write_yaml("recipe.yaml", {"method": "ann"})
        broken.write_network("model", weights, teacher.read_json("model.json"))
        fields = {"teacher": str(broken.folder), "objectives": LOGITS}
    with caplog.at_level(logging.INFO, "spikestill"):
        run = train(student_recipe(epochs=1, **fields))
    (remark,) = read_result(run)["remarks"]
    assert remark in caplog.messages
    begin = " answers hardly more validation images right than guessing would (10.00%): "
    if is_file:
        data = load_data(AnnRecipe(data="digits"))
        mean, std = f"{data.mean[0]:.4g}", f"{data.std[0]:.4g}"
        assert remark == (
            f"the source {tmp_path / 'a.safetensors'}{begin}it was probably trained on pixels that were normalised "
            f"otherwise than here (mean {mean}, std {std}): give its own with --mean and --std; or its classes are in "
            "another order than the data's, or it is not trained"
        )
    else:
        assert remark == (
            f"the teacher {tmp_path / 'broken'}{begin}it has not learned digits; look at its training before a student "
            "comes from it"
        )


@given(st.integers(1, 300), st.integers(2, 100), st.floats(0, 1))
def test_near_chance_is_a_binomial_test(images: int, classes: int, share: float) -> None:
    correct = round(share * images)
    limit = min(2 / classes, 1 / classes + 0.1)
    if limit >= 1:
        return
    tail = sum(math.comb(images, k) * limit**k * (1 - limit) ** (images - k) for k in range(correct + 1))
    if abs(tail - 0.05) > 1e-9:
        assert is_near_chance(correct, images, classes) == (correct < limit * images and tail < 0.05)


def test_near_chance_knows_few_classes_and_few_images() -> None:
    assert is_near_chance(16, 144, 10)
    assert not is_near_chance(29, 144, 10)  # 20 %
    assert not is_near_chance(1, 10, 10)  # too few to tell
    assert not is_near_chance(90, 100, 2)  # below twice chance, which is all
    assert is_near_chance(50, 100, 2)
