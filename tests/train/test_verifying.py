from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spikestill.recipes import DistillRecipe
from spikestill.runs import Run, write_weights
from spikestill.train import train, verify
from spikestill.types import InputError

DRAWN = {"name": "poisson"}


def wrong(folder: Path) -> list[str]:
    return [finding.what for finding in verify(folder, device="cpu") if not finding.agrees]


@pytest.fixture
def student(student_recipe: Callable[..., DistillRecipe]) -> Path:
    return train(student_recipe(encoder=DRAWN, epochs=1)).folder


def rewrite(folder: Path, **fields: Any) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_run_agrees_to_the_last_figure(student: Path) -> None:
    findings = verify(student, device="cpu")
    assert all(finding.agrees for finding in findings)
    assert {finding.written for finding in findings if finding.what.startswith("test accuracy")} == {
        finding.found for finding in findings if finding.what.startswith("test accuracy")
    }
    names = {finding.what for finding in findings}
    assert names >= {"method", "seed", "best epoch", "weights (SHA-256)", "data (SHA-256)", "test accuracy at step 1"}


def test_an_ann_and_a_conversion_agree(teacher: Run, student_recipe: Callable[..., DistillRecipe]) -> None:
    assert wrong(teacher.folder) == []
    converted = student_recipe(epochs=0, initialise="normalise", source=str(teacher.folder))
    assert wrong(train(converted).folder) == []


def test_what_was_tampered_with_is_named(student: Path) -> None:
    result = json.loads((student / "result.json").read_text())
    rewrite(student, test_accuracy=result["test_accuracy"] + 0.01, seed=7, best_epoch=2)
    assert wrong(student) == ["seed", "best epoch", "test accuracy"]
    rewrite(student, **result)
    rewrite(student, test_accuracy_by_timestep={}, test_synaptic_operations=result["test_synaptic_operations"] * 0.9)
    assert wrong(student) == ["test accuracy at step 1", "test accuracy at step 2", "synaptic operations"]
    rewrite(student, **result)
    rewrite(student, data_fingerprint="0" * 64, validation_accuracy=1.0)
    assert wrong(student) == ["validation accuracy", "data (SHA-256)"]


def test_other_weights_are_noticed_by_their_fingerprint_and_their_accuracy(student: Path) -> None:
    weights = Run(student).read_weights()
    write_weights(student / "student.safetensors", {key: torch.zeros_like(value) for key, value in weights.items()})
    assert {"weights (SHA-256)", "spikes per neuron"} <= set(wrong(student))


def test_without_weights_the_other_files_are_held_against_each_other(student: Path) -> None:
    (student / "student.safetensors").unlink()
    rewrite(student, epochs=3)
    (Path(student) / "metrics.csv").write_text("epoch,validation_accuracy\n1,0.0\n")
    assert set(wrong(student)) == {"epochs", "validation accuracy", "weights (SHA-256)"}


def test_an_unfinished_run_is_refused(student: Path) -> None:
    (student / "result.json").unlink()
    with pytest.raises(InputError, match="is no finished run"):
        verify(student)
