from __future__ import annotations

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.objectives import CrossEntropy, Objective, create
from spikestill.types import InputError, Record


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_is_the_mean_of_minus_log_probability_of_the_smoothed_label(smoothing: float) -> None:
    logits, labels = torch.randn(6, 5), torch.arange(6) % 5
    target = (1 - smoothing) * torch.eye(5)[labels] + smoothing / 5
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(CrossEntropy(smoothing)(Record(logits), None, labels), expected)


def test_is_in_float32_whatever_the_logits_are() -> None:
    loss = CrossEntropy()(Record(torch.randn(3, 5, dtype=torch.bfloat16)), None, torch.tensor([0, 1, 2]))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_its_range_is_refused(smoothing: float) -> None:
    with pytest.raises(InputError, match="label_smoothing must lie in"):
        CrossEntropy(smoothing)


def of_seven_steps(read_out: object) -> Objective:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    student = ss.to_spiking(ann, input_shape=(1, 3, 3), timesteps=7)
    return create("cross-entropy", student=student, teacher=None, input_shape=(1, 3, 3), read_out=read_out)


@pytest.mark.parametrize(("read_out", "factor"), [("mean", 1), ("sum", 7), (2.5, 2.5), (3, 3)])
def test_the_read_out_is_a_multiple_of_the_mean(read_out: str | float, factor: float) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = torch.nn.functional.cross_entropy(factor * logits, labels)
    torch.testing.assert_close(of_seven_steps(read_out)(Record(logits), None, labels), expected)


@pytest.mark.parametrize("read_out", ["max", 0.0, -1, float("inf"), float("nan"), True, None])
def test_no_other_read_out_is_taken(read_out: object) -> None:
    with pytest.raises(InputError, match="read_out must be 'mean', 'sum' or a positive factor, not"):
        of_seven_steps(read_out)
