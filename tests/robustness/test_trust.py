"""Nothing in a file is executed, nothing leaves its folder, and a name on a page stays text."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikestill.data import EventFrames
from spikestill.data.recordings import read_dvs_gesture
from spikestill.data.shards import read_shards
from spikestill.data.unreadable import Unreadable
from spikestill.models import create
from spikestill.models.weights import load_weights
from spikestill.recipes import AnnRecipe, load
from spikestill.recipes.experiment import load_experiment
from spikestill.report import write_page
from spikestill.runs import Run
from spikestill.train.callbacks import AtomicCheckpoints
from spikestill.types import InputError
from tests.data.trees import write_shard
from tests.report import folders


class Executes:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.canary),)


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
