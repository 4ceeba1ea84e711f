from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spikestill.cli import main
from spikestill.cli.main import COMMANDS
from spikestill.recipes import AnnRecipe, load
from spikestill.runs import Run

QUICK = ["--data=digits", "--width=0.25", "--limit-train=96", "--epochs=1", "--batch-size=32", "--device=cpu"]


def test_without_a_command_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert f"usage: spikestill {command}" in shown
    assert not any(heading in shown for heading in ("Args:", "Raises:"))
    if command in ("train", "distill"):
        for option in (
            "--out",
            "--seed",
            "--epochs",
            "--batch_size",
            "--limit_train",
            "--width",
            "--device",
            "--resume",
        ):
            assert option in shown


def test_the_way_from_teacher_to_evaluated_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ann", "--model=vgg5", "--out", "teacher", *QUICK]) == 0
    assert "run: teacher" in capsys.readouterr().out
    words = [
        "distill",
        "--method",
        "label-distillation",
        "--teacher=teacher",
        "--student=vgg5",
        "--timesteps=2",
        *QUICK,
    ]
    assert main([*words, "--gradient=rate"]) == 0
    run = Run(Path("runs/label-distillation-digits-vgg5-s0"))
    assert run.finished
    shown = capsys.readouterr().out
    assert "t = 2" in shown
    assert "spikes per neuron" in shown
    assert main(["evaluate", str(run.folder), "--timesteps", "1,3"]) == 0
    shown = capsys.readouterr().out
    assert "t = 3" in shown
    assert "t = 2" not in shown


@pytest.mark.parametrize("words", [["train", "ann", "--model=vgg5"], ["distill", "rate-bp", "--student=vgg5"]])
def test_resume_needs_the_folder_alone(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main([*words, "--out", out, *QUICK]) == 0
    first = capsys.readouterr().out
    assert main([words[0], "--resume", "--out", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]


@pytest.mark.parametrize("spelling", ["--print_config", "--print-config"])
def test_print_config_is_a_recipe_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ann", "--optimiser.lr=0.3", "--batch-size", "7", spelling]) == 0
    shown = capsys.readouterr().out
    recipe = load(AnnRecipe, yaml.safe_load(shown))
    assert (recipe.optimiser.lr, recipe.batch_size) == (0.3, 7)
    assert not list(tmp_path.iterdir())


def test_a_recipe_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: mine\nmodel: vgg5\nepochs: 5\noptimiser: {lr: 0.01}\n")
    assert main(["train", str(path), "--epochs=2", "--print_config"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert (resolved["method"], resolved["epochs"], resolved["optimiser"]["lr"]) == ("mine", 2, 0.01)


def test_check_lists_every_activation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "torchvision:resnet18"]) == 0
    assert "17 activations become neurons" in capsys.readouterr().out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    everything = capsys.readouterr().out
    for name in ("blockwise", "resnet20", "digits", "cross-entropy", "poisson", "lif", "torchvision:NAME"):
        assert name in everything
    assert main(["list", "neurons"]) == 0
    assert capsys.readouterr().out.split() == ["if", "lif"]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import spikestill

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == spikestill.__version__


def test_help_and_names_load_no_lightning() -> None:
    code = (
        "import sys; from spikestill.cli import main; main(['list', 'methods']); main(['train', '--print_config']);"
        "assert 'lightning' not in sys.modules and 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.mark.slow
def test_the_demo_trains_an_ann_and_finds_its_spiking_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", f"--out={tmp_path / 'demo'}", "--epochs=4", "--timesteps=2", "--tolerance=100"]) == 0
    shown = capsys.readouterr().out
    for word in ("shift 99 %", "spikes per neuron", "of the ANN's energy", "within the tolerance: nothing is trained"):
        assert word in shown
    assert Run(tmp_path / "demo" / "ann").finished
    student = Run.open(tmp_path / "demo" / "auto" / "conversion")
    assert student.finished
    assert student.kind == "student"
    page = tmp_path / "demo" / "auto" / "report.html"
    assert f"report: {page}" in shown
    assert "2 systems on digits" in page.read_text()
