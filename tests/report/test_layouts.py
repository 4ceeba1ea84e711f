"""The layouts: which row and column a run belongs to, and what stands in the cells."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spikestill.cli import main
from spikestill.report.layouts import LAYOUTS, laid_out
from spikestill.report.systems import Measured, system
from spikestill.runs import Run
from spikestill.types import InputError

Steps = dict[int, float]


def ann(folder: Path, accuracy: float, seed: int = 0, network: str = "vgg5", **changed: Any) -> str:
    recipe = {"method": "ann", "model": network, "data": "parquet:x/cifar10", "width": 1.0, "seed": seed, "epochs": 2}
    return written(folder, recipe | changed, network, {"test_accuracy": accuracy}, "model")


def student(
    folder: Path,
    objectives: Sequence[str],
    accuracy: float | Steps,
    seed: int = 0,
    network: str = "vgg5",
    figures: dict[str, Any] | None = None,
    **changed: Any,
) -> str:
    """A run of a network that starts from a conversion, T = 100 under Poisson input and through time."""
    recipe: dict[str, Any] = {"method": "x", "student": network, "data": "parquet:x/cifar10", "width": 1.0}
    recipe |= {"timesteps": 100, "gradient": "bptt", "encoder": {"name": "poisson"}, "epochs": 2, "seed": seed}
    recipe |= {"initialise": "threshold-balancing", "teacher": None, "source": None, "out": str(folder)}
    recipe |= {"objectives": [{"name": name} for name in objectives]} | changed
    steps = accuracy if isinstance(accuracy, dict) else {recipe["timesteps"]: accuracy}
    found = {"test_accuracy": steps[max(steps)], "test_accuracy_by_timestep": {str(t): a for t, a in steps.items()}}
    found |= {"test_spikes_per_neuron": 5.0, "test_rates": {"a": 0.1, "b": 0.2}}
    return written(folder, recipe, network, found | (figures or {}), "student")


def written(folder: Path, recipe: dict[str, Any], network: str, figures: dict[str, Any], kind: str) -> str:
    run = Run(folder)
    run.write_yaml("recipe.yaml", recipe)
    run.write_network(kind, {"weight": torch.zeros(1)}, {"model": network})
    shared = {"method": recipe["method"], "network": network, "seed": recipe["seed"], "training_seconds": 90.0}
    run.write_json("result.json", shared | {"validation_accuracy": 0.5} | figures)
    return str(folder)


LABELS = ["cross-entropy"]
LASNN = ["cross-entropy", "activation-attention"]
GRADIENT = ["cross-entropy", "gradient-attention"]
CONVERTED: dict[str, Any] = {"epochs": 0, "encoder": {"name": "direct"}}


@pytest.mark.parametrize(
    ("objectives", "changed", "name"),
    [
        (LABELS, {"timesteps": None}, "ANN"),
        (LABELS, {"initialise": "random"}, "labels"),
        (LABELS, {"initialise": "teacher-weights"}, "labels"),
        (LABELS, {}, "hybrid"),
        (LABELS, {"epochs": 0}, "conversion"),
        (LASNN, {"epochs": 0}, "conversion"),
        (LABELS, {"epochs": 0, "initialise": "calibrate"}, "calibration"),
        (LABELS, {"epochs": 0, "initialise": "quantise"}, "QCFS"),
        (["cross-entropy", "logits"], {}, "label distillation"),
        (["cross-entropy", "logits", "blockwise"], {"initialise": "random"}, "block-wise"),
        (LASNN, {}, "LaSNN"),
        ([*LASNN, "logits"], {}, "LaSNN"),
        (GRADIENT, {}, "LaSNN (gradient attention)"),
        (["cross-entropy", "spikes"], {}, "spike distillation"),
    ],
)
def test_the_recipe_says_which_system_a_run_is(objectives: list[str], changed: dict[str, Any], name: str) -> None:
    recipe = {"timesteps": 4, "initialise": "shift", "epochs": 1, "objectives": [{"name": term} for term in objectives]}
    assert system(recipe | changed) == name


def test_table_1_reads_a_conversion_at_round_steps_and_where_it_reaches_lasnn(tmp_path: Path) -> None:
    steps = {t: t / 200 for t in range(1, 101)}
    runs = [
        student(tmp_path / "converted", LABELS, steps, **CONVERTED),
        *(student(tmp_path / f"lasnn{seed}", LASNN, 0.33 + 0.02 * seed, seed) for seed in (0, 1)),
    ]
    table = laid_out("table-1", runs)
    assert table.header == ("data", "system", "architecture", "setting", "time steps", "accuracy")
    who = ("cifar10", "conversion by threshold-balancing", "vgg5", "T = 100, direct")
    # LaSNN's mean is 34 %, which the conversion has after 68 steps.
    expected = [(*who, str(t), f"{t / 2:.2f}") for t in (1, 2, 5, 10, 20, 50, 68, 100)]
    assert list(table.rows[:-1]) == expected
    assert table.rows[-1] == ("cifar10", "LaSNN", "vgg5", "T = 100, poisson, bptt", "100", "34.00 ± 1.41")


def test_table_2_has_a_row_for_each_student_and_setting_and_empty_cells(tmp_path: Path) -> None:
    sources = [ann(tmp_path / f"vgg5-s{seed}", 0.8 + 0.02 * seed, seed) for seed in (0, 1)]
    teacher = ann(tmp_path / "teacher", 0.95, network="vgg16")
    runs = [
        teacher,
        *(
            student(tmp_path / f"lasnn{s}", LASNN, 0.7 + 0.02 * s, s, source=sources[s], teacher=teacher)
            for s in (0, 1)
        ),
        student(tmp_path / "hybrid", LABELS, 0.6, source=sources[0]),
        student(tmp_path / "rate", LASNN, 0.65, gradient="rate", teacher=teacher),
        student(tmp_path / "wide", ["cross-entropy", "logits"], 0.5, network="vgg16", width=0.5),
        student(tmp_path / "vgg16", LASNN, 0.55, network="vgg16", teacher=teacher),
    ]
    table = laid_out("table-2", runs)
    assert table.header == ("data", "student", "setting", "ANN", "hybrid", "label distillation", "LaSNN")
    poisson = "T = 100, poisson, bptt"
    assert table.rows == (
        ("cifar10", "vgg5", poisson, "81.00 ± 1.41", "60.00", "", "71.00 ± 1.41"),
        ("cifar10", "vgg5", "T = 100, poisson, rate", "", "", "", "65.00"),
        ("cifar10", "vgg16 × 0.5", poisson, "", "", "50.00", ""),
        ("cifar10", "vgg16", poisson, "95.00", "", "", "55.00"),
    )


def test_two_experiments_in_one_cell_are_refused_by_what_sets_them_apart(tmp_path: Path) -> None:
    runs = [
        student(tmp_path / name, LASNN, 0.5, seed, epochs=epochs) for name, seed, epochs in (("a", 0, 2), ("b", 1, 3))
    ]
    with pytest.raises(InputError, match=r"one cell \(vgg5, LaSNN\): .*a and .*b differ in epochs: name only one"):
        laid_out("table-2", runs)


def test_table_3_compares_spike_distillation_and_lasnn(tmp_path: Path) -> None:
    runs = [student(tmp_path / "a", LASNN, 0.6), student(tmp_path / "b", ["cross-entropy", "spikes"], 0.4)]
    assert laid_out("table-3", runs).rows == (("cifar10", "vgg5", "T = 100, poisson, bptt", "40.00", "60.00"),)


def test_table_4_has_a_column_for_each_teacher_with_its_accuracy(tmp_path: Path) -> None:
    teachers = [
        ann(tmp_path / name, accuracy, network=name) for name, accuracy in (("vgg16", 0.91), ("resnet20", 0.93))
    ]
    runs = [
        student(tmp_path / "direct", LABELS, 0.1, **CONVERTED),
        student(tmp_path / "converted", LABELS, 0.3, epochs=0),
        student(tmp_path / "hybrid", LABELS, 0.5),
        *(student(tmp_path / f"l{i}", LASNN, 0.6 + 0.1 * i, teacher=teacher) for i, teacher in enumerate(teachers)),
        student(tmp_path / "other", LASNN, 0.8, network="resnet12", teacher=teachers[1]),
    ]
    table = laid_out("table-4", runs)
    assert table.header[3:] == ("ANN", "conversion", "hybrid", "vgg16 (91.00)", "resnet20 (93.00)")
    # Where one system has several rows, their folders tell them apart.
    assert [row[1] for row in laid_out("table-1", runs).rows][-3:] == ["LaSNN (l0)", "LaSNN (l1)", "LaSNN"]
    assert laid_out("table-3", runs).header[4:] == ("LaSNN, vgg16 (91.00)", "LaSNN, resnet20 (93.00)")
    # Of the two conversions, the one of the same input stands beside LaSNN.
    assert [row[1:] for row in table.rows] == [
        ("vgg5", "T = 100, poisson, bptt", "", "30.00", "50.00", "60.00", "70.00"),
        ("resnet12", "T = 100, poisson, bptt", "", "", "", "", "80.00"),
        ("vgg5", "T = 100, direct", "", "10.00", "", "", ""),
    ]


def test_a_conversion_stands_in_the_rows_of_its_input_and_is_read_out_at_their_steps(tmp_path: Path) -> None:
    steps = {t: t / 100 for t in range(1, 81)}
    runs = [
        student(tmp_path / "converted", LABELS, steps, epochs=0, timesteps=80),
        student(tmp_path / "a", LASNN, 0.6, timesteps=40),
        student(tmp_path / "b", LASNN, 0.7),
        student(tmp_path / "c", LASNN, 0.8, timesteps=40, encoder={"name": "direct"}),
        student(tmp_path / "d", LABELS, 0.5, network="vgg9", epochs=0),
    ]
    assert [row[2:] for row in laid_out("table-4", runs).rows] == [
        ("T = 40, poisson, bptt", "", "40.00", "", "60.00"),
        ("T = 100, poisson, bptt", "", "", "", "70.00"),
        ("T = 40, direct, bptt", "", "", "", "80.00"),
        ("T = 100, poisson", "", "50.00", "", ""),
    ]


def test_depth_orders_students_by_their_layers(tmp_path: Path) -> None:
    deep = {"test_rates": dict.fromkeys("abcdefgh", 0.1)}
    runs = [
        student(tmp_path / "a", LASNN, 0.8, network="vgg9", figures=deep),
        student(tmp_path / "b", LASNN, 0.6),
        student(tmp_path / "c", LABELS, 0.4, timesteps=32, **CONVERTED | {"initialise": "calibrate"}),
    ]
    table = laid_out("depth", runs)
    assert table.header == (
        "data",
        "student",
        "depth",
        "calibration (T = 32, direct)",
        "LaSNN (T = 100, poisson, bptt)",
    )
    assert table.rows == (("cifar10", "vgg5", "3", "40.00", "60.00"), ("cifar10", "vgg9", "9", "", "80.00"))


def test_layer_wise_is_validation_accuracy_by_epoch(tmp_path: Path) -> None:
    runs = [student(tmp_path / f"l{seed}", LASNN, 0.6, seed) for seed in (0, 1)]
    runs += [student(tmp_path / "h", LABELS, 0.6), student(tmp_path / "c", LABELS, 0.6, epochs=0)]
    for folder, rows in zip(runs, ([0.3, 0.5], [0.32, 0.54], [0.2, 0.25]), strict=False):
        figures = [{"epoch": index, "validation_accuracy": value} for index, value in enumerate(rows, start=1)]
        Run(Path(folder)).write_table("metrics.csv", figures)
    table = laid_out("layer-wise", runs)
    assert [name.split(" (")[0] for name in table.header] == ["epoch", "LaSNN vgg5", "hybrid vgg5", "conversion vgg5"]
    assert table.rows == (
        ("0", "", "", "50.00"),
        ("1", "31.00 ± 1.41", "20.00", ""),
        ("2", "52.00 ± 2.83", "25.00", ""),
    )


def test_attention_compares_accuracy_time_and_memory(tmp_path: Path) -> None:
    measured = {"training_peak_memory_mib": 812.4, "training_seconds": 180.0}
    runs = [student(tmp_path / "g", GRADIENT, 0.5, figures=measured), student(tmp_path / "a", LASNN, 0.6)]
    table = laid_out("attention", [*runs, student(tmp_path / "h", LABELS, 0.4)])
    assert {row[3:] for row in table.rows} == {("gradient", "50.00", "3.0", "812"), ("activation", "60.00", "1.5", "")}


def test_encodings_are_read_out_by_time_step(tmp_path: Path) -> None:
    runs = [
        student(tmp_path / "p", LASNN, {t: t / 100 for t in range(1, 31)}, timesteps=30),
        student(tmp_path / "d", LASNN, {1: 0.5, 2: 0.6, 3: 0.7}, timesteps=3, encoder={"name": "direct"}),
    ]
    table = laid_out("encodings", runs)
    assert table.header[4:-1] == tuple(f"t = {t}" for t in (1, 2, 3, 5, 10, 20, 30))
    assert table.rows[0][2:] == ("LaSNN", "T = 3, direct, bptt", "50.00", "60.00", "70.00", "", "", "", "", "5.000")
    assert table.rows[1][4:] == ("1.00", "2.00", "3.00", "5.00", "10.00", "20.00", "30.00", "5.000")


def test_layers_are_rates_and_spikes_over_all_steps(tmp_path: Path) -> None:
    runs = [
        student(tmp_path / str(seed), LASNN, 0.6, seed, figures={"test_rates": {"a": 0.1 + 0.02 * seed, "b": 0.5}})
        for seed in (0, 1)
    ]
    rows = laid_out("layers", [ann(tmp_path / "ann", 0.9), *runs]).rows
    assert [row[2:] for row in rows] == [
        ("a", "0.110 ± 0.014", "11.000 ± 1.414"),
        ("b", "0.500 ± 0.000", "50.000 ± 0.000"),
    ]


def test_plain_shows_round_steps_of_many(tmp_path: Path) -> None:
    long = student(tmp_path / "a", LASNN, dict.fromkeys(range(1, 31), 0.5), timesteps=30)
    short = student(tmp_path / "b", LASNN, dict.fromkeys(range(1, 4), 0.5), timesteps=3)
    steps = [name for name in laid_out("plain", [long, short]).header if name.startswith("t = ")]
    assert steps == [f"t = {t}" for t in (1, 2, 3, 5, 10, 20, 30)]


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"plain"}))
def test_runs_without_a_place_are_refused(layout: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"none of these runs has a place in the layout {layout}"):
        laid_out(layout, [ann(tmp_path / "ann", 0.9)])


def test_unknown_layouts_and_damaged_tables_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown layout 'tables-2': did you mean 'table-2'"):
        laid_out("tables-2", [])
    run = student(tmp_path / "a", LASNN, 0.5)
    (tmp_path / "a" / "metrics.csv").write_text("epoch,validation_accuracy\n1,much\n")
    with pytest.raises(InputError, match=r"metrics\.csv is damaged"):
        laid_out("layer-wise", [run])


def test_repetitions_share_their_teacher_s_recipe_and_not_its_seed(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        teacher = ann(tmp_path / f"t{seed}", 0.9, seed)
        runs.append(student(tmp_path / f"s{seed}", LASNN, 0.5 + 0.02 * seed, seed, teacher=teacher))
    other = ann(tmp_path / "other", 0.9, network="vgg9")
    runs.append(student(tmp_path / "s2", LASNN, 0.6, 2, teacher=other))
    rows = laid_out("plain", runs).rows
    assert [row[1] for row in rows] == ["0, 1", "2"]
    assert [row[0] for row in rows] == [f"x vgg5, bptt, threshold-balancing ({name})" for name in ("s0", "s2")]


def test_a_teacher_that_was_moved_together_with_its_student_is_found_beside_it(tmp_path: Path) -> None:
    ann(tmp_path / "teacher", 0.9, network="vgg9", start="gone/teacher")
    run = student(tmp_path / "a", LASNN, 0.5, teacher="gone/teacher")
    assert laid_out("table-4", [run]).header[-1] == "vgg9 (90.00)"


def test_lasnn_on_normalised_maps_has_a_column_of_its_own(tmp_path: Path) -> None:
    runs = [student(tmp_path / name, LASNN, 0.5) for name in ("printed", "normalised")]
    run = Run(Path(runs[1]))
    recipe = run.read_yaml("recipe.yaml")
    recipe["objectives"][1]["options"] = {"normalise": True}
    run.write_yaml("recipe.yaml", recipe)
    kinds = ("LaSNN", "LaSNN (normalised maps)")
    assert laid_out("table-3", runs).header[4:] == kinds
    assert [row[1] for row in laid_out("table-1", runs).rows] == list(kinds)
    assert [row[3] for row in laid_out("attention", runs).rows] == ["activation", "activation, normalised"]


def test_markdown_aligns_words_left_and_figures_right(tmp_path: Path) -> None:
    text = laid_out("table-3", [student(tmp_path / "a", LASNN, 0.6)]).markdown().splitlines()
    assert text[1] == "| --- | --- | --- | ---: | ---: |"
    assert text[2] == "| cifar10 | vgg5 | T = 100, poisson, bptt |  | 60.00 |"


def test_every_layout_is_comma_separated_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = student(tmp_path / "a", LASNN, 0.6)
    assert main(["compare", folder, "--layout", "table-3", "--csv"]) == 0
    assert list(csv.reader(capsys.readouterr().out.splitlines()))[1] == [
        *("cifar10", "vgg5", "T = 100, poisson, bptt", "", "60.00")
    ]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("cifar10", "cifar10"),
        ("parquet:x/hub/", "hub"),
        ("images-events:cifar10", "images-events:cifar10"),
        ("images-events:parquet:x/hub", "images-events:hub"),
    ],
)
def test_events_of_images_are_other_data_than_the_images(data: str, shown: str) -> None:
    runs: Any = (SimpleNamespace(recipe={"data": data}),)
    assert Measured(runs, "labels", "labels").data == shown
