"""``spikestill convert`` of a run, a file of weights, and a model; and what it says of a conversion that loses much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spikestill import models
from spikestill.cli import main
from spikestill.data import load
from spikestill.recipes import NetworkDescription
from spikestill.runs import Run

HERE = __name__
DATA = ["--data=digits", "--device=cpu"]


def fitted(network: nn.Module, size: int, scale: tuple[float, float] | None = None, channels: int = 1) -> nn.Module:
    """A network that a few steps of a loop of one's own have taught the digits."""
    data = load("digits", image_size=size)
    mean, std = scale or (data.mean[0], data.std[0])
    pixels = (data.train.images.float() / 255 - mean) / std  # type: ignore[attr-defined]
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(2):
        for rows in torch.randperm(len(pixels)).split(64):
            loss = nn.functional.cross_entropy(
                network(pixels[rows].expand(-1, channels, -1, -1)), data.train.labels[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


def small(num_classes: int = 10, in_channels: int = 1, pool: bool = False) -> nn.Module:
    pooling = nn.MaxPool2d(2) if pool else nn.AvgPool2d(2)
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), pooling),
        *(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, num_classes)),
    )


def taught(num_classes: int, in_channels: int) -> nn.Module:
    return fitted(small(num_classes, in_channels), 8)


def accuracy(network: nn.Module, scale: tuple[float, float] | None = None) -> float:
    data = load("digits")
    mean, std = scale or (data.mean[0], data.std[0])
    pixels = (data.validation.images.float() / 255 - mean) / std  # type: ignore[attr-defined]
    with torch.no_grad():
        return (network(pixels).argmax(1) == data.validation.labels).double().mean().item()


def test_a_model_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["--initialise=shift", "--timesteps=16", f"--out={out}", *DATA]
    assert main(["convert", f"python:{HERE}:taught", *words]) == 0
    result = Run(out).read_json("result.json")
    (origin,) = result["origins"]
    assert (origin["role"], origin["name"]) == ("source", f"python:{HERE}:taught")
    assert origin["validation_accuracy"] > 0.8
    assert origin["gap"] == pytest.approx(origin["validation_accuracy"] - result["validation_accuracy"])
    shown = capsys.readouterr().out
    points = f"{abs(100 * origin['gap']):.2f} points {'above' if origin['gap'] >= 0 else 'below'} the student"
    assert f"source python:{HERE}:taught: validation {origin['validation_accuracy']:.2%}, {points}" in shown


def test_a_file_with_pixels_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out, scale = tmp_path / "a.pt", tmp_path / "run", (0.0, 1 / 16)
    network = fitted(small(), 8, scale)
    torch.save(network.state_dict(), path)
    words = [f"--model=python:{HERE}:small", "--method=shift", "--timesteps=8", f"--out={out}", *DATA]
    assert main(["convert", str(path), *words, "--mean=0", "--std", "0.0625"]) == 0
    run = Run(out)
    (origin,) = run.read_json("result.json")["origins"]
    assert origin["validation_accuracy"] == accuracy(network, scale) != accuracy(network)
    described = NetworkDescription.of_run(run)
    assert (described.mean, described.std) == ((0.0,), (0.0625,))
    assert (run.read_yaml("recipe.yaml")["mean"], run.read_yaml("recipe.yaml")["std"]) == ([0.0], [0.0625])
    # A measurement afterwards, and a student that learns from the file, have the same scale.
    capsys.readouterr()
    assert main(["evaluate", str(out), "--split=validation", "--timesteps=8", "--trust-code"]) == 0
    assert f"{run.read_json('result.json')['validation_accuracy']:.2%}" in capsys.readouterr().out
    words = [f"--teacher=python:{HERE}:small", f"--teacher-weights={path}", "--student=vgg5", "--width=0.25", *DATA]
    more = ["--limit-train=64", "--epochs=1", "--timesteps=2", "--mean=0", "--std=0.0625", f"--out={tmp_path / 's'}"]
    assert main(["distill", "label-distillation", *words, *more]) == 0
    (teacher,) = Run(tmp_path / "s").read_json("result.json")["origins"]
    assert teacher["validation_accuracy"] == origin["validation_accuracy"]


