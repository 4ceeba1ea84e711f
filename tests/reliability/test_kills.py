from __future__ import annotations

from pathlib import Path

import pytest

from reliability.kills import run_kills
from reliability.whole import damaged, differing, leftovers
from tests.report import folders


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    tally = run_kills(5, tmp_path, epochs=2, seed=1)
    assert tally.faults == []
    assert tally.kills >= 5
    assert tally.runs >= 1


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
