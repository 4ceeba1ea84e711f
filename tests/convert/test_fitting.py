"""``calibrate(correct="weights")``: what is fitted, to what, and what is left as it was."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import spikestill as ss
from spikestill.convert import restore
from spikestill.convert.fitting import segment_before
from spikestill.graph import SpikingNetwork
from spikestill.graph.sequence import SequenceRun
from tests.convert.networks import ALL, PUBLISHED, images, pair
from tests.convert.test_convert import activations

T = 4
FAST = {"iterations": 60, "learning_rate": 5e-4}


def light_and_fitted(name: str, inputs: Tensor, **options: object) -> tuple[nn.Module, SpikingNetwork, SpikingNetwork]:
    """An ANN, and its spiking network before and after the fit."""
    ann, light = pair(name)
    fitted = copy.deepcopy(light)
    ss.convert(light, ann, inputs.split(3), "calibrate", timesteps=T, correct="light", **PUBLISHED)
    ss.convert(fitted, ann, inputs.split(3), "calibrate", timesteps=T, correct="weights", **{**PUBLISHED, **options})  # type: ignore[arg-type]
    return ann, light, fitted


def quantised(current: Tensor, threshold: Tensor) -> Tensor:
    return (current * T / threshold).clamp(0, T).floor() * threshold / T


def errors_by_layer(ann: nn.Module, weights: SpikingNetwork, rates: SpikingNetwork, inputs: Tensor) -> list[float]:
    """The squared error of every fitted layer with the weights of one network, given the input rates of another."""
    body = rates.body
    neurons = [node for node in body.graph.nodes if str(node.target) in dict(rates.neurons())]
    (read_out,) = next(node for node in body.graph.nodes if node.op == "output").args
    with torch.no_grad():
        wanted = [*activations(ann, inputs), ann(inputs)]
        found = []
        for index, end in enumerate([*(node.args[0] for node in neurons), read_out]):
            segment = segment_before(body, end)
            if segment is None:
                continue
            run = SequenceRun(body, T, taps={node: node.name for node in segment.sources})
            run.sequence(inputs.unsqueeze(0))
            given = tuple(run.tapped[node.name].mean(0) for node in segment.sources)
            parameters = {name: weights.body.get_parameter(name) for name in segment.parameters}
            shown = functional_call(segment.graph, parameters, given)
            if end is not read_out:
                shown = quantised(shown, weights.body.get_submodule(str(neurons[index].target)).threshold)
            found.append(float((shown - wanted[index]).square().mean()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name != "arithmetic"])  # its ReLU6 is not watched
def test_the_error_of_every_fitted_layer_falls(name: str) -> None:
    inputs = images(9)
    ann, light, fitted = light_and_fitted(name, inputs, **FAST)
    before, after = (errors_by_layer(ann, weights, fitted, inputs) for weights in (light, fitted))
    assert len(before) >= 3
    assert all(one < other for one, other in zip(after, before, strict=True))
    assert after[-1] < 0.9 * before[-1]


def test_the_errors_of_a_plain_network_by_hand() -> None:
    inputs = images(9)
    ann, light, fitted = light_and_fitted("plain", inputs, **FAST)
    rates: dict[str, Tensor] = {}
    with torch.no_grad():
        fitted.unroll(inputs, T, lambda name, spikes: rates.update({name: spikes.mean(0)}))
        one, other = activations(ann, inputs)

        def errors(snn: SpikingNetwork) -> list[float]:
            weights, thresholds = snn.body.state_dict(), [neuron.threshold for _, neuron in snn.neurons()]
            first = nn.functional.conv2d(inputs, weights["0.weight"], weights["0.bias"], padding=1)
            second = nn.functional.conv2d(rates["2"], weights["3.0.weight"], weights["3.0.bias"], padding=1)
            pooled = rates["3.1"].mean((2, 3))
            logits = nn.functional.linear(pooled, weights["6.weight"], weights["6.bias"])
            pairs = (
                (quantised(first, thresholds[0]), one),
                (quantised(second, thresholds[1]), other),
                (logits, ann(inputs)),
            )
            return [float((given - wanted).square().mean()) for given, wanted in pairs]

        before, after = errors(light), errors(fitted)
    assert before == pytest.approx(errors_by_layer(ann, light, fitted, inputs), rel=1e-4)
    assert all(one < 0.97 * other for one, other in zip(after, before, strict=True))


@pytest.mark.parametrize("name", ["plain", "residual", "dense", "gathering", "linear"])
def test_nothing_but_weights_and_biases_changes(name: str) -> None:
    inputs = images(6)
    _, light, fitted = light_and_fitted(name, inputs, iterations=5)
    one, other = light.state_dict(), fitted.state_dict()
    assert list(one) == list(other)
    changed = {key for key in one if not torch.equal(one[key], other[key])}
    assert changed
    assert {key.rpartition(".")[2] for key in changed} <= {"weight", "bias"}
    assert [node.name for node in light.body.graph.nodes] == [node.name for node in fitted.body.graph.nodes]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in fitted.parameters())


def test_the_defaults_make_small_steps_from_where_light_ended() -> None:
    inputs = images(6)
    ann, light, fitted = light_and_fitted("plain", inputs, iterations=50)
    one, other = light.state_dict(), fitted.state_dict()
    assert 0 < max(float((other[key] - one[key]).abs().max()) for key in one) <= 50 * 1e-5
    before, after = (errors_by_layer(ann, weights, fitted, inputs) for weights in (light, fitted))
    assert all(one <= other for one, other in zip(after, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "residual", "max pooling", "arithmetic"])
def test_logits_of_other_images_come_nearer_to_the_ann(name: str) -> None:
    inputs, others = images(24), images(24)
    ann, plain = pair(name)
    light, fitted = copy.deepcopy(plain), copy.deepcopy(plain)
    for snn, correct in ((plain, "none"), (light, "light"), (fitted, "weights")):
        ss.convert(snn, ann, inputs.split(8), "calibrate", timesteps=T, correct=correct, **FAST, **PUBLISHED)
    with torch.no_grad():
        wanted = ann(others)
        errors = [float((snn.unroll(others, T).mean(0) - wanted).square().mean()) for snn in (plain, light, fitted)]
    assert errors[2] < 0.5 * errors[0]
    assert errors[2] < errors[1]


def test_a_layer_that_two_neuron_layers_read_stays_as_it_is() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu1, self.relu2 = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ReLU()
            self.head = nn.Linear(512, 3)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            return self.head(torch.cat([self.relu1(maps), self.relu2(maps - 0.1)], 1).flatten(1))

    ann, inputs = Doubled(), images()
    ann.head.bias.requires_grad_(False)
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF(), timesteps=T).eval()
    ss.convert(snn, ann, [inputs], "calibrate", correct="weights", **FAST, **PUBLISHED)
    assert torch.equal(snn.body.conv.weight, ann.conv.weight)
    assert not torch.equal(snn.body.head.bias, ann.head.bias)
    assert not snn.body.head.bias.requires_grad


def test_a_sum_in_place_is_fitted_as_any_other() -> None:
    class Sum(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.conv1, self.conv2, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(256, 3)
            self.relu1, self.relu2, self.in_place = nn.ReLU(), nn.ReLU(), in_place

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            more = self.conv2(self.relu1(x))
            x = x.add_(more) if self.in_place else x + more
            return self.head(self.relu2(x).flatten(1))

    logits, inputs = [], images()
    for in_place in (False, True):
        torch.manual_seed(1)
        ann = Sum(in_place)
        snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF(), timesteps=T).eval()
        ss.convert(snn, ann, inputs.split(4), "calibrate", correct="weights", **FAST, **PUBLISHED)
        with torch.no_grad():
            logits.append(snn(inputs))
    torch.testing.assert_close(*logits)


def test_the_rebuilt_network_is_the_fitted_one() -> None:
    ann, snn = pair("identity shortcut")
    fresh, inputs = copy.deepcopy(snn), images()
    ss.convert(snn, ann, [inputs], "calibrate", correct="weights", iterations=3, **PUBLISHED)
    restore(fresh, json.loads(json.dumps(snn.body.meta["converted"])))
    fresh.load_state_dict(snn.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(inputs), snn(inputs))
