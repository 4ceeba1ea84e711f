from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from spikestill.data import DataSet, ImageSet
from spikestill.data.samples import channel_statistics
from spikestill.types import InputError

Images = Callable[..., ImageSet]


@pytest.fixture
def dataset(random_images: Images) -> DataSet:
    return DataSet(
        "some",
        random_images(20),
        random_images(4, seed=1),
        random_images(8, seed=2),
        ("a", "b", "c", "d"),
        (0.5, 0.5, 0.5),
        (0.2, 0.2, 0.2),
    )


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\[2, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), "labels must be int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "2 images came with 3 labels"),
        (torch.zeros(2, 3, 0, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "no pixel"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, -3]), "label -3 at row 1 is negative"),
    ],
)
def test_image_set_refuses_what_is_none(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageSet(images, labels)


def test_subset_keeps_order_and_content(random_images: Images) -> None:
    images = random_images(6)
    part = images.subset(torch.tensor([4, 1]))
    assert torch.equal(part.images, images.images[[4, 1]])
    assert part.labels.tolist() == [0, 1]
    assert part.images.is_contiguous(memory_format=torch.channels_last)


def test_dataset_describes_itself(dataset: DataSet) -> None:
    assert dataset.num_classes == 4
    assert dataset.input_shape == (3, 8, 8)


def test_dataset_refuses_a_label_that_is_no_class(dataset: DataSet) -> None:
    with pytest.raises(InputError, match=r"some: label 3 at row 3 of train is outside 0\.\.2"):
        replace(dataset, class_names=("a", "b", "c"))


def test_dataset_refuses_parts_of_other_sizes(dataset: DataSet, random_images: Images) -> None:
    with pytest.raises(InputError, match=r"\(3, 8, 8\).* in train and \(3, 9, 8\) in test"):
        replace(dataset, test=random_images(4, shape=(3, 9, 8)))


def test_dataset_needs_training_and_test_images_but_no_validation(dataset: DataSet) -> None:
    nothing = dataset.train.subset(torch.empty(0, dtype=torch.int64))
    assert len(replace(dataset, validation=nothing).validation) == 0
    for part in ("train", "test"):
        with pytest.raises(InputError, match=f"the {part} part holds no image"):
            replace(dataset, **{part: nothing})


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.5,)}, {"std": (0.1, 0.1)}, {"std": (0.1, 0.0, 0.1)}, {"mean": (0.5, float("nan"), 0.5)}],
)
def test_dataset_refuses_statistics_that_do_not_fit(dataset: DataSet, change: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(InputError, match="mean"):
        replace(dataset, **change)


def test_fingerprint_follows_the_content_and_not_the_memory_order(dataset: DataSet) -> None:
    turned = ImageSet(dataset.train.images.contiguous(memory_format=torch.channels_last), dataset.train.labels)
    assert replace(dataset, train=turned).fingerprint == dataset.fingerprint
    assert len(dataset.fingerprint) == 64
    pixel = dataset.test.images.clone()
    pixel[0, 0, 0, 0] ^= 1
    label = dataset.test.labels.clone()
    label[0] = 3
    others = [
        replace(dataset, test=ImageSet(pixel, dataset.test.labels)),
        replace(dataset, test=ImageSet(dataset.test.images, label)),
        replace(dataset, class_names=("a", "b", "c", "x")),
        replace(dataset, train=dataset.test, test=dataset.train),
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_channel_statistics_are_those_of_the_pixels(random_images: Images) -> None:
    images = random_images(50).images
    mean, std = channel_statistics(images)
    scaled = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), scaled.mean(dim=(0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(std).double(), scaled.std(dim=(0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_a_channel_that_never_varies_has_a_usable_deviation() -> None:
    assert channel_statistics(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8)) == ((pytest.approx(0.2),), (1.0,))
