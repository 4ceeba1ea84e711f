"""What one pass of a network leaves: features under every name, and the gradients of a teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from spikestill.graph import record, to_spiking, trace

SHAPE = (3, 8, 8)
LABELS = torch.tensor([0, 3, 1, 4])


def staged() -> nn.Sequential:
    stage = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), stage, nn.Flatten(), nn.Linear(16, 5))


def frozen(ann: nn.Module) -> fx.GraphModule:
    return trace(ann, SHAPE).eval().requires_grad_(False)


def test_the_teachers_gradients_are_those_of_autograd() -> None:
    """By hand: each image's cross-entropy, differentiated by its own activations; whatever else is in the batch."""
    ann = staged()
    teacher = frozen(ann)
    images = torch.randn(4, *SHAPE)
    with torch.no_grad():
        found = record(teacher, images, ["2"], gradients=["1", "2.1"], labels=LABELS)
    for index in range(4):
        one = ann[1](ann[0](images[index : index + 1])).detach().requires_grad_()
        two = ann[2](one)
        logits = ann[4](ann[3](two))
        given = torch.autograd.grad(functional.cross_entropy(logits, LABELS[index : index + 1]), [one, two])
        torch.testing.assert_close(found.gradients["1"][index], given[0][0])
        torch.testing.assert_close(found.gradients["2.1"][index], given[1][0])
        torch.testing.assert_close(found.logits[index], logits[0].detach())
        torch.testing.assert_close(found.features["2"][index], two[0].detach())
    assert not found.logits.requires_grad
    assert not found.features["2"].requires_grad


def test_points_before_an_activation_in_place_keep_their_own_values_and_gradients() -> None:
    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5)
    teacher = frozen(nn.Sequential(*layers))
    images = torch.randn(4, *SHAPE)
    found = record(teacher, images, ["0"], gradients=["0"], labels=LABELS)
    before = layers[0](images).detach().requires_grad_()
    loss = functional.cross_entropy(layers[3](functional.relu(before).flatten(1)), LABELS, reduction="sum")
    torch.testing.assert_close(found.features["0"], before.detach())
    torch.testing.assert_close(found.gradients["0"], torch.autograd.grad(loss, before)[0])
    torch.testing.assert_close(record(teacher, images, ["0"]).features["0"], before.detach())


def test_a_record_without_gradients_has_none() -> None:
    found = record(frozen(staged()), torch.randn(4, *SHAPE), ["1"])
    assert not found.gradients
    assert list(found.features) == ["1"]


@pytest.mark.parametrize("mode", ["rate", "bptt"])
def test_a_point_may_be_asked_for_under_several_names(mode: Any) -> None:
    """Two objectives may call the same point by the stage and by its last layer."""
    student = to_spiking(staged(), gradient=mode, timesteps=2, input_shape=SHAPE)
    images = torch.randn(4, *SHAPE)
    found = student.record(images, ["2", "2.1", "1"])
    assert set(found.features) == {"1", "2", "2.1"}
    assert torch.equal(found.features["2"], found.features["2.1"])
    theirs = record(frozen(staged()), images, ["2", "2.1"], gradients=["2.1", "2"], labels=LABELS)
    assert torch.equal(theirs.features["2"], theirs.features["2.1"])
    assert torch.equal(theirs.gradients["2"], theirs.gradients["2.1"])
