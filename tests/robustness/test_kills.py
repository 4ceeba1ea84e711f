from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikestill.recipes import AnnRecipe, DistillRecipe, Recipe, load
from spikestill.recipes.names import presets
from tests.report import folders
from tests.robustness.cases import CASES
from tests.robustness.kills import Tally, run_kills
from tests.robustness.locks import run_locks
from tests.robustness.whole import damaged, differing, leftovers


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    tally = Tally()
    case = next(case for case in CASES if case.name == "spiking teacher, average, seeded Poisson")
    run_kills(case, 5, tmp_path / "case", tally, epochs=2, seed=1)
    assert tally.faults == []
    assert tally.kills >= 5
    assert tally.runs >= 1


def test_every_recipe_is_a_case_that_loads(tmp_path: Path) -> None:
    assert {case.recipe for case in CASES} == set(presets())
    for case in CASES:
        folder = tmp_path / case.name
        folder.mkdir()
        command, file = case.words(folder, 3)
        recipe: Recipe = load(AnnRecipe if command == "train" else DistillRecipe, file)
        assert (recipe.data, recipe.devices) == ("digits", case.devices)


@pytest.mark.slow
def test_no_two_processes_hold_one_run_and_none_is_made_twice(tmp_path: Path) -> None:
    tally = run_locks(100, tmp_path, processes=4)
    assert (tally.runs, tally.faults) == (100, [])
    assert tally.kills > 0


def test_half_files_missing_ones_and_strangers_are_noticed(tmp_path: Path) -> None:
    folder = Path(folders.student(tmp_path / "run", recorded=folders.evidence()))
    assert damaged(folder) == []
    (folder / ".result.json.partial").write_text("{")
    assert damaged(folder) == []
    assert [path.name for path in leftovers(folder)] == [".result.json.partial"]
    (folder / "student.json").unlink()
    (folder / "analysis.json").write_text('{"images": ')
    (folder / "metrics.csv").write_text("epoch,loss\n1,0.5\n2\n")
    (folder / "notes.txt").write_text("")
    found = " ".join(damaged(folder))
    for name in ("analysis.json: ", "metrics.csv: ValueError: rows of different lengths", "student.json is missing"):
        assert name in found
    assert "notes.txt is a stranger here" in found


def test_runs_are_compared_but_for_their_clocks(tmp_path: Path) -> None:
    first, second = (Path(folders.student(tmp_path / name, recorded=folders.evidence(), out="")) for name in ("a", "b"))
    assert differing(first, second) == []
    result = (second / "result.json").read_text()
    (second / "result.json").write_text(result.replace('"training_seconds": 90.0', '"training_seconds": 91.0'))
    assert differing(first, second) == []
    (second / "result.json").write_text(result.replace("0.87", "0.88"))
    (second / "student.safetensors").write_bytes(b"")
    assert differing(first, second) == ["student.safetensors", "result.json"]


def test_where_runs_lie_is_no_difference_between_them(tmp_path: Path) -> None:
    """A result names the networks that its run comes from, which lie beside it."""
    runs = []
    for name in ("reference", "run-0"):
        folder = Path(folders.student(tmp_path / name / "run", recorded=folders.evidence(), out=""))
        result = json.loads((folder / "result.json").read_text())
        result["origins"] = [{"name": str(folder.parent / "teacher"), "validation_accuracy": 0.5}]
        (folder / "result.json").write_text(json.dumps(result))
        runs.append(folder)
    assert differing(*runs) == []
    text = (runs[1] / "result.json").read_text()
    (runs[1] / "result.json").write_text(text.replace('"validation_accuracy": 0.5', '"validation_accuracy": 0.6'))
    assert differing(*runs) == ["result.json"]
