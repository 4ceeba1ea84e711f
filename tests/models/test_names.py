from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from spikestill import models
from spikestill.types import InputError

NAMES = models.names()
LASNN = {"batch_norm": False, "bias": False, "dropout": 0.2}


def forward(model: nn.Module, channels: int, size: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return model.eval()(torch.randn(batch, channels, size, size, generator=generator))


def test_the_built_in_names():
    chains = ["conv3", "vgg5", "vgg7", "vgg9", "vgg11", "vgg13", "vgg16", "wide8"]
    residual = ["resnet12", "resnet18", "resnet19", "resnet20", "resnet34"]
    assert models.names() == [*chains, *residual, "densenet121"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16), (2, 32), (3, 5), (3, 1)])
def test_every_model_takes_every_image_size(name, channels, size):
    model = models.create(name, num_classes=7, in_channels=channels, image_size=size, width=0.125)

    logits = forward(model, channels, size)

    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, LASNN, {"bias": True}], ids=["default", "lasnn", "bias"])
def test_a_trace_equals_the_model(name, options):
    torch.manual_seed(0)
    model = models.create(name, in_channels=1, image_size=8, width=0.25, **options).eval()
    traced = fx.symbolic_trace(copy.deepcopy(model))
    images = torch.randn(2, 1, 8, 8)

    assert torch.equal(traced(images), model(images))


@pytest.mark.parametrize("name", NAMES)
def test_a_student_as_lasnn_has_it_has_no_bias_no_batch_norm_and_no_max_pooling(name):
    model = models.create(name, width=0.125, **LASNN)

    assert all(parameter.endswith(".weight") for parameter, _ in model.named_parameters())
    kinds = {type(module) for module in model.modules()}
    assert nn.Dropout in kinds
    assert not kinds & {nn.BatchNorm2d, nn.MaxPool2d}
    assert not list(model.buffers())


@pytest.mark.parametrize("name", NAMES)
def test_a_bias_stands_where_no_batch_norm_follows(name):
    with_norm = models.create(name, width=0.125)
    without = models.create(name, width=0.125, batch_norm=False)
    both = models.create(name, width=0.125, bias=True)

    def biases(model: nn.Module, kind: type[nn.Module]) -> set[bool]:
        return {module.bias is not None for module in model.modules() if isinstance(module, kind)}

    assert (biases(with_norm, nn.Conv2d), biases(with_norm, nn.Linear)) == ({False}, {True})
    assert (biases(without, nn.Conv2d), biases(without, nn.Linear)) == ({True}, {True})
    assert (biases(both, nn.Conv2d), biases(both, nn.Linear)) == ({True}, {True})


@pytest.mark.parametrize("name", NAMES)
def test_no_activation_works_in_place_and_none_is_shared(name):
    model = models.create(name, width=0.125)
    calls = [str(node.target) for node in fx.symbolic_trace(model).graph.nodes if node.op == "call_module"]
    activations = [path for path, module in model.named_modules() if isinstance(module, nn.ReLU)]

    assert activations
    assert [calls.count(path) for path in activations] == [1] * len(activations)
    assert not any(module.inplace for module in model.modules() if isinstance(module, nn.ReLU))


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_named_alike_and_end_in_their_activation(name):
    model = models.create(name, width=0.125)
    stages = [child for child, _ in model.named_children()]
    layers = [stage for stage in stages if stage.startswith("layer")]
    stem = [] if name.startswith(("conv", "vgg", "wide")) else ["stem"]

    assert layers == [f"layer{index}" for index in range(1, len(layers) + 1)]
    assert stages == [*stem, *layers, "head"]
    outputs = {}
    hooks = [
        child.register_forward_hook(lambda module, args, output, stage=stage: outputs.update({stage: output}))
        for stage, child in model.named_children()
    ]
    forward(model, 3, 32)
    assert len(hooks) == len(outputs) == len(stages)
    for stage in stages[:-1]:
        assert outputs[stage].min() == 0, stage
        assert outputs[stage].max() > 0, stage


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_the_weights_and_nothing_starts_at_zero_but_biases(name):
    models_of_seeds = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models_of_seeds.append(models.create(name, width=0.125))
    first, again, other = (dict(model.named_parameters()) for model in models_of_seeds)

    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    for key, value in first.items():
        assert value.abs().max() == 0 if key.endswith("bias") else value.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = models.create(name, in_channels=1, image_size=8, width=0.125, bias=True).train()
    model(torch.randn(4, 1, 8, 8)).logsumexp(1).sum().backward()

    silent = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert silent == []


@given(width=st.floats(0.01, 1.5), num_classes=st.integers(1, 40), in_channels=st.integers(1, 5))
def test_any_width_gives_multiples_of_eight(width, num_classes, in_channels):
    model = models.create("vgg5", num_classes=num_classes, in_channels=in_channels, image_size=8, width=width)

    channels = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    expected = [max(8, 8 * int(base * width / 8 + 0.5)) for base in (64, 128, 128)]
    assert channels == expected
    assert forward(model, in_channels, 8).shape == (2, num_classes)


@pytest.mark.parametrize("name", NAMES)
def test_width_scales_every_hidden_layer(name):
    half = models.create(name, width=0.5)
    whole = models.create(name)
    for (key, small), (_, large) in zip(half.named_parameters(), whole.named_parameters(), strict=True):
        if not key.startswith("head.classifier"):
            assert small.shape[0] * 2 == large.shape[0], key


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet21", {}, "unknown model 'resnet21': did you mean 'resnet20'."),
        ("vgg", {}, "torchvision:NAME"),
        ("hub:resnet18", {}, "unknown model 'hub:resnet18'"),
        ("vgg5", {"droput": 0.1}, "unknown option of vgg5 'droput': did you mean 'dropout'."),
        ("vgg5", {"stem": "cifar"}, "unknown option of vgg5 'stem'"),
        ("densenet121", {"stem": "cifar"}, "unknown option of densenet121 'stem'"),
        ("resnet18", {"stem": "cifra"}, "unknown stem of resnet18 'cifra': did you mean 'cifar'."),
        ("conv3", {"pooling": "mean"}, "unknown pooling of conv3 'mean'.*average, max"),
        ("conv3", {"dropout": 1.0}, "'conv3': dropout must be a probability .* below 1, not 1.0"),
        ("conv3", {"dropout": True}, "dropout must be a probability"),
        ("conv3", {"dropout": "much"}, "not 'much'"),
        ("conv3", {"batch_norm": 1}, "'conv3': batch_norm must be true or false, not 1"),
        ("conv3", {"bias": "no"}, "'conv3': bias must be true, false or null, not 'no'"),
        ("conv3", {"width": 0}, "'conv3': width must be a number above 0, not 0"),
        ("conv3", {"width": float("nan")}, "width must be a number above 0, not nan"),
        ("conv3", {"num_classes": 0}, "'conv3': num_classes must be a whole number of at least 1, not 0"),
        ("conv3", {"in_channels": -1}, "in_channels must be a whole number of at least 1, not -1"),
        ("conv3", {"image_size": 8.0}, "image_size must be a whole number of at least 1, not 8.0"),
        ("timm:resnet18", {"num_classes": 0}, "'timm:resnet18': num_classes must be a whole number"),
        ("conv3", {"pretrained": True}, "'conv3' has no pretrained weights: train it first"),
        ("resnet20", {"pooling": "max"}, "'resnet20' has no pooling behind its 'cifar' stem: leave out pooling='max'"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        models.create(name, **arguments)
    assert "\n" not in str(caught.value)
