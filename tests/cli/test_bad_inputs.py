"""Whatever a user can get wrong is one line on standard error and exit status 2, and leaves no run behind."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from spikestill.cli import main
from spikestill.recipes import NetworkDescription
from spikestill.runs import Run

QUICK = ["--width=0.25", "--limit-train=96", "--epochs=1", "--batch-size=32", "--device=cpu"]


class Untraceable(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10].relu() if images.sum() > 0 else images.flatten(1)[:, :10]


class Smooth(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 10), nn.SiLU(), nn.LayerNorm(10))


def untraceable() -> nn.Module:
    return Untraceable()


def smooth() -> nn.Module:
    return Smooth()


def picture(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)


def empty_class(folder: Path) -> list[str]:
    for part in ("train", "test"):
        picture(folder / part / "cat" / "1.png")
        (folder / part / "dog").mkdir(parents=True)
    return ["train", "ann", f"--data=folder:{folder}"]


def corrupt_image(folder: Path) -> list[str]:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for index in range(3):
                picture(folder / part / name / f"{index}.png")
    (folder / "train" / "dog" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return ["train", "ann", f"--data=folder:{folder}"]


def parquet(folder: Path, labels: list[int]) -> list[str]:
    import pyarrow
    from pyarrow import parquet as files

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    images = [{"bytes": buffer.getvalue(), "path": None}] * len(labels)
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        files.write_table(pyarrow.table({"img": images, "label": labels}), folder / f"{part}.parquet")
    return ["train", "ann", f"--data=parquet:{folder}"]


def negative_label(folder: Path) -> list[str]:
    return parquet(folder, [0, 1, -1, 0, 1, 1])


def corrupt_parquet(folder: Path) -> list[str]:
    words = parquet(folder, [0, 1])
    (folder / "train.parquet").write_bytes(b"PAR1 and no more")
    return words


def teacher_run(folder: Path, classes: int = 10, channels: int = 1) -> Run:
    description = NetworkDescription(
        model="vgg5",
        width=0.25,
        num_classes=classes,
        input_shape=(channels, 8, 8),
        mean=(0.3,) * channels,
        std=(0.4,) * channels,
        class_names=tuple(map(str, range(classes))),
    )
    run = Run(folder / "teacher")
    run.write_yaml("recipe.yaml", {"method": "ann"})
    run.write_network("model", description.build().state_dict(), description.as_json())
    return run


def distill(teacher: Run) -> list[str]:
    return ["distill", "label-distillation", "--data=digits", "--student=vgg5", f"--teacher={teacher.folder}"]


def other_classes(folder: Path) -> list[str]:
    return distill(teacher_run(folder, classes=7))


def other_channels(folder: Path) -> list[str]:
    return distill(teacher_run(folder, channels=3))


def corrupt_teacher(folder: Path) -> list[str]:
    run = teacher_run(folder)
    (run.folder / "model.safetensors").write_bytes(b"broken")
    return distill(run)


def teacher_that_is_a_pickle(folder: Path) -> list[str]:
    run = teacher_run(folder)
    torch.save(nn.Linear(2, 2).state_dict(), run.folder / "model.safetensors")
    return distill(run)


def teacher_file_that_executes(folder: Path) -> list[str]:
    torch.save(nn.Linear(2, 2), folder / "whole.pth")
    words = ["--data=digits", "--student=vgg5", "--teacher=vgg5", f"--teacher-weights={folder / 'whole.pth'}"]
    return ["distill", "label-distillation", *words]


def unfinished_teacher(folder: Path) -> list[str]:
    run = Run(folder / "teacher")
    run.write_yaml("recipe.yaml", {"method": "ann"})
    return distill(run)


def corrupt_recipe(folder: Path) -> list[str]:
    (folder / "mine.yaml").write_text("epochs: [1, ")
    return ["train", str(folder / "mine.yaml")]


def finished_run(folder: Path) -> list[str]:
    run = teacher_run(folder)
    run.write_json("result.json", {})
    return ["train", "ann", f"--out={run.folder}"]


def someone_elses_folder(folder: Path) -> list[str]:
    (folder / "thesis.tex").write_text("")
    return ["train", "ann", f"--out={folder}"]


def damaged_run(folder: Path) -> list[str]:
    run = teacher_run(folder)
    (run.folder / "model.json").write_text("{")
    return ["evaluate", str(run.folder)]


def unfitting_resume(folder: Path) -> list[str]:
    out = folder / "resumed"
    assert main(["train", "ann", "--data=digits", "--model=vgg5", f"--out={out}", *QUICK]) == 0
    return ["train", "--resume", f"--out={out}", "--seed=5"]


def spiking_run(folder: Path) -> list[str]:
    run = teacher_run(folder)
    (run.folder / "model.json").rename(run.folder / "student.json")
    return ["convert", str(run.folder)]


def unknown_conversion(folder: Path) -> list[str]:
    return ["convert", str(teacher_run(folder).folder), "--method=shifted"]


HERE = __name__

CASES: dict[str, tuple[list[str] | Callable[[Path], list[str]], str]] = {
    "command": (["distil"], "unknown command 'distil': did you mean 'distill'?"),
    "method": (["distill", "--method", "blokwise"], "unknown method 'blokwise': did you mean 'blockwise'?"),
    "recipe and method": (["distill", "rate-bp", "--method=blockwise"], "give one of them"),
    "no recipe": (["distill", "--student=vgg5"], "no recipe: give one of"),
    "option": (["train", "ann", "--batchsize", "3"], "unknown option '--batchsize': did you mean '--batch-size'?"),
    "nested option": (["train", "ann", "--optimiser.lrr=1"], "did you mean '--optimiser.lr'?"),
    "option without value": (["train", "ann", "--epochs"], "expected one argument"),
    "--out without value": (["train", "ann", "--out"], "--out needs a value"),
    "mistyped value": (["train", "ann", "--epochs=three"], "Expected a <class 'int'>"),
    "model": (["train", "ann", "--model=resnet-20"], "unknown model 'resnet-20': did you mean 'resnet20'?"),
    "torchvision model": (["check", "torchvision:resnet19"], "torchvision:resnet1"),
    "own model": (["check", "python:no.such.module:function"], "cannot import 'no.such.module'"),
    "data": (["train", "ann", "--data=cifar-10"], "unknown data set 'cifar-10': did you mean 'cifar10'?"),
    "missing data folder": (["train", "ann", "--data=folder:absent"], "absent"),
    "missing parquet": (["train", "ann", "--data=parquet:absent"], "absent"),
    "missing cifar": (["train", "ann", "--data=cifar10", "--data-dir=absent"], "absent"),
    "missing recipe": (["train", "absent.yaml"], "cannot read the recipe absent.yaml: No such file"),
    "corrupt recipe": (corrupt_recipe, "not valid YAML"),
    "empty class folder": (empty_class, "dog"),
    "corrupt image": (corrupt_image, "1.png"),
    "corrupt parquet": (corrupt_parquet, "train.parquet"),
    "label outside range": (negative_label, "-1"),
    "validation of nothing": (["train", "ann", "--data=digits", "--validation=0"], "validation must be positive"),
    "epochs": (["train", "ann", "--epochs=0"], "epochs must be at least 1"),
    "no time step": (["distill", "labels-only", "--timesteps=0"], "timesteps must be at least 1, not 0"),
    "no time step to evaluate": (["evaluate", "absent", "--timesteps=0,1"], "--timesteps must be whole numbers"),
    "no teacher": (["distill", "blockwise"], "blockwise need a teacher: give --teacher"),
    "useless teacher": (["distill", "rate-bp", "--teacher=x"], "no objective and no initialisation uses it"),
    "missing teacher": (["distill", "blockwise", "--teacher=absent"], "the teacher 'absent' is no run folder"),
    "unfinished teacher": (unfinished_teacher, "no weights yet"),
    "corrupt teacher": (corrupt_teacher, "cannot read the weights"),
    "pickled teacher": (teacher_that_is_a_pickle, "cannot read the weights"),
    "a file that executes": (teacher_file_that_executes, "wants to execute torch.nn.modules.linear.Linear"),
    "teacher of other classes": (other_classes, "knows 7 classes, the data has 10"),
    "teacher of other channels": (other_channels, "takes images (3, 8, 8) (C, H, W), the data has (1, 8, 8)"),
    "objective": (["distill", "rate-bp", "--objectives=[{name: logit}]"], "did you mean 'logits'?"),
    "objective's option": (
        [
            "distill",
            "rate-bp",
            "--data=digits",
            "--student=vgg5",
            "--objectives=[{name: cross-entropy, options: {x: 1}}]",
        ],
        "cross-entropy",
    ),
    "neuron": (["distill", "rate-bp", "--neuron.leak=2"], "neuron.leak must lie in (0, 1], not 2.0"),
    "untraceable model": (["check", f"python:{HERE}:untraceable"], "cannot trace"),
    "untraceable student": (
        ["distill", "rate-bp", "--data=digits", f"--student=python:{HERE}:untraceable", "--width=1.0"],
        "cannot trace",
    ),
    "layers that cannot spike": (["check", f"python:{HERE}:smooth"], "3 operations are refused, listed above"),
    "finished run": (finished_run, "holds a finished run: continue it with --resume"),
    "someone else's folder": (someone_elses_folder, "neither empty nor a run folder"),
    "other recipe on resume": (unfitting_resume, "other values of seed"),
    "not a run": (["evaluate", "absent"], "absent is no run folder"),
    "damaged run": (damaged_run, "model.json is damaged"),
    "device": (["train", "ann", "--data=digits", "--device=cuda:99"], "there is no device 'cuda:99' here"),
    "kind of names": (["list", "model"], "unknown list 'model': did you mean 'models'?"),
    "input shape": (["check", "vgg5", "--input-shape=3,32"], "--input-shape must be channels,height,width"),
    "missing argument": (["check"], "model"),
    "nothing to convert": (
        ["convert", "--timesteps=4"],
        "convert needs a run folder, a file of weights or a model, which comes first",
    ),
    "no file to convert": (["convert", "absent.pt"], "there is no file of weights at absent.pt"),
    "a model without weights": (
        ["convert", "resnet18", "--data=digits"],
        "model 'resnet18' has no published weights: name a file of them, as in spikestill convert FILE",
    ),
    "a model without data": (
        ["convert", "timm:resnet18"],
        "timm:resnet18 does not say on which data: name them with --data (see `spikestill list datasets`)",
    ),
    "a model and a model": (
        ["convert", "timm:resnet18", "--model=vgg5"],
        "timm:resnet18 is a model: --model is for a file of weights",
    ),
    "mean without std": (["train", "ann", "--mean=0.5"], "mean and std belong together: give both, or neither"),
    "mean of 3 channels": (
        ["train", "ann", "--data=digits", "--mean=0.5,0.4,0.3", "--std=1,1,1"],
        "mean and std have 3 numbers, the images of digits 1 channel: give one a channel",
    ),
    "mean of another scale": (
        ["train", "ann", "--data=digits", "--mean=127.5", "--std=255"],
        "mean must lie in [0, 1], the scale of pixels divided by 255, not 127.5",
    ),
    "no deviation": (["train", "ann", "--data=digits", "--mean=0.5", "--std=0"], "std must be positive, not 0"),
    "mean of signed pixels": (
        ["train", "ann", "--data=digits", "--mean=0.5", "--std=0.5", "--pixel-scale=signed"],
        "mean and std are not for pixels in [-1, 1] (pixel_scale signed, encoder poisson): leave them out",
    ),
    "no run to convert": (
        ["convert", "absent"],
        "'absent' is no run folder, no file of weights (.safetensors, .pt, .pth, .ckpt or .bin) and no model (timm:",
    ),
    "a spiking run to convert": (spiking_run, "holds a spiking network already: give the run of an ANN"),
    "method of conversion": (unknown_conversion, "initialise"),
    "a useless source": (["distill", "rate-bp", "--source=x"], "a source is given, but initialise: random converts"),
    "a stage's option": (
        ["distill", "hybrid", "--stages.source={epoch: 3}"],
        "unknown option 'stages.source.epoch': did you mean 'stages.source.epochs'?",
    ),
    "too few images": (["distill", "hybrid", "--conversion.images=0"], "conversion.images must be at least 1, not 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line_and_status_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = CASES[case]
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    if callable(words):
        words = words(tmp_path)
    elif words[0] in ("train", "distill") and "--width=1.0" not in words and "--out" not in words:
        words = [*words, *[word for word in QUICK if word.split("=")[0] not in " ".join(words)]]
    capsys.readouterr()
    status = main(words)
    # That a download is tried is said on a line of its own.
    complaint = "".join(line for line in capsys.readouterr().err.splitlines(True) if "downloading" not in line[:60])
    assert status == 2
    assert expected in complaint
    assert complaint.startswith("spikestill: ")
    assert complaint.count("\n") == 1
    assert "Traceback" not in complaint
    assert not (place / "runs").exists()


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikestill import graph

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(graph, "check", broken)
    with pytest.raises(ZeroDivisionError):
        main(["check", "vgg5"])
