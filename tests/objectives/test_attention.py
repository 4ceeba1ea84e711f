from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spikestill.graph import record, to_spiking
from spikestill.objectives import ActivationAttention, create
from spikestill.objectives.attention import activation_map
from spikestill.types import InputError, Record
from tests.objectives.attended import LABELS, SHAPE, Levelled, pair, reached

NOTHING = torch.zeros(2, 5)
THEIRS = torch.tensor([[[[1.0, 0.0], [2.0, 0.0]], [[1.0, 2.0], [0.0, 0.0]]]])  # its map: [[1, 2], [2, 0]]
OURS = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])  # its map: itself


def value(ours: Tensor = OURS, theirs: Tensor = THEIRS, **options: Any) -> float:
    objective = ActivationAttention([("a", "b")], **options)
    return float(objective(Record(NOTHING, {"a": ours}), Record(NOTHING, {"b": theirs}), LABELS))


def test_the_map_is_the_mean_of_squares_over_channels() -> None:
    torch.testing.assert_close(activation_map(THEIRS), torch.tensor([[[1.0, 2.0], [2.0, 0.0]]]))
    torch.testing.assert_close(activation_map(-THEIRS), activation_map(THEIRS))


def test_by_hand() -> None:
    assert value() == pytest.approx(3.0)  # sqrt(0 + 4 + 4 + 1)
    assert value(scalar=True) == pytest.approx(5 / 4 - 2 / 4)
    # Lengths 3 and sqrt(2): the cosine is 1 / (3 sqrt(2)).
    assert value(normalise=True) == pytest.approx((2 - 2 / (3 * 2**0.5)) ** 0.5)


def test_it_is_the_mean_over_the_batch_and_the_sum_over_the_pairs() -> None:
    ours, theirs = torch.cat([OURS, 2 * OURS]), torch.cat([THEIRS, 2 * THEIRS])
    assert value(ours, theirs) == pytest.approx((3 + 4 * 3) / 2)
    objective = ActivationAttention([("a", "b"), ("c", "b")])
    student = Record(NOTHING, {"a": OURS, "c": torch.zeros(1, 3, 2, 2)})
    assert float(objective(student, Record(NOTHING, {"b": THEIRS}), LABELS)) == pytest.approx(3 + 3)


def test_the_teachers_map_comes_to_the_students_size() -> None:
    ours = torch.ones(1, 1, 1, 1)
    assert value(ours) == pytest.approx(5 / 4 - 1)
    assert value(ours, resize="bilinear") == pytest.approx(5 / 4 - 1)
    assert value(torch.zeros(1, 1, 4, 4)) == pytest.approx(6.0)  # every pixel of the map four times


def test_equal_maps_have_distance_zero_and_no_gradient_that_is_no_number() -> None:
    ours = OURS.clone().requires_grad_()
    objective = ActivationAttention([("a", "b")])
    objective(Record(NOTHING, {"a": ours}), Record(NOTHING, {"b": OURS}), LABELS).backward()
    assert ours.grad is not None
    assert not ours.grad.any()


@pytest.mark.parametrize("options", [{}, {"normalise": True}, {"scalar": True}])
def test_its_gradient_by_finite_differences(options: dict[str, bool]) -> None:
    objective = ActivationAttention([("a", "b")], **options)
    theirs = Record(NOTHING, {"b": torch.rand(2, 3, 4, 4, dtype=torch.float64)})
    ours = torch.rand(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda given: objective(Record(NOTHING, {"a": given}), theirs, LABELS), (ours,))


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_it_trains_the_students_layers_and_never_the_teacher(gradient: str) -> None:
    student, teacher = pair(gradient)
    objective = create("activation-attention", student=student, teacher=teacher, input_shape=SHAPE)
    assert objective.student_taps == objective.teacher_taps == ("relu1", "relu2", "relu3")
    images = torch.randn(4, *SHAPE)
    optimiser = torch.optim.SGD(student.parameters(), 0.01)
    losses = []
    for _ in range(8):
        ours = student.record(images, objective.student_taps)
        loss = objective(ours, record(teacher, images, objective.teacher_taps), LABELS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert reached(student) == {"conv1", "conv2", "conv3"}
    assert min(losses[1:]) < losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_both_modes_have_the_same_value() -> None:
    student, teacher = pair()
    objective = ActivationAttention.build(student, teacher, SHAPE, normalise=True)
    images = torch.randn(1, *SHAPE)
    theirs = record(teacher, images, objective.teacher_taps)
    by_rate = objective(student.record(images, objective.student_taps), theirs, LABELS[:1])
    student.gradient = "bptt"
    torch.testing.assert_close(objective(student.record(images, objective.student_taps), theirs, LABELS[:1]), by_rate)


def test_points_may_be_named_and_maps_of_other_sizes_compared() -> None:
    _, teacher = pair()
    student = to_spiking(Levelled(3, first_stride=2), input_shape=SHAPE)
    objective = ActivationAttention.build(student, teacher, SHAPE, points={"relu1": "relu1", "relu2": "conv3"})
    images = torch.randn(4, *SHAPE)
    ours, theirs = student.record(images, objective.student_taps), record(teacher, images, objective.teacher_taps)
    assert torch.isfinite(objective(ours, theirs, LABELS))


def test_is_in_float32_whatever_the_features_are() -> None:
    objective = ActivationAttention([("a", "b")])
    half = Record(NOTHING, {"a": OURS.bfloat16()}), Record(NOTHING, {"b": THEIRS.bfloat16()})
    assert objective(*half, LABELS).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "nearest"}, "activation-attention: resize must be 'pool' or 'bilinear', not 'nearest'"),
        ({"normalise": True, "scalar": True}, "activation-attention: a scalar has no map to normalise"),
        ({"points": ["relu9"]}, "unknown point of the student 'relu9'"),
        ({"points": ["head.0"]}, "the student's feature at 'head.0' is no map"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActivationAttention.build(*pair(), SHAPE, **options)
