"""`spikestill compare EXPERIMENT.yaml`: from the file to the table, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikestill.cli import main
from spikestill.report.layouts import LAYOUTS

FILE = """
layout: encodings
seeds: [0, 1]
common: {width: 0.25, limit_train: 96, batch_size: 32, epochs: 1, device: cpu}
runs:
  labels: {recipe: labels-only, student: vgg5, timesteps: 2, gradient: rate}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(FILE)
    return "mine.yaml"


def test_what_is_missing_is_trained_and_the_table_printed(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", file, "--data=digits"]
    assert main([*words, "--no-train"]) == 2
    assert "no run of mine.yaml is finished yet" in capsys.readouterr().err
    assert not Path("runs").exists()

    assert main([*words, "--seeds=1"]) == 0
    assert "run 1 of 1: runs/mine/labels-s1\n" in capsys.readouterr().out
    assert main([*words, "--no-train", "--markdown"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "spikestill: not finished: runs/mine/labels-s0\n"
    assert shown.out.startswith("| data | student | system | setting | t = 1 | t = 2 | spikes per neuron |\n")

    assert main([*words, "--layout", "plain", "--markdown"]) == 0
    shown = capsys.readouterr()
    assert "run 1 of 2: runs/mine/labels-s0\n" in shown.out
    assert "run 2 of 2: runs/mine/labels-s1 is finished\n" in shown.out
    assert "| labels-only vgg5, rate | 0, 1 |" in shown.out
    assert shown.err == ""

    assert main([*words, "--no-train", "--figure=figure.png"]) == 0
    assert Path("figure.png").read_bytes().startswith(b"\x89PNG")
    assert main(["compare", "runs/mine/labels-s0", "runs/mine/labels-s1", "--layout=layers"]) == 0
    assert "layer1.relu1" in capsys.readouterr().out


WRONG = {
    "a missing file": (["absent.yaml"], "cannot read the experiment absent.yaml: No such file"),
    "two files": (["mine.yaml", "other.yaml"], "an experiment file stands alone, not beside others"),
    "a file and a run": (["runs/a", "mine.yaml"], "an experiment file stands alone"),
    "a seed it does not have": (["mine.yaml", "--seeds", "3"], "no run of the experiment has seed 3 (it has 0, 1)"),
    "seeds that are none": (
        ["mine.yaml", "--seeds=one"],
        "--seeds must be whole numbers separated by commas, not 'one'",
    ),
    "layout": (["mine.yaml", "--layout", "table-5"], "unknown layout 'table-5': did you mean 'table-"),
    "layout of runs": (["runs/a", "--layout=tables"], "unknown layout 'tables'"),
    "option": (["mine.yaml", "--seed=1"], "unknown option '--seed': did you mean '--seeds'?"),
    "option without value": (["mine.yaml", "--out"], "--out needs a value"),
    "an option of files": (["runs/a", "--no-train"], "--no-train is for an experiment file, not for run folders"),
    "data": (
        ["mine.yaml", "--data=cifar-10"],
        "labels: recipe 'labels-only': unknown data set 'cifar-10': did you mean",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_trains_nothing(case: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = WRONG[case]
    assert main(["compare", *words]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.startswith("spikestill: ")
    assert complaint.count("\n") == 1
    assert not Path("runs").exists()


def test_help_names_the_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in LAYOUTS)
    assert "{recipe: METHOD, ...}" in shown
