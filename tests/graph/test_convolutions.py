"""Convolutions of a spiking graph: by events or not, they are torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations

import spikestill as ss
from spikestill.dynamics import spike_convolution
from spikestill.graph import convolutions
from spikestill.graph.convolutions import KnownConvolution, spike_output
from tests.graph.judging import assert_same_gradients

CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
    "2d": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "2d, strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 4, 7, 6)),
    "2d, dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), (2, 4, 7, 6)),
    "2d, grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 6)),
    "2d, depth-wise": (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 7, 6)),
    "3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
}


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_known_output_has_the_gradients_of_the_ordinary_layer(name: str, has_bias: bool) -> None:
    module, shape = CONVOLUTIONS[name]
    module = module.double()
    given = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    bias = module.bias if has_bias else None
    output = module._conv_forward(given, module.weight, bias)  # type: ignore[operator]
    assert KnownConvolution.covers(module)
    ours = KnownConvolution.apply(given, module.weight, bias, output.detach(), module)
    assert_same_gradients(ours, output, [given, module.weight, *([bias] if bias is not None else [])])  # type: ignore[list-item]


def test_convolutions_that_pad_otherwise_are_not_covered() -> None:
    assert not KnownConvolution.covers(nn.Conv2d(2, 2, 3, padding="same"))
    assert not KnownConvolution.covers(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """What every call of the convolution by events gave."""
    results: list[Tensor | None] = []

    def noted(*arguments: object) -> Tensor | None:
        results.append(spike_convolution.convolve_spikes(*arguments))  # type: ignore[arg-type]
        return results[-1]

    monkeypatch.setattr(convolutions, "convolve_spikes", noted)
    return results


def spikes_of(*shape: int) -> Tensor:
    return (torch.rand(shape) < 0.2).float().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_output_by_events_has_the_layer_s_gradients(
    has_bias: bool, stride: int, called: list[Tensor | None]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(48, 64, 3, stride, padding=1, bias=has_bias)
    spikes = spikes_of(32, 48, 9, 9).requires_grad_()
    ours, theirs = spike_output(layer, spikes), layer(spikes)
    assert called[0] is not None
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    inputs = [spikes, *layer.parameters()]
    for got, wanted in zip(*(torch.autograd.grad(one, inputs, weights) for one in (ours, theirs)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert not spike_output(layer, spikes).requires_grad


def test_layers_that_are_more_than_a_convolution_are_called(called: list[Tensor | None]) -> None:
    spikes, seen = spikes_of(32, 48, 9, 9), []
    watched = nn.Conv2d(48, 64, 3)
    watched.register_forward_hook(lambda *_: seen.append("hook"))
    normed = parametrizations.weight_norm(nn.Conv2d(48, 64, 3))
    grouped, mirrored = nn.Conv2d(48, 64, 3, groups=2), nn.Conv2d(48, 64, 3, padding=1, padding_mode="reflect")
    for layer in (watched, normed, grouped, mirrored, nn.Conv2d(48, 64, 3, padding="same"), nn.AvgPool2d(2)):
        assert torch.equal(spike_output(layer, spikes), layer(spikes))
    replaced, plain = nn.Conv2d(48, 64, 3), nn.Conv2d(48, 64, 3)
    replaced.forward = lambda batch: batch + 1  # type: ignore[method-assign]
    assert torch.equal(spike_output(replaced, spikes), spikes + 1)
    with register_module_forward_hook(lambda *_: seen.append("everyone's")):
        spike_output(plain, spikes)
    assert called == []
    assert seen == ["hook", "hook", "everyone's"]
    spike_output(plain, spikes)
    assert len(called) == 1


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "autocast"])
def test_a_gradient_of_gradients_is_torch_s(mixed: bool, called: list[Tensor | None]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(48, 64, 3, padding=1)
    spikes = spikes_of(16, 48, 9, 9).requires_grad_()
    inputs, found = (spikes, layer.weight), []
    for function in (spike_output, lambda module, batch: module(batch)):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            output = function(layer, spikes)
        (by_weight,) = torch.autograd.grad(output.float().square().sum(), layer.weight, create_graph=True)
        found.append(torch.autograd.grad(by_weight.square().sum(), inputs))
    assert called[0] is not None
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < (0.05 if mixed else 1e-4) * theirs.norm()


def test_a_convolution_of_a_constant_is_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.place, self.relu = nn.Parameter(torch.randn(1, 4, 6, 6)), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            return self.relu(self.second(self.relu(self.first(images))) + self.third(self.place)).mean((2, 3))

    torch.manual_seed(0)
    net, images = Net(), torch.rand(8, 3, 8, 8)
    snn = ss.to_spiking(net, neuron=ss.LIF(), timesteps=4, gradient="bptt", input_shape=(3, 8, 8))
    snn(images).sum().backward()
    assert net.place.grad is None
    assert snn.get_submodule("body").place.grad is not None  # type: ignore[union-attr]


def network(gradient: str, recompute: bool = False) -> ss.SpikingNetwork:
    """Wide enough for convolutions by events, of numbers so short that sums are exact in whatever order."""
    torch.manual_seed(1)
    widths = ((3, 48), (48, 64), (64, 48))
    layers = [module for a, b in widths for module in (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())]
    ann = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48 * 16, 5))
    with torch.no_grad():
        for parameter in ann.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    neuron = ss.LIF(leak=0.5, threshold=0.5)
    snn = ss.to_spiking(ann, neuron=neuron, timesteps=6, gradient=gradient, input_shape=(3, 8, 8))  # type: ignore[arg-type]
    snn.recompute = recompute
    return snn.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recompute"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_network_trains_as_it_does_without(
    gradient: str, recompute: bool, called: list[Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = network(gradient, recompute)
    theirs = copy.deepcopy(ours)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(16, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(5, (16,), generator=generator)
    functional.cross_entropy(ours(images), labels).backward()
    assert len(called) >= 2
    assert all(result is not None for result in called)
    monkeypatch.setattr(spike_convolution, "_FEWEST_PLACES", 10**9)
    functional.cross_entropy(theirs(images), labels).backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_network_answers_as_it_does_without(called: list[Tensor | None], monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network("rate").eval()
    images = torch.randn(16, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        ours = snn(images)
        assert len(called) == 2
        assert all(result is not None for result in called)
        monkeypatch.setattr(spike_convolution, "_FEWEST_PLACES", 10**9)
        torch.testing.assert_close(ours, snn(images))
