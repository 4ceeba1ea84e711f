from __future__ import annotations

import math

import torch
from torch import nn

from spikestill.models.layers import convolution, initialise, linear, sequence
from spikestill.models.specification import Specification


def test_a_sequence_leaves_out_what_is_none():
    model = sequence({"first": nn.ReLU(), "gap": None, "last": nn.Identity()})

    assert [name for name, _ in model.named_children()] == ["first", "last"]


def test_weights_have_the_variance_of_he():
    spec = Specification("vgg5", batch_norm=False)
    torch.manual_seed(0)
    model = nn.Sequential(convolution(spec, 64, 64), nn.BatchNorm2d(64), linear(spec, 400, 300))
    initialise(model)
    conv, norm, dense = model

    # The sample's standard deviation has itself a relative one of 1 / sqrt(2 n): below 0.4 % here.
    assert math.isclose(conv.weight.std().item(), math.sqrt(2 / (9 * 64)), rel_tol=0.02)
    assert math.isclose(dense.weight.std().item(), math.sqrt(2 / 400), rel_tol=0.02)
    assert conv.bias.abs().max() == dense.bias.abs().max() == 0
    assert torch.equal(norm.weight, torch.ones(64))
