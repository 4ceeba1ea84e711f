from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikestill.data import load
from spikestill.recipes import AnnRecipe
from spikestill.recipes import load as load_recipe
from spikestill.train import evaluate, train
from spikestill.types import InputError
from tests.data.trees import jpeg, write_tiny_imagenet

NAME = "tiny-imagenet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_imagenet(tmp_path, classes=3, train=3, val=3)


def test_images_labels_and_the_official_validation_part_as_test_set(root: Path) -> None:
    data = load(NAME, data_dir=root.parent, validation=0)
    assert data.class_names == ("thing 0, entity", "thing 1, entity", "thing 2, entity")
    assert data.input_shape == (3, 64, 64)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 1, 2] * 3
    expected = np.asarray(Image.open(io.BytesIO(jpeg(101, colour=1))))
    assert torch.equal(data.train.images[4].permute(1, 2, 0), torch.from_numpy(expected.copy()))
    gray = data.test.images[6]
    assert torch.equal(gray[0], gray[2])
    assert any("official validation part is the test set" in note for note in data.notes)


def test_the_folder_itself_and_another_size(root: Path) -> None:
    data = load(NAME, data_dir=root, image_size=32, validation=3)
    assert data.input_shape == (3, 32, 32)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 3, 9)


def test_classes_have_their_numbers_for_names_without_words(root: Path) -> None:
    (root / "words.txt").unlink()
    assert load(NAME, data_dir=root).class_names == ("n01443537", "n01443544", "n01443551")


def test_a_missing_folder_says_which_layout_was_expected_and_where(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the folder '.*tiny-imagenet-200' with wnids.txt, train, val in it"):
        load(NAME, data_dir=tmp_path / "nowhere")
    (root / "wnids.txt").unlink()
    with pytest.raises(InputError, match=r"'.*tiny-imagenet-200' lacks wnids.txt; unpack tiny-imagenet-200.zip there"):
        load(NAME, data_dir=tmp_path)


def test_what_does_not_belong_together_is_named(root: Path) -> None:
    annotations = root / "val" / "val_annotations.txt"
    whole = annotations.read_text()
    for changed, message in (
        (whole + "val_99.JPEG\tn01443537\t0\t0\t1\t1\n", "lists 'val_99.JPEG', which is not in"),
        ("".join(whole.splitlines(keepends=True)[1:]), r"val_0.JPEG' is not listed in"),
        (whole.replace("n01443544", "n99"), r"line 2: 'n99' is no class of wnids.txt"),
    ):
        annotations.write_text(changed)
        with pytest.raises(InputError, match=message):
            load(NAME, data_dir=root)
    annotations.write_text(whole)
    (root / "train" / "n77").mkdir()
    with pytest.raises(InputError, match=r"train/n77' is no class of wnids.txt"):
        load(NAME, data_dir=root)
    (root / "train" / "n77").rmdir()
    for file in (root / "train" / "n01443551" / "images").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="class 'n01443551' has no image in"):
        load(NAME, data_dir=root)


def test_a_corrupt_file_is_named_or_skipped_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = root / "train" / "n01443544" / "images" / "n01443544_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(InputError, match=r"n01443544_1.JPEG' is not a readable image .*--skip-corrupt") as caught:
        load(NAME, data_dir=root)
    assert "\n" not in str(caught.value)
    data = load(NAME, data_dir=root, validation=0, skip_corrupt=True)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert len(data.unreadable) == 1
    printed = capsys.readouterr().err
    assert "skipped (1): " in printed
    assert "n01443544_1.JPEG" in printed
    assert "files that cannot be read and were skipped: 1" in printed


@pytest.mark.slow
def test_two_hundred_classes_are_read_trained_on_and_evaluated_on_the_official_validation_part(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path / "data", classes=200, train=3, val=2)
    bad = root / "train" / "n01443537" / "images" / "n01443537_0.JPEG"
    bad.write_bytes(b"broken")
    options = [f"--data={NAME}", f"--data-dir={tmp_path / 'data'}", "--model=vgg5", "--width=0.25", "--epochs=2"]
    options += ["--skip-corrupt=true", "--validation=200", "--augmentation.flip=true", "--device=cpu"]
    recipe = load_recipe(AnnRecipe, "ann", [*options, "--optimiser.lr=0.02", f"--out={tmp_path / 'run'}"])
    run = train(recipe)
    result = run.read_json("result.json")
    assert result["images"] == {"train": 399, "validation": 200, "test": 400}
    assert result["unreadable_files_skipped"] == 1
    assert any("official validation part" in note for note in result["data_notes"])
    # A class is a shade of grey: far above the 0.5 % of chance even after six steps.
    losses = [float(row["train_loss"]) for row in run.read_table("metrics.csv")]
    assert losses[1] < losses[0]
    measured = evaluate(run.folder)
    assert measured["images"] == 400
    assert measured["accuracy"] == result["test_accuracy"]
