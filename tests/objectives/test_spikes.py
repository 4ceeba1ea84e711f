from __future__ import annotations

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.objectives import create, windowed_distance
from spikestill.types import InputError, Record

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


def spiking(timesteps: int = 4, gradient: str = "bptt") -> ss.SpikingNetwork:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    return ss.to_spiking(ann, input_shape=(1, 3, 3), timesteps=timesteps, gradient=gradient)


def test_the_objective_compares_the_spikes_that_the_read_outs_would_give() -> None:
    made = create("spikes", student=spiking(), teacher=spiking(), input_shape=(1, 3, 3), window=4, threshold=0.5)
    theirs = torch.tensor([[0.5, 0.2, -1.0], [0.5, 0.2, -1.0], [0.0, 0.2, 3.0], [0.0, 0.0, 0.0]]).unsqueeze(1)
    ours = torch.zeros(4, 1, 3, requires_grad=True)
    # Spikes by hand: 0.5, 0.5 gives two; 0.2, 0.4, 0.6 one; -1, -2, 1, 1 two: squares 4 + 1 + 4.
    loss = made(Record(ours.mean(0), steps=ours), Record(theirs.mean(0), steps=theirs), torch.tensor([0]))
    assert loss.item() == 9
    loss.backward()
    assert ours.grad is not None
    assert (ours.grad < 0).all()


def test_under_rate_gradients_the_mean_drives_the_output_neurons() -> None:
    student = spiking(gradient="rate")
    made = create("spikes", student=student, teacher=spiking(), input_shape=(1, 3, 3), window=2, threshold=0.5)
    theirs = torch.tensor([[0.5, 0.2, -1.0], [0.5, 0.2, -1.0], [0.0, 0.2, 3.0], [0.0, 0.0, 0.0]]).unsqueeze(1)
    mean = torch.tensor([[0.25, 0.0, 0.125]], requires_grad=True)
    # Spikes by hand: at 0.25 a step two, then none, then one; the teacher's are two, one and two.
    loss = made(Record(mean), Record(theirs.mean(0), steps=theirs), torch.tensor([0]))
    assert loss.item() == 2
    loss.backward()
    assert mean.grad is not None
    assert mean.grad[0, 0] == 0
    assert (mean.grad[0, 1:] < 0).all()
    record = student.train().record(torch.rand(2, 1, 3, 3))
    assert record.steps is None
    made(record, spiking().record(torch.rand(2, 1, 3, 3)), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in student.body.parameters())


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_student_of_fewer_steps_is_compared_over_these(gradient: str) -> None:
    student, teacher, images = spiking(gradient=gradient), spiking(), torch.rand(2, 1, 3, 3)
    made = create("spikes", student=student, teacher=teacher, input_shape=(1, 3, 3), window=3, threshold=0.1)
    first = create("spikes", student=spiking(2), teacher=spiking(2), input_shape=(1, 3, 3), window=2, threshold=0.1)
    theirs = teacher.record(images)
    assert theirs.steps is not None
    ours = student.record(images, timesteps=2)
    expected = first(ours, Record(theirs.logits, steps=theirs.steps[:2]), torch.tensor([0, 1]))
    torch.testing.assert_close(made(ours, theirs, torch.tensor([0, 1])), expected)


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        (spiking(), spiking(5), {}, "as many time steps as the student, 4, not 5"),
        (spiking(), spiking(), {"threshold": 0.0}, "threshold must be positive and finite, not 0.0"),
        (spiking(), spiking(), {"window": 5}, "window must lie in 1 to 4, not 5"),
        (spiking(), spiking().body, {}, "objective spikes needs a spiking network as its teacher, not an ANN"),
        (spiking(), None, {}, "objective spikes needs a teacher"),
    ],
)
def test_what_the_objective_cannot_compare_is_refused(
    student: ss.SpikingNetwork, teacher: object, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create("spikes", student=student, teacher=teacher, input_shape=(1, 3, 3), **options)


def test_the_others_refuse_a_spiking_teacher_but_for_logits() -> None:
    for name in ("blockwise", "activation-attention", "gradient-attention"):
        with pytest.raises(InputError, match=f"objective {name} needs an ANN as its teacher, not a spiking network"):
            create(name, student=spiking(), teacher=spiking(), input_shape=(1, 3, 3))
    create("logits", student=spiking(), teacher=spiking(), input_shape=(1, 3, 3))
