"""The runs that are committed under docs/results: their files agree with each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikestill.runs import Run
from spikestill.train.measuring import recipe_of
from spikestill.train.verifying import of_files

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RUNS = sorted(path.parent for path in RESULTS.glob("*/*/result.json"))


def test_there_are_some() -> None:
    assert len(RUNS) > 20


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_a_committed_run_is_what_its_files_say(folder: Path) -> None:
    run = Run(folder)
    findings = list(of_files(run, recipe_of(run), run.read_json("result.json")))
    assert len(findings) >= 4
    assert [finding for finding in findings if not finding.agrees] == []
