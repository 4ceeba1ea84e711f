from __future__ import annotations

import torch
from torch import nn

import spikestill as ss
from spikestill.train.nonfinite import first_nonfinite

IMAGES = torch.rand(2, 3, 8, 8)


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_a_network_that_is_finite_has_none() -> None:
    assert first_nonfinite(chain(), IMAGES) is None


def test_weights_come_before_what_they_make() -> None:
    ann = chain()
    with torch.no_grad():
        ann[3].weight[0, 0] = torch.nan
    assert first_nonfinite(ann, IMAGES) == "the weights 3.weight are not finite"
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), timesteps=2)
    assert first_nonfinite(snn, IMAGES) == "the weights 3.weight are not finite"


def test_the_first_output_is_named_and_nothing_is_left_behind() -> None:
    ann = chain()
    with torch.no_grad():
        ann[0].weight.fill_(3e38)
    assert first_nonfinite(ann, IMAGES) == "the output of 0 is the first that is not finite"
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), timesteps=2)
    assert first_nonfinite(snn, IMAGES) == "the output of 0 is the first that is not finite"
    assert not any(module._forward_hooks for module in [*ann.modules(), *snn.modules()])
