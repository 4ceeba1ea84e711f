"""The table over several runs."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from spikestill.cli import main
from spikestill.report import compare
from spikestill.report.layouts import laid_out
from spikestill.runs import Run
from spikestill.types import InputError


def markdown(folders: list[str]) -> str:
    return laid_out("plain", folders).markdown()


def finished(folder: Path, seed: int, accuracy: float, more: dict[str, float] | None = None, **changed: Any) -> str:
    recipe = {"method": "blockwise", "seed": seed, "out": str(folder), "timesteps": 2, "initialise": "random"}
    recipe |= {"gradient": "rate", "epochs": 3} | changed
    run = Run.refuse_used(folder)
    run.write_yaml("recipe.yaml", recipe)
    run.write_network("student", {"weight": torch.zeros(1)}, {"model": "vgg5"})
    figures = {"method": recipe["method"], "network": "vgg5", "seed": seed, "training_seconds": 60.0}
    if recipe["timesteps"] is None:
        figures["test_accuracy"] = accuracy
    else:
        figures |= {"test_accuracy_by_timestep": {"1": accuracy - 0.1, "2": accuracy}, "test_spikes_per_neuron": 0.5}
    run.write_json("result.json", figures | (more or {}))
    return str(folder)


def test_runs_that_differ_in_their_seed_alone_share_a_row(tmp_path: Path) -> None:
    runs = [finished(tmp_path / str(seed), seed, accuracy) for seed, accuracy in ((1, 0.92), (0, 0.90))]
    (row,) = compare(runs)
    assert row.seeds == (0, 1)
    assert row.accuracy == {1: (0.8, 0.92 - 0.1), 2: (0.9, 0.92)}
    # The standard deviation of 90 and 92, with one degree of freedom, is the square root of 2.
    assert row.cells([1, 2])[3] == "91.00 ± 1.41"


def test_where_and_how_a_run_was_made_is_no_other_experiment(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"workers": 4, "devices": 2, "strategy": "ddp", "device": "cpu", "data_dir": "/here"},
        {"workers": None, "devices": 1, "strategy": "auto", "device": "cuda", "data_dir": None},
    ]
    runs = [finished(tmp_path / str(seed), seed, 0.9, **way) for seed, way in enumerate(ways)]
    (row,) = compare(runs)
    assert row.seeds == (0, 1)


def test_another_recipe_is_another_row_and_an_ann_stands_under_the_last_step(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path / "ann", 0, 0.95, method="ann", timesteps=None),
        finished(tmp_path / "a", 0, 0.9),
        finished(tmp_path / "b", 0, 0.8, epochs=5),
    ]
    rows = compare(runs)
    assert [row.timesteps for row in rows] == [None, 2, 2]
    table = markdown(runs).splitlines()
    assert table[0] == "| method | seeds | t = 1 | t = 2 | spikes per neuron | training, minutes |"
    assert table[2] == "| ann vgg5 (ANN) | 0 |  | 95.00 |  | 1.0 |"
    assert table[3] == "| blockwise vgg5, rate (a) | 0 | 80.00 | 90.00 | 0.500 | 1.0 |"


def with_operations(tmp_path: Path) -> list[str]:
    """Two seeds whose results have all figures, and one of an earlier version, which has fewer."""
    figures = [
        {"test_synaptic_operations": 1.5e6, "training_peak_memory_mib": 400.4},
        {"test_synaptic_operations": 2.5e6, "training_peak_memory_mib": 500.4},
    ]
    runs = [finished(tmp_path / str(seed), seed, 0.9, more=more) for seed, more in enumerate(figures)]
    return [*runs, finished(tmp_path / "earlier", 0, 0.8, epochs=5)]


def test_operations_and_memory_are_columns_where_a_result_has_them(tmp_path: Path) -> None:
    runs = with_operations(tmp_path)
    head, _, new, earlier = markdown(runs).splitlines()
    columns = "spikes per neuron | SynOps, millions | training, minutes | peak memory, MiB |"
    assert head == f"| method | seeds | t = 1 | t = 2 | {columns}"
    assert new.endswith("| 0.500 ± 0.000 | 2.000 ± 0.707 | 1.0 | 450 ± 71 |")
    assert earlier.endswith("| 0.500 |  | 1.0 |  |")
    assert "SynOps" not in markdown(runs[2:])


def test_as_comma_separated_values_the_table_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = with_operations(tmp_path)
    assert main(["compare", *runs, "--csv"]) == 0
    new, earlier = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (new["method"], new["seeds"]) == ("blockwise vgg5, rate (0)", "0, 1")
    assert float(new["t = 2 mean"]) == 90
    assert float(new["t = 1 mean"]) == statistics.mean([100 * (0.9 - 0.1)] * 2)
    assert float(new["SynOps, millions mean"]) == 2
    assert float(new["SynOps, millions standard deviation"]) == pytest.approx(math.sqrt(0.5), rel=1e-15)
    assert float(new["training, minutes standard deviation"]) == 0
    assert float(new["peak memory, MiB mean"]) == pytest.approx(450.4, rel=1e-15)
    assert earlier["SynOps, millions mean"] == earlier["t = 1 standard deviation"] == ""


def test_the_same_seed_twice_and_an_unfinished_run_are_refused(tmp_path: Path) -> None:
    twice = [finished(tmp_path / "a", 0, 0.9), finished(tmp_path / "b", 0, 0.8)]
    with pytest.raises(InputError, match="same seed"):
        compare(twice)
    unfinished = Run(tmp_path / "a")
    (unfinished.folder / "result.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        compare([str(unfinished.folder)])


def test_the_command_prints_markdown_and_refuses_an_empty_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", finished(tmp_path / "a", 0, 0.9), "--markdown"]) == 0
    assert "| blockwise vgg5, rate | 0 | 80.00 | 90.00 |" in capsys.readouterr().out
    assert main(["compare"]) == 2
    assert "at least one run folder" in capsys.readouterr().err


def test_the_command_draws_a_figure_and_refuses_an_unknown_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        finished(tmp_path / "ann", 0, 0.95, method="ann", timesteps=None),
        *(finished(tmp_path / str(seed), seed, 0.9) for seed in (0, 1)),
    ]
    assert main(["compare", *runs, "--figure", str(tmp_path / "figure.png")]) == 0
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert main(["compare", *runs, f"--figure={tmp_path / 'figure.nonsense'}"]) == 2
    assert "figure.nonsense" in capsys.readouterr().err
