from __future__ import annotations

from typing import Any

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
    torch.testing.assert_close(of_seven_steps(read_out)(Record(logits, timesteps=7), None, labels), expected)


@pytest.mark.parametrize("read_out", ["max", 0.0, -1, float("inf"), float("nan"), True, None])
def test_no_other_read_out_is_taken(read_out: object) -> None:
    with pytest.raises(InputError, match="read_out must be 'mean', 'sum' or a positive factor, not"):
        of_seven_steps(read_out)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("factor", ["mean", 2.5])
@pytest.mark.parametrize(("weight", "target"), [(0.0, 1.0), (0.05, 1.0), (0.5, -2.0)])
def test_each_step_learns_the_labels_and_is_drawn_to_the_constant(
    smoothing: float, factor: str | float, weight: float, target: float
) -> None:
    """Deng et al. 2022, in loops over steps, images and classes."""
    steps, labels = torch.randn(3, 6, 5), torch.arange(6) % 5
    objective = CrossEntropy(smoothing, factor, True, weight, target)  # type: ignore[arg-type]
    entropy, error = 0.0, 0.0
    for step in steps * (1.0 if factor == "mean" else float(factor)):
        for z, label in zip(step, labels, strict=True):
            for k in range(5):
                wanted = smoothing / 5 + (1 - smoothing) * (k == label)
                entropy -= float(wanted * z.log_softmax(0)[k]) / 18
                error += float(z[k] - target) ** 2 / 90
    loss = objective(Record(steps.mean(0), steps=steps), None, labels)
    assert loss.item() == pytest.approx((1 - weight) * entropy + weight * error, rel=1e-4)


def test_each_step_trains_through_time_and_is_refused_under_rate_gradients() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5))
    images, labels = torch.randn(6, 3, 2, 2), torch.arange(6) % 5
    student = ss.to_spiking(ann, input_shape=(3, 2, 2), gradient="bptt")
    CrossEntropy(each_step=True, mse_weight=0.1)(student.record(images), None, labels).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    with pytest.raises(InputError, match="cross-entropy: each_step needs gradient: bptt.* train_timesteps: anytime"):
        CrossEntropy(each_step=True)(ss.to_spiking(ann, input_shape=(3, 2, 2)).record(images), None, labels)


def test_one_step_is_the_ordinary_cross_entropy() -> None:
    steps, labels = torch.randn(1, 6, 5), torch.arange(6) % 5
    record = Record(steps[0], steps=steps)
    torch.testing.assert_close(CrossEntropy(each_step=True)(record, None, labels), CrossEntropy()(record, None, labels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"each_step": True, "mse_weight": 1.0}, r"mse_weight must lie in \[0, 1\), not 1.0"),
        ({"mse_weight": 0.1}, "mse_weight is for single steps: set each_step: true"),
        ({"each_step": True, "mse_weight": 0.1, "mse_target": float("inf")}, "mse_target must be finite"),
        ({"each_step": True, "read_out": "sum"}, "read_out: sum adds up the steps that each_step keeps apart"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CrossEntropy(**options)
