from __future__ import annotations

import pytest
import torch
from torch import nn

from spikestill import models
from spikestill.models.resnet import PLANS, BasicBlock


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "size", "parameters"),
    [
        # Known sizes: torchvision's documentation for the ImageNet stem; with one 3x3 convolution in its place,
        # 64 x 3 x (49 - 9) weights fewer and another classifier.
        ("resnet18", 1000, 224, 11_689_512),
        ("resnet34", 1000, 224, 21_797_672),
        ("resnet18", 10, 32, 11_689_512 - 64 * 3 * 40 - 990 * 513),
        ("resnet34", 10, 32, 21_797_672 - 64 * 3 * 40 - 990 * 513),
        # He et al. 2016 print 0.27 M without projections (269 722 with BatchNorm); two 1x1 projections come to it.
        ("resnet20", 10, 32, 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)),
    ],
)
def test_known_parameter_counts(name, classes, size, parameters):
    assert count(models.create(name, num_classes=classes, image_size=size)) == parameters


def test_resnet12_without_bias_by_hand():
    stem = 9 * (3 * 64 + 2 * 64 * 64)
    first = 2 * 9 * 64 * 64
    later = sum(9 * (low * 2 * low + 4 * low * low) + 2 * low * low for low in (64, 128, 256))
    assert count(models.create("resnet12", batch_norm=False, bias=False)) == stem + first + later + 512 * 10


@pytest.mark.parametrize("name", PLANS)
def test_the_number_in_the_name_counts_the_weight_layers(name):
    model = models.create(name, width=0.125)
    layers = [
        path
        for path, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in path
    ]

    assert len(layers) == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_the_imagenet_stem_with_max_pooling_is_the_published_network(name):
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, num_classes=6).eval()
    ours = models.create(name, num_classes=6, image_size=64, stem="imagenet", pooling="max").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64, 64)

    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "stem", "expected"),
    [
        (64, None, {"conv": (3, 1)}),
        (65, None, {"conv": (7, 2)}),
        (32, "imagenet", {"conv": (7, 2)}),
        (96, "cifar", {"conv": (3, 1)}),
        (32, "three-conv", {"conv1": (3, 1), "conv2": (3, 1), "conv3": (3, 1)}),
    ],
)
def test_the_stem_follows_the_image_size_unless_it_is_named(size, stem, expected):
    model = models.create("resnet18", width=0.125, image_size=size, stem=stem)
    convolutions = {
        path: (module.kernel_size[0], module.stride[0])
        for path, module in model.get_submodule("stem").named_modules()
        if isinstance(module, nn.Conv2d)
    }

    assert convolutions == expected


@pytest.mark.parametrize(
    ("stem", "pooling", "sizes"),
    [
        ("cifar", "average", [64, 64, 32, 16, 8]),
        ("imagenet", "average", [32, 16, 8, 4, 2]),
        ("imagenet", "max", [32, 16, 8, 4, 2]),
        ("three-conv", "max", [64, 32, 16, 8, 4]),
    ],
)
def test_the_maps_of_every_stage(stem, pooling, sizes):
    model = models.create("resnet34", width=0.125, image_size=64, stem=stem, pooling=pooling).eval()
    maps, seen = torch.zeros(1, 3, 64, 64), []
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        maps = model.get_submodule(stage)(maps)
        seen.append(maps.shape[-1])

    assert seen == sizes
    assert model.get_submodule("head")(maps).shape == (1, 10)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_an_imagenet_stem_on_a_tiny_image(size, pooling):
    model = models.create("resnet18", width=0.125, image_size=size, stem="imagenet", pooling=pooling).eval()

    assert model(torch.randn(2, 3, size, size)).shape == (2, 10)
    pools = [type(module) for module in model.modules() if isinstance(module, (nn.AvgPool2d, nn.MaxPool2d))]
    assert pools == ([] if size < 3 else [nn.MaxPool2d if pooling == "max" else nn.AvgPool2d])


def test_resnet12_has_lasnns_stem_and_blocks():
    model = models.create("resnet12", width=0.125, batch_norm=False, bias=False, dropout=0.2)

    stem = [type(module) for module in model.get_submodule("stem").children()]
    assert stem == [nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d, nn.ReLU]
    block = model.get_submodule("layer2.block1")
    assert isinstance(block, BasicBlock)
    assert [type(module) for module in block.branch.children()] == [nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    assert [module.kernel_size for module in block.shortcut.children()] == [(1, 1)]
    assert isinstance(model.get_submodule("layer1.block1.shortcut"), nn.Identity)


def test_resnet19_has_a_hidden_linear_layer():
    head = models.create("resnet19", dropout=0.1).get_submodule("head")

    assert [name for name, _ in head.named_children()] == ["pool", "flatten", "linear", "relu", "dropout", "classifier"]
    assert head.get_submodule("linear").weight.shape == (256, 512)
