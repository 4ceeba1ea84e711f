from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from sklearn import metrics
from torch import Tensor, nn

from spikestill.analysis import Answers, accuracy, calibration, confusion_matrix
from spikestill.types import InputError


def test_is_the_share_of_images_put_into_their_class() -> None:
    images = torch.tensor([[3.0, 1, 2], [1, 3, 2], [1, 2, 3], [3, 1, 2], [3, 2, 1]])
    labels = torch.tensor([0, 1, 2, 2, 1])
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    assert accuracy(nn.Identity(), batches) == pytest.approx(3 / 5)


def test_shares_of_several_processes_are_added_up() -> None:
    """This process answers two images, one of them rightly; the other one answers three, all of them rightly."""

    class Both:
        def gathered(self, value: list[Answers]) -> list[list[Answers]]:
            return [value, [Answers(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3), torch.ones(3).long())]]

        def reduced(self, values: Tensor, how: str) -> Tensor:
            raise AssertionError("an ANN has nothing to add up")

    assert accuracy(nn.Identity(), [(torch.eye(2), torch.tensor([0, 0]))], Both()) == pytest.approx(4 / 5)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images to measure on"):
        accuracy(nn.Identity(), [])


@given(some.integers(2, 6), some.integers(1, 40), some.integers(0, 999))
def test_the_confusion_matrix_is_scikit_learn_s(classes: int, images: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, labels = torch.randint(classes, (2, images), generator=generator)
    wanted = metrics.confusion_matrix(labels.numpy(), predicted.numpy(), labels=range(classes))
    assert confusion_matrix(predicted, labels, classes).tolist() == wanted.tolist()


def test_calibration_by_hand() -> None:
    """Two bins: 0.3 and 0.5, of which one is right; 0.6, 0.8 and 1.0, of which two are."""
    confidence = torch.tensor([0.6, 0.3, 1.0, 0.5, 0.8])
    correct = torch.tensor([True, True, False, False, True])
    found = calibration(confidence, correct, bins=2)
    low, high = found.bins
    assert (low.confidence, low.accuracy, low.images) == (pytest.approx(0.4), 0.5, 2)
    assert (high.confidence, high.accuracy, high.images) == (pytest.approx(0.8), pytest.approx(2 / 3), 3)
    assert found.error == pytest.approx((2 * abs(0.5 - 0.4) + 3 * abs(2 / 3 - 0.8)) / 5)


@given(some.integers(1, 60), some.integers(1, 20), some.integers(0, 999))
def test_calibration_is_that_of_a_loop_over_the_intervals(images: int, bins: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(images, generator=generator).clamp(min=1e-6)
    correct = torch.rand(images, generator=generator) < confidence
    error, counted = 0.0, 0
    for index in range(bins):
        within = [row for row in range(images) if index / bins < float(confidence[row].double()) <= (index + 1) / bins]
        if within:
            counted += 1
            right = sum(bool(correct[row]) for row in within) / len(within)
            error += len(within) / images * abs(right - sum(float(confidence[row]) for row in within) / len(within))
    found = calibration(confidence, correct, bins)
    assert found.error == pytest.approx(error)
    assert len(found.bins) == counted
    assert sum(one.images for one in found.bins) == images


def test_certainty_that_is_always_right_is_calibrated() -> None:
    assert calibration(torch.ones(3), torch.ones(3, dtype=torch.bool)).error == 0
