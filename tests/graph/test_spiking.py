from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph import SpikingNetwork, check, to_spiking
from spikestill.nn import LIF
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, SHAPE, Careful, network


def without_neurons(snn: SpikingNetwork, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """The graph with activations in the places of its neurons."""
    body = copy.deepcopy(snn.body).eval()
    for name, _ in snn.neurons():
        body.set_submodule(name, activation())
    return body


def assert_equals_ann(ann: nn.Module, shape: tuple[int, ...], activations: int, capped: bool = False) -> SpikingNetwork:
    """With ReLU back in the neurons' places, the graph gives the ANN's logits; the ANN is as it was."""
    ann.eval()
    with torch.no_grad():
        for name, buffer in ann.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    modules = {name: (type(module), module.training) for name, module in ann.named_modules()}
    snn = to_spiking(ann, input_shape=shape)
    assert {name: (type(module), module.training) for name, module in ann.named_modules()} == modules
    assert all(torch.equal(before[name], value) for name, value in ann.state_dict().items())
    assert not any(module._forward_hooks for module in ann.modules())

    neurons = [name for name, _ in snn.neurons()]
    assert len(neurons) == len(set(neurons)) == activations
    assert len(check(ann, shape).activations) == activations
    assert before.keys() <= snn.body.state_dict().keys()
    assert all(torch.equal(before[name], snn.body.state_dict()[name]) for name in before)
    images = torch.randn(2, *shape)
    with torch.no_grad():
        expected = ann(images.clone())
        assert torch.equal(without_neurons(snn, nn.ReLU6 if capped else nn.ReLU)(images), expected)
        assert expected.std() > 0
    return snn


@pytest.mark.parametrize("name", NETWORKS)
def test_with_relu_in_the_neurons_places_it_is_the_ann(name: str) -> None:
    ann = network(name)
    assert_equals_ann(ann, SHAPE, len(check(ann, SHAPE).activations))


TORCHVISION = {
    "resnet18": 17,
    "mobilenet_v2": 35,
    "vgg16_bn": 15,
    "densenet121": 121,
    "resnet50": 49,
}
TIMM = {"resnet18": 17, "mobilenetv2_100": 35, "vgg16_bn": 15, "densenet121": 121, "resnet50": 49}


def _with_the_large_ones_slow(names: dict[str, int]) -> list[Any]:
    slow = ("vgg16_bn", "densenet121")
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", _with_the_large_ones_slow(TORCHVISION))
def test_torchvision_models(name: str) -> None:
    import torchvision

    ann = torchvision.models.get_model(name, weights=None, num_classes=7)
    assert_equals_ann(ann, (3, 32, 32), TORCHVISION[name], capped="mobilenet" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", _with_the_large_ones_slow(TIMM))
def test_timm_models(name: str) -> None:
    import timm

    ann = timm.create_model(name, num_classes=7)
    assert_equals_ann(ann, (3, 32, 32), TIMM[name], capped="mobilenet" in name)


@pytest.mark.slow
def test_timm_vgg_at_the_size_it_was_made_for() -> None:
    import timm

    assert_equals_ann(timm.create_model("vgg16_bn", num_classes=7), (3, 224, 224), 15)


def test_torchvisions_resnet_calls_nine_modules_seventeen_times() -> None:
    import torchvision

    ann = torchvision.models.resnet18(num_classes=7)
    assert sum(isinstance(module, nn.ReLU) for module in ann.modules()) == 9
    names = [name for name, _ in to_spiking(ann, input_shape=(3, 32, 32)).neurons()]
    assert names[:5] == ["relu", "layer1.0.relu", "layer1.0.relu_2", "layer1.1.relu", "layer1.1.relu_2"]


def test_every_call_has_a_neuron_of_its_own() -> None:
    snn = to_spiking(network("residual"), neuron=LIF(leak=0.7, threshold=0.4), input_shape=SHAPE)
    neurons = dict(snn.neurons())
    assert list(neurons) == ["2", "3.relu", "3.relu_2", "4.relu", "4.relu_2"]
    neurons["3.relu"].set_threshold(2.0)
    assert [float(neuron.threshold) for neuron in neurons.values()] == pytest.approx([0.4, 2.0, 0.4, 0.4, 0.4])


def test_the_given_neuron_is_copied() -> None:
    template = LIF(threshold=0.4)
    for _, neuron in to_spiking(network("plain"), neuron=template, input_shape=SHAPE).neurons():
        assert neuron is not template
        neuron.set_threshold(3.0)
    assert float(template.threshold) == pytest.approx(0.4)


class Spelled(nn.Module):
    """ReLU as module, function, method and in place, and a name that numbering could take."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.relu, self.relu_2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.relu(self.conv(x))
        x = functional.relu(self.conv(x), inplace=True)
        x = self.conv(x).relu_() + torch.relu(self.conv(x)) + self.conv(x).relu()
        return self.relu_2(self.conv(x))


def test_every_spelling_of_relu_becomes_a_neuron_and_names_stay_where_they_were() -> None:
    snn = assert_equals_ann(Spelled(), SHAPE, 7)
    names = [name for name, _ in snn.neurons()]
    assert names == ["relu", "relu_3", "relu_4", "relu_5", "relu_6", "relu_7", "relu_2"]


def test_functional_dropout_becomes_a_module_that_follows_the_mode() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.dropout(functional.relu(self.conv(x)), 0.25, training=self.training)
            return functional.dropout(x, training=self.training)

    for training in (True, False):
        snn = to_spiking(Dropping().train(training), input_shape=SHAPE)
        dropouts = {name: module for name, module in snn.body.named_modules() if isinstance(module, nn.Dropout)}
        assert {name: module.p for name, module in dropouts.items()} == {"dropout": 0.25, "dropout_2": 0.5}
        assert all(module.training == training for module in dropouts.values())
        images = torch.ones(2, *SHAPE)
        assert torch.equal(snn.eval()(images), snn(images))


def test_average_pooling_in_the_place_of_maxima() -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return functional.max_pool2d(self.pool(functional.relu(self.conv(x))), 2, stride=1)

    ann = Pooling()
    kept = to_spiking(ann, input_shape=SHAPE)
    assert [node.target for node in kept.body.graph.nodes].count(torch.max_pool2d) == 2
    snn = to_spiking(ann, input_shape=SHAPE, max_pool="average").eval()
    pools = [node for node in snn.body.graph.nodes if node.target is functional.avg_pool2d]
    assert [node.args[1:] for node in pools] == [
        ((3, 3), (2, 2), (1, 1), False, False),
        ((2, 2), (1, 1), (0, 0), False, False),
    ]
    assert not any(node.target is torch.max_pool2d for node in snn.body.graph.nodes)
    assert snn(torch.randn(2, *SHAPE)).shape == ann(torch.randn(2, *SHAPE)).shape


@pytest.mark.parametrize("size", [1, 3, (None, 2)])
def test_an_adaptive_maximum_made_average_keeps_its_size(size: Any) -> None:
    ann = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(size))
    snn = to_spiking(ann, input_shape=SHAPE, max_pool="average").eval()
    assert snn(torch.randn(2, *SHAPE)).shape == ann(torch.randn(2, *SHAPE)).shape


def test_maxima_without_a_rule_are_refused_by_name() -> None:
    ann = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2, dilation=2))
    with pytest.raises(InputError, match="cannot replace the dilated pooling at '2'"):
        to_spiking(ann, input_shape=SHAPE, max_pool="average")
    with pytest.raises(InputError, match="max_pool must be 'keep', 'gate' or 'average'"):
        to_spiking(ann, input_shape=SHAPE, max_pool="mean")  # type: ignore[arg-type]


def test_what_cannot_spike_is_refused_and_the_model_left_alone() -> None:
    ann = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.GELU(), nn.Sequential(nn.GroupNorm(2, 4)))
    with pytest.raises(InputError, match=r"2 \(GELU\).*3.0 \(GroupNorm\)"):
        to_spiking(ann, input_shape=SHAPE)
    assert isinstance(ann[1], nn.ReLU)


def test_changing_the_network_does_not_change_the_ann() -> None:
    ann = network("normalised")
    before = copy.deepcopy(ann.state_dict())
    snn = to_spiking(ann, neuron=LIF(threshold=0.2), input_shape=SHAPE)
    loss = snn(torch.randn(4, *SHAPE)).square().sum()
    loss.backward()
    torch.optim.SGD(snn.parameters(), 0.1).step()
    assert all(torch.equal(before[name], value) for name, value in ann.state_dict().items())
    assert all(parameter.grad is None for parameter in ann.parameters())


def test_the_anns_weights_can_be_loaded() -> None:
    ann, other = network("residual"), network("residual")
    snn = to_spiking(other, input_shape=SHAPE)
    missing, unexpected = snn.body.load_state_dict(ann.state_dict(), strict=False)
    assert not unexpected
    assert {name.rpartition(".")[2] for name in missing} == {"leak", "threshold"}
    assert torch.equal(without_neurons(snn)(torch.ones(1, *SHAPE)), ann.eval()(torch.ones(1, *SHAPE)))


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_network_that_decides_by_sizes_spikes_and_learns(gradient: str) -> None:
    snn = to_spiking(
        Careful(),
        neuron=LIF(threshold=0.1),
        timesteps=3,
        gradient=gradient,  # type: ignore[arg-type]
        input_shape=SHAPE,
    )
    images = torch.randn(4, *SHAPE)
    logits = snn(images)
    torch.testing.assert_close(logits, snn.unroll(images).mean(0), rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in snn.parameters())
