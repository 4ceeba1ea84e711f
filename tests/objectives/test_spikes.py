from __future__ import annotations

import pytest
import torch

from spikestill.objectives import windowed_distance
from spikestill.types import InputError

TEACHER = torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)
STUDENT = torch.tensor([0.0, 1.0, 1.0]).reshape(3, 1, 1)


@pytest.mark.parametrize(("window", "expected"), [(1, 2 / 3), (2, 1 / 2), (3, 0.0)])
def test_by_hand(window: int, expected: float) -> None:
    """Differences 1, -1, 0: in windows of one 1, 1, 0; of two 0, 1; over all steps the counts agree."""
    assert float(windowed_distance(TEACHER, STUDENT, window)) == pytest.approx(expected)


@pytest.mark.parametrize("window", [1, 3, 6])
def test_is_the_mean_over_windows_and_batch_of_the_sum_over_neurons(window: int) -> None:
    teacher, student = (torch.rand(2, 6, 3, 4) < 0.5).double()
    total = [
        sum(float((teacher - student)[start : start + window, image, k].sum()) ** 2 for k in range(4))
        for start in range(6 - window + 1)
        for image in range(3)
    ]
    assert float(windowed_distance(teacher, student, window)) == pytest.approx(sum(total) / len(total))


def test_its_gradient_reaches_the_student_alone() -> None:
    teacher = torch.rand(4, 2, 3, dtype=torch.float64, requires_grad=True)
    student = torch.rand(4, 2, 3, dtype=torch.float64, requires_grad=True)
    windowed_distance(teacher, student, 2).backward()
    assert teacher.grad is None
    torch.autograd.gradcheck(lambda given: windowed_distance(teacher, given, 2), (student,))


@pytest.mark.parametrize("window", [0, 4])
def test_a_window_outside_its_range_is_refused(window: int) -> None:
    with pytest.raises(InputError, match=f"window must lie in 1 to 3, the number of time steps, not {window}"):
        windowed_distance(TEACHER, STUDENT, window)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match=r"must agree in time steps, batch and classes: \(3, 1, 1\) and \(2, 1, 1\)"):
        windowed_distance(TEACHER, STUDENT[:2], 1)
