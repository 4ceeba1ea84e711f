from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikestill.graph import to_spiking
from spikestill.objectives import Selective
from spikestill.objectives.selective import align_wrong_classes, temporal_target
from spikestill.types import InputError, Record
from tests.objectives.test_own_ensemble import softmax


def divergence(target: list[float], given: list[float], temperature: float) -> float:
    pairs = zip(softmax(target, temperature), softmax(given, temperature), strict=True)
    return temperature**2 * sum(p * math.log(p / q) for p, q in pairs)


def classes_by_hand(teacher: Tensor, steps: Tensor, labels: Tensor, temperature: float) -> float:
    total = 0.0
    for step in steps:
        for z, wanted, label in zip(step.tolist(), teacher.tolist(), labels.tolist(), strict=True):
            taken = z.index(max(z))
            if taken != label:
                z[taken] = z[label]
                wanted[label] = wanted[taken] = min(wanted[label], wanted[taken])
            total += divergence(wanted, z, temperature)
    return total / steps.shape[0] / steps.shape[1]


def time_by_hand(steps: Tensor, temperature: float) -> float:
    total = 0.0
    for image in range(steps.shape[1]):
        logits = [step[image].tolist() for step in steps]
        for t, z in enumerate(logits):
            powers, others = [], [other for u, other in enumerate(logits) if u != t]
            for other in others:
                p = softmax(other, 1.0)
                confidence = 1 + sum(q * math.log(q) for q in p) / math.log(len(p))
                cosine = sum(a * b for a, b in zip(z, other, strict=True)) / math.hypot(*z) / math.hypot(*other)
                powers.append(math.exp(confidence * cosine))
            target = [
                sum(power * other[k] for power, other in zip(powers, others, strict=True)) / sum(powers)
                for k in range(len(z))
            ]
            total += divergence(target, z, temperature)
    return total / steps.shape[0] / steps.shape[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 5), st.sampled_from([0.0, 0.25]), st.integers(0, 2**16))
def test_is_the_definition_step_by_step(steps: int, batch: int, classes: int, temporal: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(steps, batch, classes, generator=generator, dtype=torch.float64)
    teacher = 2 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    expected = classes_by_hand(teacher, logits, labels, 3.0)
    if steps > 1:
        expected += temporal * time_by_hand(logits, 3.0)
    loss = Selective(3.0, temporal)(Record(logits.mean(0), steps=logits), Record(teacher), labels)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_steps_that_are_right_are_left_as_they_are() -> None:
    steps, teacher = torch.randn(3, 5, 4), torch.randn(5, 4)
    labels = steps[0].argmax(-1)
    theirs, ours = align_wrong_classes(teacher, steps, labels)
    assert torch.equal(theirs[0], teacher)
    assert torch.equal(ours[0], steps[0])


def test_at_a_wrong_step_the_wrong_class_gets_no_gradient_and_the_true_one_that_of_both() -> None:
    steps = torch.tensor([[[0.5, 3.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[4.0, 1.0, 2.0]], requires_grad=True)
    Selective(1.0)(Record(steps.mean(0), steps=steps), Record(teacher), torch.tensor([0])).backward()
    assert teacher.grad is None
    difference = torch.tensor([0.5, 0.5, 0.0]).softmax(0) - torch.tensor([1.0, 1.0, 2.0]).softmax(0)
    expected = torch.stack([difference[0] + difference[1], torch.zeros(()), difference[2]])
    assert steps.grad is not None
    torch.testing.assert_close(steps.grad[0, 0], expected)


def test_steps_that_agree_are_each_others_target() -> None:
    step = torch.randn(1, 5, 4)
    torch.testing.assert_close(temporal_target(step.expand(3, 5, 4)), step.expand(3, 5, 4))


def test_the_target_in_time_is_detached_and_finite_for_silent_steps() -> None:
    steps = torch.zeros(3, 2, 4, requires_grad=True)
    target = temporal_target(steps)
    assert not target.requires_grad
    assert torch.equal(target, torch.zeros(3, 2, 4))


def test_gradients_reach_the_first_layer_and_rate_is_refused_with_the_way_out() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5))
    images, labels, teacher = torch.randn(32, 3, 2, 2), torch.arange(32) % 5, Record(torch.randn(32, 5))
    student = to_spiking(ann, input_shape=(3, 2, 2), gradient="bptt", timesteps=3)
    Selective()(student.record(images), teacher, labels).backward()
    assert float(student.body.get_submodule("1").weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]
    with pytest.raises(InputError, match="objective selective needs gradient: bptt.* train_timesteps: anytime"):
        Selective()(to_spiking(ann, input_shape=(3, 2, 2)).record(images), teacher, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "selective: temperature must be positive and finite, not 0.0"),
        ({"temporal": -0.1}, "selective: temporal must be 0 or more, and finite, not -0.1"),
        ({"temporal": math.inf}, "selective: temporal must be 0 or more, and finite, not inf"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Selective(**options)
