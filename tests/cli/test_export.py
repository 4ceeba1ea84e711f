from __future__ import annotations

from pathlib import Path

import pytest

from spikestill import export
from spikestill.cli import main
from spikestill.graph import SpikingNetwork

QUICK = ["--data=digits", "--width=0.25", "--limit-train=96", "--epochs=1", "--batch-size=32", "--device=cpu"]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a student with a hard reset."""
    folder = tmp_path_factory.mktemp("runs") / "student"
    words = ["distill", "labels-only", "--student=vgg5", "--timesteps=2", "--neuron.reset=hard", *QUICK]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


def test_a_nir_file_is_written_read_back_and_replayed(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "student.nir"
    assert main(["export", str(student), "--to", str(path), "--images", "3", "--hard-reset"]) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first.startswith(f"{path}: 0 of ")
    assert first.endswith("spikes differ (3 images, 2 time steps) between the file, read back, and the folded network")
    assert second.startswith("folding: 0 spikes differ in double precision, 0 in single")
    assert "warn" not in said.err
    assert export.from_nir(path).timesteps == 2


def test_an_onnx_file_is_written_and_run(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "student.onnx"
    assert main(["export", str(student), "--to", str(path), "--replay", "noise", "--images=5"]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 0 of 5 predictions differ")


def test_a_file_that_computes_something_else_fails(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def misread(path: Path) -> SpikingNetwork:
        network = read(path)
        next(iter(network.neurons()))[1].set_threshold(0.01)
        return network

    read = export.from_nir
    monkeypatch.setattr(export, "from_nir", misread)
    path = tmp_path / "student.nir"
    with pytest.raises(SystemExit, match="1"):
        main(["export", str(student), "--to", str(path)])
    said = capsys.readouterr()
    assert not said.out.startswith(f"{path}: 0 of ")
    assert said.err.splitlines()[-1] == f"spikestill: {path} does not compute what the network does: do not use it"


def test_a_soft_reset_is_warned_of_or_refused_with_the_command_that_mends_it(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = tmp_path / "soft"
    words = ["distill", "labels-only", "--student=vgg5", "--timesteps=2", *QUICK, "--out", str(soft)]
    assert main(words) == 0
    assert main(["export", str(soft), "--to", str(tmp_path / "soft.nir")]) == 0
    capsys.readouterr()
    assert main(["export", str(soft), "--to", str(tmp_path / "hard.nir"), "--hard-reset"]) == 2
    said = capsys.readouterr().err
    assert f"{soft} has a soft reset" in said
    assert not (tmp_path / "hard.nir").exists()
    command = said.split(" by spikestill ")[1].split()
    assert main(command) == 0
    assert main(["export", command[-1], "--to", str(tmp_path / "hard.nir"), "--hard-reset"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "student.pt"], "--to must name a file that ends in .nir or .onnx, not 'student.pt'"),
        ([], "--to must name a file that ends in .nir or .onnx, not ''"),
        (["--to", "student.nir", "--images", "0"], "--images must be at least 1, not 0"),
        (["--to", "student.nir", "--imags", "3"], "did you mean"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], said: str, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(student), *words]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_an_ann_and_a_missing_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ann", "--model=vgg5", *QUICK, "--out", str(tmp_path / "ann")]) == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path / "ann"), "--to", str(tmp_path / "ann.nir")]) == 2
    assert "holds an ANN: only spiking networks are exported" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), "--to", str(tmp_path / "none.nir")]) == 2
    assert "is no run folder" in capsys.readouterr().err
