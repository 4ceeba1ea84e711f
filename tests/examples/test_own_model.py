from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model.py"


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40


@pytest.mark.slow
def test_the_example_goes_from_a_model_to_a_replayed_file(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::UserWarning:spikestill", str(EXAMPLE), str(tmp_path / "run")]
    said = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True).stdout
    accuracies, replayed = said.splitlines()[-2:]
    ann, last = accuracies.split("%")[0].removeprefix("ANN "), accuracies.rstrip("}").split()[-1]
    assert float(ann) > 93
    assert float(last) > 0.93
    assert replayed == f"{tmp_path / 'run' / 'student.nir'}: 0 of 49,152 spikes differ (8 images, 4 time steps)"
