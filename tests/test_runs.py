from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from spikestill.files import write_atomically
from spikestill.runs import Run, environment, read_weights, write_weights
from spikestill.types import InputError


def finished_run(folder: Path) -> Run:
    run = Run(folder)
    run.write_yaml("recipe.yaml", {"method": "ann"})
    run.write_network("model", {"weight": torch.arange(6.0).reshape(2, 3)}, {"model": "vgg5"})
    run.write_json("result.json", {"test_accuracy": 0.5})
    return run


def test_an_absent_and_an_empty_folder_are_free(tmp_path: Path) -> None:
    assert Run.refuse_used(tmp_path).folder == tmp_path
    assert not Run.refuse_used(tmp_path / "new").folder.exists()


def test_a_finished_run_is_refused_unless_permitted(tmp_path: Path) -> None:
    finished_run(tmp_path)
    with pytest.raises(InputError, match=r"holds a finished run: .*--resume.*--overwrite.*another --out"):
        Run.refuse_used(tmp_path)
    assert Run.refuse_used(tmp_path, resume=True).finished
    assert Run.refuse_used(tmp_path, overwrite=True).finished


def test_an_unfinished_run_is_refused_too(tmp_path: Path) -> None:
    Run(tmp_path).write_yaml("recipe.yaml", {"method": "ann"})
    with pytest.raises(InputError, match="holds an unfinished run"):
        Run.refuse_used(tmp_path)


def test_a_folder_with_other_files_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(InputError, match="neither empty nor a run folder"):
        Run.refuse_used(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        Run.refuse_used(tmp_path / "thesis.tex")


def test_clear_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (run.checkpoints).mkdir()
    (run.checkpoints / "last.ckpt").write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    run.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_open_wants_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        Run.open(tmp_path)
    Run(tmp_path).write_yaml("recipe.yaml", {})
    with pytest.raises(InputError, match="no weights yet"):
        Run.open(tmp_path)
    assert Run.open(finished_run(tmp_path).folder).kind == "model"


def test_weights_keep_every_bit_and_lose_their_memory_format(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    tied = {"a": weight, "b": weight, "count": torch.tensor(3), "part": torch.randn(4, 4)[:, :2]}
    write_weights(tmp_path / "w.safetensors", tied)
    read = read_weights(tmp_path / "w.safetensors")
    assert read.keys() == tied.keys()
    assert all(torch.equal(read[name], tied[name]) for name in tied)
    assert read["a"].is_contiguous()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(InputError, match=r"cannot read the weights .*model\.safetensors"):
        run.read_weights()
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(InputError, match=r"model\.json is damaged"):
        run.read_json("model.json")
    (tmp_path / "recipe.yaml").write_text("- a list")
    with pytest.raises(InputError, match="a mapping was expected"):
        run.read_yaml("recipe.yaml")
    with pytest.raises(InputError, match=r"cannot read .*metrics\.csv"):
        run.read_table("metrics.csv")


def test_yaml_is_read_safely(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("method: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match="damaged"):
        Run(tmp_path).read_yaml("recipe.yaml")


def test_tables_round_trip(tmp_path: Path) -> None:
    Run(tmp_path).write_table("metrics.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert Run(tmp_path).read_table("metrics.csv") == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": "0.25"}]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_refusing_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run = finished_run(tmp_path)
    before = (tmp_path / "result.json").read_text()

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=rf"cannot write .*result\.json: {os.strerror(code)}; .*--out") as caught:
        run.write_json("result.json", {"test_accuracy": 1.0})
    assert "\n" not in str(caught.value)
    assert (tmp_path / "result.json").read_text() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "result.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_says_what_was_used() -> None:
    found = environment()
    assert found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"]
    assert found["threads"] == torch.get_num_threads()
    assert {"python", "commit", "platform", "cores", "accelerators"} <= found.keys()


def test_the_environment_names_the_program_without_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/private/spikestill", "train", "ann"])
    assert environment()["command"] == ["spikestill", "train", "ann"]


def test_a_fingerprint_is_that_of_the_weights_wherever_they_lie(tmp_path: Path) -> None:
    one, two = finished_run(tmp_path / "one"), finished_run(tmp_path / "two")
    assert one.fingerprint is not None
    assert one.fingerprint == two.fingerprint
    two.write_network("model", {"weight": torch.zeros(2, 3)}, {"model": "vgg5"})
    assert one.fingerprint != two.fingerprint
    assert Run(tmp_path / "absent").fingerprint is None


def test_a_folder_is_held_by_one_alone_and_not_left_behind_empty(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    heard: list[str] = []

    def second() -> None:
        with run.held(wait=False) as free:
            heard.append("free" if free else "held")
        with run.held(wait=True) as free:
            assert free
            heard.append("second")

    with run.held(wait=False) as free:
        assert free
        other = threading.Thread(target=second)
        other.start()
        while not heard:
            time.sleep(0.01)
        run.write_yaml("recipe.yaml", {"method": "ann"})
        heard.append("first")
    other.join()
    assert heard == ["held", "first", "second"]
    with Run(tmp_path / "empty").held(wait=True):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()
