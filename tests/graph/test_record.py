"""What one pass of a network leaves: features under every name, and the gradients of a teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from spikestill.graph import record, to_spiking, trace
from spikestill.nn import Events
from spikestill.types import InputError
from tests.graph.networks import gradients, spiking

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


@pytest.mark.parametrize("mode", ["rate", "bptt"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["residual", "plain", "dropout", "linear"])
@pytest.mark.parametrize("timesteps", [1, 3, 6, 11])
def test_with_another_t_it_is_the_record_of_a_network_of_that_t(
    name: str, mode: Any, recompute: bool, timesteps: int
) -> None:
    """Values, gradients and running statistics to the last bit; beyond 4 and 8 steps other ways of running serve."""
    one = spiking(name, timesteps=5, gradient=mode, recompute=recompute)
    two = spiking(name, timesteps=timesteps, gradient=mode, recompute=recompute)
    two.load_state_dict(one.state_dict())
    images, taps = torch.randn(4, *SHAPE), [next(layer for layer, _ in one.neurons())]
    found = []
    for network, given in ((one, timesteps), (two, None)):
        torch.manual_seed(0)  # of dropout's mask
        kept = network.record(images, taps, given)
        (functional.cross_entropy(kept.logits, LABELS) + kept.features[taps[0]].square().mean()).backward()
        found.append(kept)
    assert found[0].timesteps == found[1].timesteps == timesteps
    assert torch.equal(found[0].logits, found[1].logits)
    assert torch.equal(found[0].features[taps[0]], found[1].features[taps[0]])
    assert (found[0].steps is None) == (mode == "rate")
    theirs = gradients(two)
    for weight, value in gradients(one).items():
        assert torch.equal(value, theirs[weight]), weight
    assert all(torch.equal(here, there) for here, there in zip(one.buffers(), two.buffers(), strict=True))


def test_events_are_as_many_as_the_steps_that_are_asked_for() -> None:
    snn = spiking("plain", timesteps=4, encoder=Events())
    frames = torch.rand(4, 2, *SHAPE)
    assert snn.record(frames[:2], timesteps=2).timesteps == 2
    with pytest.raises(InputError, match="the events have 4 frames, the network runs 2 time steps"):
        snn.record(frames, timesteps=2)


def test_fewer_steps_than_one_are_refused() -> None:
    with pytest.raises(InputError, match="the number of time steps must be at least 1, not 0"):
        spiking("plain").record(torch.randn(2, *SHAPE), timesteps=0)
