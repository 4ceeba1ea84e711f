"""What the fuzzer found in readers of a run's own files: each is one line now."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from spikestill.data.recordings import _checked, _numpy_events
from spikestill.recipes import NetworkDescription
from spikestill.report.finished import Finished
from spikestill.report.layouts import laid_out
from spikestill.report.page import rendered
from spikestill.runs import Run
from spikestill.train.callbacks import AtomicCheckpoints
from spikestill.train.verifying import _best, verify
from spikestill.types import InputError
from tests.report import folders


def altered(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> str:
    path = folder / name
    fields = yaml.safe_load(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields) if path.suffix == ".json" else yaml.safe_dump(fields))
    return str(folder)


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "test_accuracy: 'x' is no float": ("result.json", lambda said: said.update(test_accuracy="x")),
    "test_accuracy: inf is no float": ("result.json", lambda said: said.update(test_accuracy=float("inf"))),
    "test_rates: None is no mapping": ("result.json", lambda said: said.update(test_rates=None)),
    "'99999999999.* is no time step": (
        "result.json",
        lambda said: said.update(test_accuracy_by_timestep={"9" * 5000: 0.5}),
    ),
    "it has no network": ("result.json", lambda said: said.pop("network")),
    "missing 1 required positional argument": (
        "result.json",
        lambda said: said["test_operations_by_layer"]["layer1.conv1"].pop("ann_multiply_accumulates"),
    ),
    "it has no gradient": ("recipe.yaml", lambda said: said.pop("gradient")),
    "timesteps: 'four' is no int": ("recipe.yaml", lambda said: said.update(timesteps="four")),
    "it holds more than texts, numbers, lists": ("recipe.yaml", lambda said: said.update(model_options={1: 2, "a": 3})),
    "it holds more than texts, numbers": (
        "recipe.yaml",
        lambda said: said.update(model_options={"born": datetime.date(2020, 1, 1)}),
    ),
    "_Term has no field": ("recipe.yaml", lambda said: said.update(objectives=[{"nam": "logits"}])),
}


@pytest.mark.parametrize("expected", CHANGES)
def test_fields_of_a_run_that_are_something_else_are_named(expected: str, tmp_path: Path) -> None:
    folder = Path(folders.student(tmp_path / "run", recorded=folders.evidence()))
    name, change = CHANGES[expected]
    damaged = altered(folder, name, change)
    for read in (lambda: rendered([damaged]), lambda: laid_out("plain", [damaged])):
        with pytest.raises(InputError, match=f"{name} is damaged: .*{expected}"):
            read()


def test_a_teacher_that_can_be_no_file_is_not_there(tmp_path: Path) -> None:
    folder = Path(folders.student(tmp_path / "run", recorded=folders.evidence()))
    damaged = altered(folder, "recipe.yaml", lambda said: said.update(teacher="n" * 5000))
    assert Finished.open(damaged).other("teacher") is None


def test_runs_that_name_each_other_as_teacher_are_shown(tmp_path: Path) -> None:
    named = [folders.student(tmp_path / name, recorded=folders.evidence()) for name in ("one", "other")]
    for folder, teacher in zip(named, reversed(named), strict=True):
        altered(Path(folder), "recipe.yaml", lambda said, teacher=teacher: said.update(teacher=str(teacher)))
    assert isinstance(Finished.open(named[0]).identity, str)


def test_a_table_of_a_result_that_lacks_a_figure_is_refused(tmp_path: Path) -> None:
    folder = Path(folders.student(tmp_path / "run"))
    with pytest.raises(InputError, match="result.json in .* is damaged: it lacks 'training_seconds'"):
        laid_out("plain", [altered(folder, "result.json", lambda said: said.pop("training_seconds"))])


@pytest.mark.parametrize("change", [{"width": "wide"}, {"num_classes": 2.5}, {"spiking": 3.0}, {"mean": "0"}, {"x": 1}])
def test_a_description_of_other_types_is_refused(change: dict[str, Any]) -> None:
    description = NetworkDescription(
        model="vgg5", num_classes=3, input_shape=(1, 8, 8), mean=(0.5,), std=(0.5,), class_names=("a", "b", "c")
    )
    fields = json.loads(json.dumps(description.as_json()))
    assert NetworkDescription.from_json(fields) == description
    with pytest.raises(InputError, match="the description of the network is damaged"):
        NetworkDescription.from_json(fields | change)


@pytest.mark.parametrize("damage", ["flipped", "cut", "absent"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    file, checkpoints = tmp_path / "last.ckpt", AtomicCheckpoints()
    checkpoints.save_checkpoint({"weight": torch.arange(1000.0)}, file)
    assert torch.equal(checkpoints.load_checkpoint(file)["weight"], torch.arange(1000.0))
    content = bytearray(file.read_bytes())
    place = content.index(np.arange(1000, dtype=np.float32)[500:510].tobytes())
    content[place] ^= 1
    file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    if damage == "absent":
        file.unlink()
    with pytest.raises(InputError, match="cannot resume from .*last.ckpt: damaged"):
        checkpoints.load_checkpoint(file)


def test_deep_nesting_and_bytes_that_are_no_text_in_a_run_are_damage(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for content in (b'{"a":' * 100_000, b"\xff\xfe", b"a: 2001-99-99"):
        for name, read in (("recipe.yaml", run.read_yaml), ("result.json", run.read_json)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=f"{name} is damaged"):
                read(name)
    (tmp_path / "metrics.csv").write_bytes(b"a,b\n\xff,1\n")
    with pytest.raises(InputError, match=r"metrics.csv is damaged"):
        run.read_table("metrics.csv")


@pytest.mark.parametrize("time", [1e30, float("nan")])
def test_events_at_impossible_times_are_refused(time: float, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.array([[1.0, 1.0, 1.0, time]]))
    with pytest.raises(InputError, match="not finite or far too large"):
        _numpy_events(tmp_path / "0.npy")
    np.save(tmp_path / "1.npy", np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1e14]]))
    with pytest.raises(InputError, match="more than a year apart"):
        _checked(tmp_path / "1.npy", _numpy_events(tmp_path / "1.npy"), 128)


def test_a_header_of_an_array_that_is_no_text_of_python_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((3, 4)))
    content = (tmp_path / "0.npy").read_bytes()
    (tmp_path / "0.npy").write_bytes(content.replace(b"(3, 4), }", b"(3, (((("))
    with pytest.raises(InputError, match="is not a readable array"):
        _numpy_events(tmp_path / "0.npy")


@pytest.mark.parametrize(
    "table", ["epoch,loss\n1,0.5\n", "epoch,validation_accuracy\n", "epoch,validation_accuracy\n1\n"]
)
def test_verify_refuses_a_table_that_is_none(table: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_text("metrics.csv", table)
    with pytest.raises(InputError, match=r"metrics.csv is damaged"):
        _best(run)


def test_verify_refuses_a_result_of_other_types(tmp_path: Path) -> None:
    folder = Path(folders.student(tmp_path / "run"))
    with pytest.raises(InputError, match="result.json is damaged: parameters: 'many' is no int"):
        verify(altered(folder, "result.json", lambda said: said.update(parameters="many")))
