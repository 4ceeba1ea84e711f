"""Nothing in a file is executed, nothing leaves its folder, and a name on a page stays text."""

from __future__ import annotations

import os
import pickle
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from spikestill import train
from spikestill.cli import main
from spikestill.data import EventFrames
from spikestill.data.recordings import read_dvs_gesture
from spikestill.data.shards import read_shards
from spikestill.data.unreadable import Unreadable
from spikestill.models import create
from spikestill.models.weights import load_weights
from spikestill.recipes import AnnRecipe, NetworkDescription, load
from spikestill.recipes.experiment import load_experiment
from spikestill.report import write_page
from spikestill.runs import Run
from spikestill.train.callbacks import AtomicCheckpoints
from spikestill.trust import consent
from spikestill.types import InputError
from tests.data.trees import write_shard
from tests.report import folders


class Executes:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.canary),)


MARK = "the module was imported"


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module beside the user's own: it says on standard output that it was imported."""
    code = f"""
        from torch import nn
        print("{MARK}")
        def net(num_classes, in_channels, image_size):
            size = image_size // 2
            last = nn.Linear(2 * size * size, num_classes)
            return nn.Sequential(nn.Conv2d(in_channels, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), last)
    """
    (tmp_path / "nets_of_mine.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "python:nets_of_mine:net"
    sys.modules.pop("nets_of_mine", None)


SHORT = ["--data=digits", "--epochs=1", "--limit-train=48", "--batch-size=24", "--logger=none", "--device=cpu"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """The command is refused by one line that shows the name, and the module is not imported."""
    sys.modules.pop("nets_of_mine", None)
    status = main(words)
    said = capsys.readouterr()
    assert status == 2, said
    assert "'python:nets_of_mine:net' is code that a file names" in said.err
    assert said.err.count("\n") == 1
    assert MARK not in said.out
    assert "nets_of_mine" not in sys.modules


@pytest.mark.slow
def test_code_that_a_file_names_needs_consent_in_every_command(
    own_module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ann", f"--model={own_module}", "--out=ann", *SHORT]) == 0  # typed: no more consent is needed
    assert main(["distill", "labels-only", f"--student={own_module}", "--timesteps=2", "--out=snn", *SHORT]) == 0
    capsys.readouterr()
    for run in ("ann", "snn"):
        refused(capsys, "evaluate", run)
        refused(capsys, "verify", run)
    refused(capsys, "export", "snn", "--to=a.nir", "--replay=noise")
    refused(capsys, "convert", "ann", "--timesteps=2")
    refused(capsys, "auto", "ann", "--out=auto", "--budget=1m")
    refused(capsys, "train", "ann/recipe.yaml", "--out=again")
    refused(capsys, "distill", "label-distillation", "--student=vgg5", "--teacher=ann", "--out=guided", *SHORT)
    entry = f'runs: {{a: {{recipe: ann, model: "{own_module}", epochs: 1, limit_train: 48, logger: none}}}}\n'
    (tmp_path / "experiment.yaml").write_text(entry)
    refused(capsys, "compare", "experiment.yaml")
    for words in (["evaluate", "snn"], ["verify", "snn"], ["export", "snn", "--to=a.onnx", "--replay=noise"]):
        assert main([*words, "--trust-code"]) == 0
    (tmp_path / "mine.yaml").write_text(f'method: ann\nmodel: "{own_module}"\n')
    assert main(["train", "mine.yaml", "--out=own", *SHORT]) == 0  # the file is given on this command line
    assert main(["train", "--out=own", "--resume"]) == 2
    assert own_module in capsys.readouterr().err
    for function in (train.evaluate, train.verify):
        with pytest.raises(InputError, match="is code that a file names"):
            function("snn", device="cpu")
        function("snn", device="cpu", trust_code=True)


def test_a_run_that_names_a_shell_runs_none_even_with_consent(tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    fields = {"num_classes": 10, "input_shape": [1, 8, 8], "mean": [0.5], "std": [0.5], "class_names": ["a"] * 10}
    evil = {"model": "python:os:system", "options": {"command": f"touch {canary}"}, **fields}
    description = NetworkDescription.from_json(evil)
    with pytest.raises(InputError, match="'python:os:system' is code that a file names"):
        description.build()
    with consent(trust_code=True), pytest.raises(InputError, match="standard library"):
        description.build()
    with pytest.raises(InputError, match="model_options cannot set trust_code"):
        NetworkDescription.from_json({**evil, "options": {"trust_code": True}}).build()
    assert not canary.exists()


def checkpoint(file: Path) -> object:
    return AtomicCheckpoints().load_checkpoint(file)


def teacher(file: Path) -> object:
    return load_weights(create("vgg5", num_classes=10, in_channels=1, image_size=8, width=0.125), file, num_classes=10)


@pytest.mark.parametrize("read", [checkpoint, teacher])
@pytest.mark.parametrize("bare", [True, False])
def test_a_checkpoint_that_executes_does_not(tmp_path: Path, read: Callable[[Path], object], bare: bool) -> None:
    canary, file = tmp_path / "executed", tmp_path / "last.ckpt"
    content = {"state_dict": Executes(canary)}
    if bare:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match="cannot resume from|cannot read the weights|wants to execute"):
        read(file)
    assert not canary.exists()
    torch.load(file, weights_only=False) if not bare else pickle.loads(file.read_bytes())
    assert canary.exists()  # it would have


def test_events_that_are_a_pickle_are_not_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    for part in ("Train", "Test"):
        user = tmp_path / "DVSGesture" / f"ibmGesture{part}" / "user01_led"
        user.mkdir(parents=True)
        np.save(user / "0.npy", np.array([Executes(canary)], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is not a readable array"):
        read_dvs_gesture(tmp_path, EventFrames(frames=2), 8)
    assert not canary.exists()


@pytest.mark.parametrize("tag", ["object/apply:os.mkdir [executed]", "object/new:os.mkdir [executed]", "name:os.mkdir"])
def test_tags_of_yaml_make_no_objects(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"epochs: !!python/{tag}\n")
    run = Run(tmp_path / "run")
    run.write_text("recipe.yaml", f"method: !!python/{tag}\n")
    readers: list[Callable[[], object]] = [
        lambda: load(AnnRecipe, "mine.yaml"),
        lambda: load_experiment("mine.yaml"),
        lambda: run.read_yaml("recipe.yaml"),
    ]
    for read in readers:
        with pytest.raises(InputError, match="could not determine a constructor for the tag"):
            read()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("text", ["epochs: 2001-99-99", "epochs: " + "[" * 5000, "epochs: " + "9" * 5000, "a: !!int x"])
def test_yaml_that_breaks_its_reader_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match="is not valid YAML"):
        load(AnnRecipe, tmp_path / "mine.yaml")


def test_members_of_a_shard_that_lead_elsewhere_are_read_in_place(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.cls").write_text("7")
    members = []
    for name in ("../secret", "/absolute", "inside"):
        members += [(f"{name}.jpg", b"pixels"), (f"{name}.cls", b"1")]
    shard = inner / "imagenet-train-000000.tar"
    write_shard(shard, members)
    with tarfile.open(shard, "a") as opened:
        link = tarfile.TarInfo("link.cls")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret.cls"
        opened.addfile(link)
    store, labels = read_shards([shard], "reading", Unreadable())
    assert labels == [1, 1, 1]
    assert [store.read(row) for row in range(3)] == [b"pixels"] * 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["imagenet-train-000000.tar", "inner", "secret.cls"]


def test_names_stay_text_on_the_page(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    evidence = folders.evidence(classes=(script, '"><img src=x onerror=alert(1)>', "dog"))
    run = folders.student(
        tmp_path / "<b>run<b>", recorded=evidence, rates=dict.fromkeys((script, "layer2"), 0.2), method=script
    )
    text = write_page([run]).read_text()
    for tag in ("<script", "<img src=x", "<b>"):
        assert tag not in text
    assert "&lt;script&gt;" in text


def test_links_in_a_run_folder_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("kept.txt", "last.ckpt", "report.html"):
        (outside / name).write_text("kept")
    run = Run(Path(folders.student(tmp_path / "run", recorded=folders.evidence())))
    (run.folder / "report.html").symlink_to(outside / "report.html")
    (run.folder / ".report.html.partial").symlink_to(outside / "kept.txt")
    write_page([str(run.folder)])
    assert (run.folder / "report.html").read_text().rstrip().endswith("</html>")
    run.checkpoints.symlink_to(outside)
    (run.folder / "tensorboard").symlink_to(outside)
    run.clear()
    assert list(run.folder.iterdir()) == []
    assert [(outside / name).read_text() for name in ("kept.txt", "last.ckpt", "report.html")] == ["kept"] * 3


def test_a_run_killed_in_its_first_write_is_free(tmp_path: Path) -> None:
    (tmp_path / ".recipe.yaml.partial").write_text("meth")
    assert Run.refuse_used(tmp_path).folder == tmp_path
    assert Run.refuse_used(tmp_path, resume=True).folder == tmp_path
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="neither empty nor a run folder"):
        Run.refuse_used(tmp_path, resume=True)


def test_a_clearing_that_is_cut_short_leaves_a_run_that_can_be_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, gone = Path.unlink, 0
    for most in range(12):
        run = Run(Path(folders.student(tmp_path / "run", recorded=folders.evidence())))
        gone = 0

        def die(self: Path, missing_ok: bool = False, most: int = most) -> None:
            nonlocal gone
            gone += 1
            if gone > most:
                raise KeyboardInterrupt
            unlink(self, missing_ok)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", die)
            try:
                run.clear()
            except KeyboardInterrupt:
                assert (run.folder / "recipe.yaml").exists()
                Run.refuse_used(run.folder, overwrite=True)
    assert not any(run.folder.iterdir())
