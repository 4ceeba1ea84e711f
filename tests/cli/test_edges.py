"""The edges of options and of files: one line and status 2, whatever the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spikestill.cli import main
from spikestill.recipes import AnnRecipe, DistillRecipe, load
from spikestill.runs import Run
from spikestill.types import InputError
from spikestill.values import require_shallow, unusable_values

DEEP = "[" * 3000 + "]" * 3000
LONG = "n" * 5000

OPTIONS = {
    "a seed of 65 bits": [f"--seed={2**64}"],
    "a seed of many digits": ["--seed=" + "9" * 5000],
    "a split seed": [f"--split_seed=-{2**70}"],
    "a clip that is no number": ["--clip-gradient=nan"],
    "an endless clip": ["--clip-gradient=inf"],
    "a learning rate": ["--optimiser.lr=nan"],
    "an endless learning rate": ["--optimiser.lr=.inf"],
    "weight decay": ["--optimiser.weight_decay=nan"],
    "a warm-up": ["--schedule.warmup=nan"],
    "minutes": ["--checkpoint_minutes=inf"],
    "validation": ["--validation=nan"],
    "images": ["--limit_train=inf"],
    "a width": [f"--width={10**300}"],
    "a width as a float": ["--width=1e300"],
    "a size": [f"--image-size={10**300}"],
    "epochs": [f"--epochs={10**300}"],
    "an option of the model": ["--model_options={dropout: .nan}"],
    "a large option of the model": [f"--model_options={{dropout: {10**400}}}"],
    "deep options": [f"--model_options={DEEP}"],
    "a long model": [f"--model={LONG}"],
    "a long folder": [f"--data=folder:{LONG}"],
    "a long data folder": ["--data=tiny-imagenet", f"--data-dir=/tmp/{LONG}"],
    "a long name": ["--model=vgg5", "--width=0.125", f"--out={LONG}"],
    "nobody's home": ["--data=folder:~nobody-of-this-name/images"],
    "nobody's data": ["--data=cifar10", "--data-dir=~nobody-of-this-name"],
}


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    status = main(words)
    said = capsys.readouterr().err
    assert status == 2, said
    assert said.startswith("spikestill: ")
    assert said.count("\n") == 1
    assert len(said) < 4200
    return said


@pytest.mark.parametrize("words", OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_training(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = [] if any(word.startswith("--out") for word in words) else [f"--out={tmp_path / 'run'}"]
    one_line(capsys, "train", "ann", "--logger=none", "--device=cpu", *place, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--neuron.leak=nan"],
        ["--neuron.threshold=inf"],
        ["--neuron.surrogate.options={alpha: .nan}"],
        [f"--timesteps={10**300}"],
        ["--timesteps=1000001"],
        ["--objectives=[{name: cross-entropy, weight: .inf}]"],
        ["--objectives=[{name: cross-entropy, options: {label_smoothing: .nan}}]"],
        ["--encoder.options={scale: .inf}"],
        [f"--conversion.images={10**300}"],
        [f"--stages.teacher={DEEP}"],
        ["--stages.teacher={width: .nan}"],
    ],
)
def test_options_of_a_student(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one_line(capsys, "distill", "labels-only", *words)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", LONG],
        ["verify", LONG],
        ["export", LONG, "--to=a.nir"],
        ["convert", LONG],
        ["report", LONG],
        ["compare", LONG],
        ["compare", f"{LONG}.yaml"],
        ["train", f"{LONG}.yaml"],
        ["check", LONG],
        ["check", "vgg5", "--width=1e300"],
        ["check", "vgg5", "--width=nan"],
        ["check", "vgg5", f"--num-classes={10**300}"],
        ["check", "vgg5", f"--input-shape=3,{10**30},32"],
        ["evaluate", "run", f"--timesteps={10**300}"],
        ["evaluate", "run", "--timesteps=" + "9" * 5000],
        ["export", "run", "--to=a.nir", f"--images={10**30}"],
        ["export", "run", f"--to={LONG}.nir"],
        ["list", LONG],
        [LONG],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_other_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one_line(capsys, *words)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_is_no_file_is_not_opened(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    def make(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            with socket.socket(socket.AF_UNIX) as opened:
                opened.bind(str(path))

    if kind == "socket" and len(str(tmp_path)) > 60:
        pytest.skip("a socket's path must be short")
    make(tmp_path / "m.yaml")
    for words in (["train", str(tmp_path / "m.yaml")], ["compare", str(tmp_path / "m.yaml")]):
        assert "it is no file, but a pipe, a socket or a device" in one_line(capsys, *words)
    for name in ("recipe.yaml", "result.json", "student.json", "student.safetensors", "analysis.json"):
        run = tmp_path / f"r{len(name)}"
        make(run / name)
        with pytest.raises(InputError, match="it is no file, but a pipe"):
            Run(run).read_yaml(name) if name.endswith("yaml") else Run(run).read_json(name)


def test_files_that_are_nested_deeply(tmp_path: Path) -> None:
    for depth in (100, 900, 100_000):
        run = Run(tmp_path / str(depth))
        text = '{"a": ' * depth + "1" + "}" * depth
        run.write_text("result.json", text)
        run.write_text("recipe.yaml", text if depth < 1000 else "[" * depth)
        for read, name in ((run.read_json, "result.json"), (run.read_yaml, "recipe.yaml")):
            with pytest.raises(InputError, match="is damaged"):
                read(name)
        with pytest.raises(InputError, match="is not valid YAML"):
            load(AnnRecipe, run.folder / "recipe.yaml")


def test_nesting_is_counted() -> None:
    value: object = 1
    for _ in range(60):
        value = {"a": [value]} if _ % 2 else [value]
    with pytest.raises(ValueError, match="nested more than 64"):
        require_shallow(value)
    assert require_shallow({"a": [1, {"b": ()}]}) == {"a": [1, {"b": ()}]}
    assert require_shallow("[[[") == "[[["


def test_values_that_no_option_can_have() -> None:
    fields = {"a": float("nan"), "b": [1, {"c": 2**63}], "d": "x\0y", "e": "y" * 70_000, "f": True, "g": -(10**5000)}
    assert list(unusable_values(fields)) == [
        "a must be a finite number, not nan",
        "b[1].c must lie between -2^63 and 2^63, not 9223372036854775808",
        "d holds a NUL character",
        "e has 70,000 characters, more than 65,536",
        f"g must lie between -2^63 and 2^63, not one of {(10**5000).bit_length():,} bits",
    ]
    with pytest.raises(InputError, match="recipe 'x': out holds a NUL character"):
        DistillRecipe(method="x", out="a\0b")
