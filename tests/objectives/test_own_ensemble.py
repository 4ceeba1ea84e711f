from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikestill.graph import to_spiking
from spikestill.objectives import OwnEnsemble
from spikestill.objectives.own_ensemble import distil_correct
from spikestill.types import InputError, Record


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def by_hand(steps: Tensor, labels: Tensor, temperature: float) -> float:
    """Image by image and step by step, in plain Python."""
    total = 0.0
    for image, label in enumerate(labels.tolist()):
        logits = [step[image].tolist() for step in steps]
        right = [z for z in logits if z.index(max(z)) == label]
        if not right:
            continue
        target = softmax([sum(column) / len(right) for column in zip(*right, strict=True)], temperature)
        for z in logits:
            total += sum(p * math.log(p / q) for p, q in zip(target, softmax(z, temperature), strict=True))
    return temperature**2 * total / (len(steps) * len(labels))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 5), st.sampled_from([1.0, 3.0]), st.integers(0, 2**16))
def test_is_the_definition_image_by_image(steps: int, batch: int, classes: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(steps, batch, classes, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    loss = OwnEnsemble(temperature)(Record(logits.mean(0), steps=logits), None, labels)
    assert loss.item() == pytest.approx(by_hand(logits, labels, temperature), rel=1e-4, abs=1e-5)


def test_the_target_is_detached_and_images_without_a_right_step_get_no_gradient() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 3.0]]], requires_grad=True)
    distil_correct(logits, torch.tensor([0, 0]), 1.0).backward()
    assert logits.grad is not None
    # Of the first image the first step alone is right and is its own target; the second image has none.
    torch.testing.assert_close(logits.grad[0], torch.zeros(2, 2))
    torch.testing.assert_close(logits.grad[1, 1], torch.zeros(2))
    expected = (torch.tensor([0.0, 1.0]).softmax(0) - torch.tensor([2.0, 0.0]).softmax(0)) / 4
    torch.testing.assert_close(logits.grad[1, 0], expected)


@pytest.mark.parametrize("steps", [1, 3])
def test_no_right_step_at_all_adds_nothing_and_stays_finite(steps: int) -> None:
    logits = torch.zeros(steps, 2, 3)
    logits[..., 0] = 5
    logits.requires_grad_()
    loss = distil_correct(logits, torch.tensor([1, 2]), 3.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))  # type: ignore[arg-type]


def test_one_step_is_its_own_target() -> None:
    logits = torch.randn(1, 6, 4)
    assert distil_correct(logits, torch.arange(6) % 4, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_gradients_reach_the_first_layer_through_time_and_rate_is_refused_with_the_way_out() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5))
    images, labels = torch.randn(64, 3, 2, 2), torch.arange(64) % 5
    student = to_spiking(ann, input_shape=(3, 2, 2), gradient="bptt", timesteps=3)
    OwnEnsemble()(student.record(images), None, labels).backward()
    assert float(student.body.get_submodule("1").weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]
    with pytest.raises(InputError, match="objective own-ensemble needs gradient: bptt.* train_timesteps: anytime"):
        OwnEnsemble()(to_spiking(ann, input_shape=(3, 2, 2)).record(images), None, labels)


def test_is_in_float32_whatever_the_logits_are() -> None:
    assert (
        distil_correct(torch.randn(2, 3, 4).bfloat16(), torch.zeros(3, dtype=torch.int64), 3.0).dtype == torch.float32
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_another_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="own-ensemble: temperature must be positive and finite"):
        OwnEnsemble(temperature)
