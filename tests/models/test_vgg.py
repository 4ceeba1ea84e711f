from __future__ import annotations

import pytest
import torch
from torch import nn

from spikestill import models
from spikestill.models.vgg import HIDDEN, STAGES


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_conv3_has_three_convolutions_and_two_linear_layers_of_known_size():
    model = models.create("conv3", batch_norm=False, bias=False)

    convolutions = 9 * (3 * 64 + 64 * 128 + 128 * 256)
    # 32 x 32 pixels halved three times leave 4 x 4.
    linear = 4 * 4 * 256 * 512 + 512 * 10
    assert count(model) == convolutions + linear


def test_vgg16_has_the_published_convolutions():
    model = models.create("vgg16", num_classes=100)

    # Simonyan and Zisserman 2015: the convolutions of configuration D have 14 714 688 weights and biases (torchvision's
    # vgg16.features); ours trade 4224 biases for twice as many BatchNorm parameters.
    features = 14_714_688 - 4224 + 2 * 4224
    head = 2 * (512 * 512 + 512) + 512 * 100 + 100
    assert count(model) == features + head


@pytest.mark.parametrize("name", [name for name in STAGES if name != "conv3"])
def test_the_number_in_the_name_counts_the_weight_layers(name):
    model = models.create(name, width=0.125)
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]

    assert len(layers) == int(name.removeprefix("vgg").removeprefix("wide"))
    assert len(HIDDEN[name]) + 1 == sum(isinstance(layer, nn.Linear) for layer in layers)


@pytest.mark.parametrize(("size", "poolings", "inputs"), [(32, 5, 512), (8, 3, 512), (1, 0, 512), (64, 5, 2048)])
def test_poolings_stop_at_one_pixel_and_the_head_adapts(size, poolings, inputs):
    model = models.create("vgg16", image_size=size)

    assert sum(isinstance(module, nn.AvgPool2d) for module in model.modules()) == poolings
    assert model.get_submodule("head.linear1").in_features == inputs


def test_max_pooling_takes_the_place_of_every_average():
    model = models.create("vgg9", width=0.125, pooling="max")
    kinds = [type(module) for module in model.modules()]

    assert kinds.count(nn.MaxPool2d) == 4
    assert nn.AvgPool2d not in kinds


def test_dropout_stands_between_weight_layers_but_not_at_the_end_of_a_stage():
    paths = [
        path
        for path, module in models.create("vgg7", width=0.125, dropout=0.3).named_modules()
        if isinstance(module, nn.Dropout)
    ]

    assert paths == ["layer2.dropout1", "layer3.dropout1", "head.dropout1"]
    assert not any(isinstance(module, nn.Dropout) for module in models.create("vgg7", width=0.125).modules())


def test_a_layer_by_hand_gives_the_same_logits():
    torch.manual_seed(0)
    model = models.create("vgg5", in_channels=1, image_size=8, width=0.125, batch_norm=False).eval()
    weights = dict(model.named_parameters())
    images = torch.randn(3, 1, 8, 8)

    def convolve(maps: torch.Tensor, path: str) -> torch.Tensor:
        return nn.functional.conv2d(maps, weights[f"{path}.weight"], weights[f"{path}.bias"], padding=1).clamp(min=0)

    maps = convolve(images, "layer1.conv1").unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    maps = convolve(convolve(maps, "layer2.conv1"), "layer2.conv2")
    maps = maps.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)).flatten(1)
    hidden = (maps @ weights["head.linear1.weight"].T + weights["head.linear1.bias"]).clamp(min=0)
    logits = hidden @ weights["head.classifier.weight"].T + weights["head.classifier.bias"]
    torch.testing.assert_close(model(images), logits)