@pytest.mark.parametrize("missing", ["model", "data"])
def test_a_file_needs_its_model_and_data(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pt"
    torch.save(small().state_dict(), path)
    given = {"model": f"--model=python:{HERE}:small", "data": "--data=digits"}
    assert main(["convert", str(path), *(word for name, word in given.items() if name != missing)]) == 2
    expected = {
        "model": "holds weights alone: name their architecture with --model, as in --model resnet18 or --model "
        "python:PACKAGE.MODULE:FUNCTION",
        "data": "does not say on which data: name them with --data (see `spikestill list datasets`)",
    }
    assert capsys.readouterr().err == f"spikestill: {path} {expected[missing]}\n"


def test_a_run_knows_its_model_and_pixels_of_another_scale_name_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--width=0.25", "--limit-train=96", "--epochs=1", "--batch-size=32", *DATA]
    ann = tmp_path / "ann"
    assert main(["train", "ann", "--model=vgg5", "--pixel-scale=signed", f"--out={ann}", *quick]) == 0
    capsys.readouterr()
    assert main(["convert", str(ann), "--model=vgg5"]) == 2
    assert f"{ann} is a run, which knows its model: --model is for a file of weights" in capsys.readouterr().err
    words = ["convert", str(ann), "--method=shift", "--timesteps=4", f"--out={tmp_path / 'snn'}"]
    assert main(words) == 2
    assert "(standardised): convert it with --mean 0.5 --std 0.5" in capsys.readouterr().err
    assert main([*words, "--mean", "0.5", "--std", "0.5"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_a_resnet18_of_a_loop_of_ones_own_is_one_command(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, options = tmp_path / "resnet18.pt", tmp_path / "run", []
    if kind == "ours":
        network = fitted(models.create("resnet18", in_channels=1, image_size=32, width=0.125), 32)
        options = ["--width=0.125"]
    else:
        network = models.create("torchvision:resnet18", num_classes=10)
        fitted(network, 32, channels=3)
    torch.save(network.state_dict(), path)
    words = ["--model=resnet18", "--image-size=32", "--timesteps=2", "--method=shift", f"--out={out}", *options, *DATA]
    assert main(["convert", str(path), *words]) == 0
    data = load("digits", image_size=32)
    pixels = (data.validation.images.float() / 255 - data.mean[0]) / data.std[0]  # type: ignore[attr-defined]
    with torch.no_grad():
        answers = network(pixels if kind == "ours" else pixels.expand(-1, 3, -1, -1)).argmax(1)
    (origin,) = Run(out).read_json("result.json")["origins"]
    assert origin["validation_accuracy"] == pytest.approx((answers == data.validation.labels).double().mean().item())
    capsys.readouterr()


@pytest.mark.parametrize("pool", [False, True])
def test_a_conversion_that_loses_much_says_what_costs_it(
    pool: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.pt", tmp_path / "run"
    network = fitted(small(pool=pool), 8)
    torch.save(network.state_dict(), path)
    words = [f"--model=python:{HERE}:small", f"--model_options={{pool: {str(pool).lower()}}}", "--timesteps=2"]
    options = ["--method=normalise", "--conversion.options={by: layer, start: rest}", f"--out={out}", *DATA]
    assert main(["convert", str(path), *words, *options]) == 0
    result: dict[str, Any] = Run(out).read_json("result.json")
    first, steps, method, *pooling, last = result["remarks"]
    gap = 100 * result["origins"][0]["gap"]
    assert first == (f"the conversion by normalise at T = 2 is {gap:.1f} points below its ANN on the validation images")
    percent = r"\d+\.\d%"
    assert re.fullmatch(
        rf"the number of time steps costs \d+\.\d points \(of 144 images {percent} at t = 2, {percent} at t = 4, "
        rf"{percent} at t = 8, the ANN {accuracy(network):.1%}\): try --timesteps [48]",
        steps,
    )
    other = r"--initialise shift --conversion\.options '\{percentile: 99\}'"
    assert re.fullmatch(
        rf"the method normalise costs \d+\.\d points \(of 144 images {percent} at t = 2 with {other}, {percent} "
        r"without\): try it",
        method,
    )
    assert len(pooling) == pool
    if pool:
        assert re.match(rf"max pooling (costs|is not what costs it) .*with {other} --max_pool average", pooling[0])
    assert last == (
        f"or train it: spikestill distill blockwise --student python:{HERE}:small --teacher python:{HERE}:small "
        f"--teacher-weights {path} --data digits --timesteps 2"
    )
    capsys.readouterr()


def test_more_steps_than_were_trained_are_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    quick = ["--width=0.25", "--limit-train=96", "--epochs=1", "--timesteps=2", "--student=vgg5", *DATA]
    assert main(["distill", "labels-only", f"--out={out}", *quick]) == 0
    said = f"{out} was trained for 2 time steps: what it answers at t > 2 it has not learned, and it can be worse"
    assert main(["evaluate", str(out), "--timesteps=1,2"]) == 0
    assert said not in caplog.messages
    assert main(["evaluate", str(out), "--timesteps=1,2,4"]) == 0
    assert caplog.messages.count(said) == 1
    capsys.readouterr()
