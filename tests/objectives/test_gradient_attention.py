from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from spikestill.graph import record
from spikestill.objectives import GradientAttention, create
from spikestill.objectives.gradient_attention import expected_spike_activation_map, spike_activation_map
from spikestill.types import InputError, Record
from tests.objectives.attended import LABELS, SHAPE, pair, reached

NOTHING = torch.zeros(2, 5)


def double_sum(spikes: Tensor) -> Tensor:
    """Eq. 11 as printed, spike by earlier spike, and its mean over time."""
    steps = len(spikes)
    total = torch.zeros_like(spikes[0, :, 0])
    for t in range(steps):
        for earlier in range(t):
            total += math.exp(-(t - earlier)) * (spikes[t] * spikes[earlier]).sum(1)
    return total / steps


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_the_trace_is_the_double_sum(steps: int) -> None:
    spikes = (torch.rand(steps, 2, 3, 4, 5) < 0.4).double()
    torch.testing.assert_close(spike_activation_map(spikes), double_sum(spikes), rtol=0, atol=1e-12)


def test_the_map_by_hand() -> None:
    """Spikes at steps 0, 1 and 3 of 4: e^-1 at step 1, e^-2 + e^-3 at step 3."""
    spikes = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1, 1)
    expected = (math.exp(-1) + math.exp(-2) + math.exp(-3)) / 4
    assert float(spike_activation_map(spikes)) == pytest.approx(expected, abs=1e-15)
    both = spikes.expand(4, 1, 2, 1, 1)
    assert float(spike_activation_map(both)) == pytest.approx(2 * expected, abs=1e-15)


def test_it_is_differentiable_through_every_spike() -> None:
    spikes = torch.rand(5, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(spike_activation_map, (spikes,))


@pytest.mark.parametrize("steps", [2, 6])
def test_the_map_of_rates_is_the_mean_over_independent_spikes(steps: int) -> None:
    """20000 draws of Bernoulli spikes: within five standard errors of the closed form."""
    rate = torch.tensor([[0.1, 0.5], [0.9, 1.0]], dtype=torch.float64).reshape(1, 2, 1, 2)
    draws = 20000
    spikes = (torch.rand(steps, draws, 2, 1, 2, dtype=torch.float64) < rate).double()
    drawn = spike_activation_map(spikes)
    error = drawn.std(0) / draws**0.5
    assert ((drawn.mean(0) - expected_spike_activation_map(rate, steps)[0]).abs() < 5 * error).all()


def test_the_map_of_rates_is_exact_where_every_neuron_always_fires() -> None:
    spikes = torch.ones(7, 1, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(expected_spike_activation_map(spikes[0], 7), spike_activation_map(spikes))


def test_the_objective_by_hand() -> None:
    """The student's map lies along one pixel, the teacher's along (3, 4) / 5."""
    spikes = torch.zeros(2, 1, 1, 1, 2)
    spikes[..., 0] = 1
    gradient = torch.tensor([[[[-6.0, 4.0]], [[0.0, -4.0]]]])
    objective = GradientAttention([("a", "b")], timesteps=2)
    theirs = Record(NOTHING, gradients={"b": gradient})
    expected = math.hypot(1 - 3 / 5, 4 / 5)
    through_time = Record(NOTHING, {"a": spikes.mean(0)}, spikes.mean((2, 3, 4)), {"a": spikes})
    assert float(objective(through_time, theirs, LABELS)) == pytest.approx(expected)
    assert float(objective(Record(NOTHING, {"a": spikes.mean(0)}), theirs, LABELS)) == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["rate", "bptt"])
def test_its_gradient_by_finite_differences(mode: str) -> None:
    objective = GradientAttention([("a", "b")], timesteps=4)
    theirs = Record(NOTHING, gradients={"b": torch.randn(2, 3, 4, 4, dtype=torch.float64)})
    shape = (2, 2, 3, 3) if mode == "rate" else (4, 2, 2, 3, 3)
    given = torch.rand(shape, dtype=torch.float64, requires_grad=True)

    def loss(values: Tensor) -> Tensor:
        ours = Record(NOTHING, {"a": values}) if mode == "rate" else Record(NOTHING, spikes={"a": values})
        return objective(ours, theirs, LABELS)

    torch.autograd.gradcheck(loss, (given,))


@pytest.mark.parametrize("mode", ["rate", "bptt"])
def test_it_trains_the_students_layers_and_never_the_teacher(mode: str) -> None:
    student, teacher = pair(mode)
    objective = create("gradient-attention", student=student, teacher=teacher, input_shape=SHAPE)
    assert objective.student_taps == objective.teacher_gradients == ("relu1", "relu2", "relu3")
    assert objective.teacher_taps == ()
    images = torch.randn(4, *SHAPE)
    optimiser = torch.optim.SGD(student.parameters(), 0.01)
    losses = []
    for _ in range(8):
        with torch.no_grad():
            theirs = record(teacher, images, gradients=objective.teacher_gradients, labels=LABELS)
        loss = objective(student.record(images, objective.student_taps), theirs, LABELS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert reached(student) == {"conv1", "conv2", "conv3"}
    assert min(losses[1:]) < losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "nearest"}, "gradient-attention: resize must be 'pool' or 'bilinear', not 'nearest'"),
        ({"points": ["conv1"]}, "gradient-attention: the student's 'conv1' is no neuron layer"),
        ({"points": {"relu1": "relu9"}}, "unknown point of the teacher 'relu9'"),
        ({"points": {"relu1": "head.0"}}, "the teacher's feature at 'head.0' is no map"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GradientAttention.build(*pair(), SHAPE, **options)


def test_a_student_of_one_step_is_refused() -> None:
    with pytest.raises(InputError, match="gradient-attention needs at least 2 time steps"):
        GradientAttention.build(*pair(timesteps=1), SHAPE)
