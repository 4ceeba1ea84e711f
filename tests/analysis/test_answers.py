from __future__ import annotations

import pytest
import torch
from torch import nn

from spikestill.analysis import Answers, answers
from spikestill.types import InputError


def test_the_answer_after_t_steps_is_that_of_the_mean_of_the_first_t_read_outs() -> None:
    steps = torch.randn(5, 7, 4)
    labels = torch.randint(4, (7,))
    found = Answers.of(steps, labels)
    for t in range(1, 6):
        shares = steps[:t].mean(0).softmax(-1)
        assert torch.equal(found.predicted[t - 1], shares.argmax(-1))
        torch.testing.assert_close(found.confidence[t - 1], shares.amax(-1))
        assert found.accuracy(t) == pytest.approx(float((shares.argmax(-1) == labels).float().mean()))
    assert found.accuracy() == found.accuracy(5)


def test_a_class_is_told_from_another_of_which_the_network_is_as_good_as_certain() -> None:
    """Both have a softmax probability of 1/2 in float32, but one logit is larger."""
    steps = torch.tensor([[[16384.0, 16384.002, 0.0]]])
    assert Answers.of(steps, torch.tensor([1])).predicted.tolist() == [[1]]


def test_an_ann_answers_once() -> None:
    images = torch.tensor([[3.0, 1, 2], [1, 3, 2], [1, 2, 3]])
    found = answers(nn.Identity(), [(images[:2], torch.tensor([0, 0])), (images[2:], torch.tensor([2]))])
    assert found.predicted.tolist() == [[0, 1, 2]]
    assert found.correct.tolist() == [[True, False, True]]
    assert found.labels.tolist() == [0, 0, 2]


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images to measure on"):
        answers(nn.Identity(), [])
