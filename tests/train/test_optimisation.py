from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.recipes import Optimiser, Schedule
from spikestill.train.optimisation import Rate, make_optimiser, make_schedule, parameter_groups


def test_only_weights_decay() -> None:
    ann = ss.models.create("vgg5", width=0.25, image_size=8)
    neuron = ss.LIF(learn=("leak", "threshold"))
    network = ss.to_spiking(ann, neuron=neuron, input_shape=(3, 8, 8))
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed, free = parameter_groups([network], 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    linear = {id(module.weight) for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert {id(parameter) for parameter in decayed["params"]} == linear
    free_names = [named[id(parameter)] for parameter in free["params"]]
    assert any("threshold" in name for name in free_names)
    assert any("leak" in name for name in free_names)
    assert any(name.endswith("bias") for name in free_names)
    assert len(free["params"]) + len(decayed["params"]) == len(named)


def test_shared_and_frozen_parameters() -> None:
    layer, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    groups = parameter_groups([layer, layer, frozen], 0.1)
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_a_parameter_without_decay_stays_where_its_gradient_is_zero(name: str, kind: type) -> None:
    layer = nn.Linear(3, 3)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    optimiser = make_optimiser(Optimiser(name=name, lr=0.1, weight_decay=0.5), [layer])
    assert isinstance(optimiser, kind)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert torch.equal(layer.bias, before["bias"])
    assert not torch.equal(layer.weight, before["weight"])


def test_cosine_rises_over_the_warm_up_and_ends_at_zero() -> None:
    rate = Rate(Schedule(name="cosine", warmup=0.5), epochs=4, steps_per_epoch=10)
    assert [rate(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate(5) == 1.0
    assert rate(5 + 35 // 5) == pytest.approx(0.5 * (1 + math.cos(math.pi / 5)))
    assert rate(40) == pytest.approx(0.0)
    assert all(rate(step) > rate(step + 1) for step in range(5, 39))


def test_steps_fall_at_their_milestones() -> None:
    rate = Rate(Schedule(name="step", milestones=(2, 3), factor=0.1), epochs=4, steps_per_epoch=10)
    assert [rate(step) for step in (0, 19, 20, 29, 30, 39)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Rate(Schedule(name="constant"), epochs=1, steps_per_epoch=3)(2) == 1.0


def test_the_schedule_sets_the_rate_of_every_step() -> None:
    layer = nn.Linear(2, 2)
    optimiser = make_optimiser(Optimiser(lr=0.2), [layer])
    schedule = make_schedule(Schedule(warmup=1), optimiser, epochs=2, steps_per_epoch=2)
    rates = []
    for _ in range(4):
        rates.append(optimiser.param_groups[0]["lr"])
        layer(torch.ones(1, 2)).sum().backward()
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx([0.1, 0.2, 0.2, 0.1])
