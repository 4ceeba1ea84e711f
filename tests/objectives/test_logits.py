from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spikestill.graph import to_spiking
from spikestill.objectives import Logits
from spikestill.types import InputError, Record

LABELS = torch.zeros(6, dtype=torch.int64)


def by_hand(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The definition, sample by sample."""
    total = torch.zeros(())
    for given, wanted in zip(student, teacher, strict=True):
        p, q = (torch.exp(z / temperature) / torch.exp(z / temperature).sum() for z in (wanted, given))
        total = total + (p * (p / q).log()).sum()
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_is_the_closed_form(temperature: float) -> None:
    teacher, student = torch.randn(6, 5), torch.randn(6, 5)
    loss = Logits(temperature)(Record(student), Record(teacher), LABELS)
    torch.testing.assert_close(loss, by_hand(teacher, student, temperature))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_its_gradient_is_the_difference_of_the_soft_probabilities(temperature: float) -> None:
    teacher = torch.randn(6, 5, requires_grad=True)
    student = torch.randn(6, 5, requires_grad=True)
    Logits(temperature)(Record(student), Record(teacher), LABELS).backward()
    difference = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
    torch.testing.assert_close(student.grad, temperature * difference.detach() / 6)
    assert teacher.grad is None


def test_is_zero_where_the_student_is_the_teacher() -> None:
    logits = torch.randn(6, 5)
    assert float(Logits()(Record(logits), Record(logits), LABELS)) == pytest.approx(0, abs=1e-6)


def test_each_step_is_compared_with_the_teacher() -> None:
    teacher, steps = torch.randn(6, 5), torch.randn(4, 6, 5)
    loss = Logits(2.0, each_step=True)(Record(steps.mean(0), steps=steps), Record(teacher), LABELS)
    torch.testing.assert_close(loss, torch.stack([by_hand(teacher, step, 2.0) for step in steps]).mean())


def test_each_step_works_through_time_and_is_refused_under_rate_gradients() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5))
    objective, teacher, images = Logits(each_step=True), Record(torch.randn(6, 5)), torch.randn(6, 3, 2, 2)
    through_time = to_spiking(ann, input_shape=(3, 2, 2), gradient="bptt")
    objective(through_time.record(images), teacher, LABELS).backward()
    assert all(parameter.grad is not None for parameter in through_time.parameters())
    with pytest.raises(
        InputError, match="objective logits: each_step needs gradient: bptt.* set train_timesteps: anytime"
    ):
        objective(to_spiking(ann, input_shape=(3, 2, 2)).record(images), teacher, LABELS)


def test_is_in_float32_whatever_the_logits_are() -> None:
    half = [Record(torch.randn(6, 5, dtype=torch.bfloat16)) for _ in range(2)]
    assert Logits()(*half, LABELS).dtype == torch.float32


def test_the_default_temperature_is_the_one_that_helps() -> None:
    teacher, student = torch.randn(6, 5), torch.randn(6, 5)
    torch.testing.assert_close(Logits()(Record(student), Record(teacher), LABELS), by_hand(teacher, student, 3.0))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature must be positive"):
        Logits(temperature)
