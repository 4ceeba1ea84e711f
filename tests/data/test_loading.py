from __future__ import annotations

from typing import Any

import pytest
import torch

from spikestill.data import load, names
from spikestill.types import InputError


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.contiguous().numpy().tobytes() for image in images}


def test_digits() -> None:
    data = load("digits")
    assert data.name == "digits"
    assert data.input_shape == (1, 8, 8)
    assert data.num_classes == 10
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    # All 1797 digits are different images, so none may be in two parts.
    parts = [rows(part.images) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == 1797
    scaled = data.train.images.double() / 255
    assert data.mean[0] == pytest.approx(float(scaled.mean()))
    assert data.std[0] == pytest.approx(float(scaled.std(correction=0)))


def test_the_seed_moves_the_validation_set_and_never_the_test_set() -> None:
    first, again, other = load("digits"), load("digits"), load("digits", seed=1)
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.test.images, other.test.images)
    assert rows(first.validation.images) != rows(other.validation.images)
    assert rows(first.train.images) | rows(first.validation.images) == rows(other.train.images) | rows(
        other.validation.images
    )


def test_the_limit_comes_after_the_validation_split() -> None:
    whole, part = load("digits"), load("digits", limit_train=0.1)
    assert torch.equal(whole.validation.images, part.validation.images)
    assert (whole.mean, whole.std) == (part.mean, part.std)
    assert len(part.train) == 129
    assert rows(part.train.images) <= rows(whole.train.images)
    assert set(part.train.labels.bincount().tolist()) <= {12, 13}


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (1.0, 1293), (20, 20), (10**6, 1293), (None, 1293)])
def test_limits(limit: float | None, count: int) -> None:
    assert len(load("digits", limit_train=limit).train) == count


@pytest.mark.parametrize(("validation", "count"), [(0, 0), (0.0, 0), (0.5, 718), (100, 100)])
def test_validation_shares(validation: float, count: int) -> None:
    assert len(load("digits", validation=validation).validation) == count


def test_image_size() -> None:
    assert load("digits", image_size=16).input_shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "unknown data set 'digit': did you mean 'digits'"),
        ("parque:here", {}, "unknown data set 'parque:here'"),
        ("folder:", {}, "needs a path: folder:PATH"),
        ("digits", {"validation": 1.0}, "cannot take 1437 of 1437 images"),
        ("digits", {"validation": -0.1}, "validation=-0.1 must lie between 0 and 1"),
        ("digits", {"limit_train": 0}, "limit_train=0 leaves no image"),
        ("digits", {"limit_train": 1.5}, "limit_train=1.5 must lie between 0 and 1"),
        ("digits", {"image_size": 0}, "image_size must be a number of pixels"),
        ("digits", {"seed": 0.5}, "seed must be an integer"),
    ],
)
def test_wrong_requests_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)


def test_names() -> None:
    assert names() == [
        "cifar10",
        "cifar10-dvs",
        "cifar100",
        "digits",
        "digits-events",
        "dvs-gesture",
        "folder:PATH",
        "imagenet",
        "images-events:DATA",
        "parquet:PATH",
        "tiny-imagenet",
    ]
