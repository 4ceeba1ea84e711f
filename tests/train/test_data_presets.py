"""Every preset that is made for one data set runs some steps on small files in that data set's true layout."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from spikestill.recipes import AnnRecipe, DistillRecipe, load
from spikestill.recipes.networks import NetworkDescription
from spikestill.runs import Run
from spikestill.train import loaders, train
from tests.data.event_files import write_cifar10_dvs
from tests.data.trees import spoil, wnids, write_imagenet, write_imagenet_shards, write_tiny_imagenet
from tests.train.test_loop import KilledError, kill_after

TINY = ["--device=cpu", "--width=0.0625", "--epochs=1", "--batch-size=8", "--limit-train=16", "--precision=float32"]
STAGE = "{model: vgg5, width: 0.125, epochs: 1, batch_size: 8}"


def run(name: str, place: Path, out: Path, *words: str) -> dict[str, Any]:
    options = [*TINY, f"--data-dir={place}", f"--out={out}", *words]
    return train(load(DistillRecipe, name, options)).read_json("result.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11-cifar10-dvs", "resnet19-cifar10-dvs"])
def test_cifar10_dvs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tonic")
    place = write_cifar10_dvs(tmp_path / "data", recordings=4).parent
    result = run(name, place, tmp_path / "runs" / "student", "--validation=8", f"--stages.teacher={STAGE}")
    assert list(result["test_accuracy_by_timestep"]) == [str(step) for step in range(1, 11)]
    assert result["images"] == {"train": 16, "validation": 8, "test": 10}


@pytest.mark.slow
def test_vgg16_on_tiny_imagenet(tmp_path: Path) -> None:
    place = write_tiny_imagenet(tmp_path / "data", classes=10, train=4, val=1).parent
    source = "{epochs: 1, batch_size: 8}"
    words = ["--validation=8", "--image-size=32", f"--stages.teacher={STAGE}", f"--stages.source={source}"]
    conversion = "{timesteps: 50, percentile: 99.7, ann_logits: true}"
    words += ["--conversion.images=8", f"--conversion.options={conversion}"]
    result = run("vgg16-tiny-imagenet", place, tmp_path / "runs" / "student", *words)
    assert len(result["test_accuracy_by_timestep"]) == 100
    assert result["images"]["test"] == 10


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[[Path], Run]:
    def make(place: Path) -> Run:
        words = [f"--data-dir={place}", "--data=imagenet", "--model=resnet20", "--image-size=32", "--validation=3"]
        return train(load(AnnRecipe, "ann", [*TINY, "--workers=0", *words, f"--out={tmp_path / 'teacher'}"]))

    return make


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_imagenet, write_imagenet_shards])
def test_resnet34_on_imagenet(write: Callable[..., Path], teacher: Callable[[Path], Run], tmp_path: Path) -> None:
    root = write(tmp_path / "data", train=9)
    words = ["--image-size=32", "--validation=3", f"--teacher={teacher(root).folder}", "--workers=2"]
    spoil(root, f"{wnids(3)[2]}_4")
    result = run("resnet34-imagenet", root, tmp_path / "student", *words, "--skip-corrupt=true", "--limit-train=24")
    assert result["images"] == {"train": 24, "validation": 3, "test": 9}
    assert result["unreadable_files_skipped"] == 1
    assert list(result["test_accuracy_by_timestep"]) == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_a_resume_in_mid_epoch_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_imagenet(tmp_path / "data", train=9)
    fields = [f"--data-dir={root}", "--data=imagenet", "--model=resnet20", "--image-size=32", "--validation=3"]
    fields += ["--device=cpu", "--width=0.0625", "--batch-size=6", "--epochs=2", "--checkpoint-minutes=1e-9"]
    whole = train(load(AnnRecipe, "ann", [*fields, "--workers=0", f"--out={tmp_path / 'whole'}"]))
    broken = [*fields, "--workers=2", f"--out={tmp_path / 'broken'}"]
    with monkeypatch.context() as patch:
        kill_after(patch, 6)
        with pytest.raises(KilledError):
            train(load(AnnRecipe, "ann", broken))
    # Four steps an epoch: it broke off in the second. How many processes decode does not matter.
    resumed = train(load(AnnRecipe, "ann", [*broken, "--workers=1"]), resume=True)
    assert [row["step"] for row in resumed.read_table("metrics.csv")] == ["4", "8"]
    again = resumed.read_weights()
    assert all(torch.equal(value, again[name]) for name, value in whole.read_weights().items())


def test_imagenet_is_shown_in_resized_crops_and_tested_on_its_middle(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    words = [f"--data-dir={root}", "--data=imagenet", "--image-size=32", "--validation=3", "--workers=0"]
    recipe = load(AnnRecipe, "ann", [*words, "--batch-size=5"])
    assert (recipe.augmentation.crop, recipe.augmentation.resized_crop, recipe.augmentation.flip) == (0, 0.08, True)
    data = loaders.load_data(recipe)
    description = NetworkDescription.of(recipe, data)
    made = {
        part: loaders.make_batches(recipe, data, description, part, torch.device("cpu"))  # type: ignore[arg-type]
        for part in ("train", "test")
    }
    shown = {part: [next(iter(islice(batches, 1)))[0] for _ in range(2)] for part, batches in made.items()}
    assert not torch.equal(*shown["train"])
    assert torch.equal(*shown["test"])
    assert not made["train"].holds_images
