from __future__ import annotations

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.objectives import CrossEntropy, create
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


def test_the_sum_of_the_read_outs_is_t_times_their_mean() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    student = ss.to_spiking(ann, input_shape=(1, 3, 3), timesteps=7)
    made = create("cross-entropy", student=student, teacher=None, input_shape=(1, 3, 3), read_out="sum")
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(
        made(Record(logits), None, labels), torch.nn.functional.cross_entropy(7 * logits, labels)
    )
    with pytest.raises(InputError, match="read_out must be 'mean' or 'sum', not 'max'"):
        create("cross-entropy", student=student, teacher=None, input_shape=(1, 3, 3), read_out="max")
