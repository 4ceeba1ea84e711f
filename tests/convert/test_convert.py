"""What holds for every method: what a converted network computes, what it keeps, what is refused."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import spikestill as ss
from spikestill.convert import names
from spikestill.graph import SpikingNetwork, trace
from tests.convert.networks import ALL, images, pair
from tests.graph.networks import SHAPE

METHODS = {
    "normalise": {"percentile": 100.0},
    "threshold-balancing": {},
    "shift": {},
    "calibrate": {"correct": "none", "timesteps": 1000, "grid": 1},
    "balance-locally": {"passes": 500},
}
LENGTHS = (16, 64, 256, 1024)


def relative_error(ann: nn.Module, snn: SpikingNetwork, inputs: Tensor, timesteps: int) -> float:
    with torch.no_grad():
        given, wanted = snn.unroll(inputs, timesteps).mean(0), ann(inputs)
        given = given * (given * wanted).sum() / given.square().sum()  # threshold balancing leaves the logits scaled
    return float((given - wanted).abs().mean() / wanted.abs().mean())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ALL)
def test_logits_approach_those_of_the_ann_as_one_over_t(name: str, method: str) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs[:4], inputs[4:]], method, **METHODS[method])
    errors = [relative_error(ann, snn, inputs, timesteps) for timesteps in LENGTHS[:3]]
    # A factor of 4 in time for each; half of that is the margin, for what a few spikes more or less change.
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "residual", "identity shortcut", "dense", "gathering"])
def test_every_rate_approaches_its_activation(name: str) -> None:
    ann, snn = pair(name)
    inputs = images(2)
    ss.convert(snn, ann, [inputs], "normalise", percentile=100.0, by="layer")
    wanted = activations(ann, inputs)
    for timesteps in LENGTHS:
        counts: Counter[str] = Counter()
        with torch.no_grad():
            snn.unroll(inputs, timesteps, lambda layer, spikes, to=counts: to.update({layer: spikes.sum(0)}))
        for count, activation in zip(counts.values(), wanted, strict=True):
            rate = count / timesteps
            # Two spikes more or less than due, on average over the layer, whatever the depth.
            assert float((rate * activation.max() - activation).abs().mean() / activation.max()) < 2 / timesteps


def activations(ann: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The activations in the order of the graph, by functions that are watched and not by the tracer."""
    found: list[Tensor] = []
    functional, method = torch.nn.functional.relu, torch.nn.functional.relu6

    def watched(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            found.append(result.detach().clone())
            return result

        return call

    torch.nn.functional.relu, torch.nn.functional.relu6 = watched(functional), watched(method)
    try:
        with torch.no_grad():
            ann(inputs)
    finally:
        torch.nn.functional.relu, torch.nn.functional.relu6 = functional, method
    return found


@pytest.mark.parametrize("method", METHODS)
def test_modules_keep_their_names_and_the_ann_stays_as_it_is(method: str) -> None:
    ann, snn = pair("residual")
    before = copy.deepcopy(ann.state_dict())
    neurons = [name for name, _ in snn.neurons()]
    ss.convert(snn, ann, [images()], method, **METHODS[method])
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())
    assert [name for name, _ in snn.neurons()] == neurons
    expected = {name for name, module in ann.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    found = {name for name, module in snn.body.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert found == expected
    assert not [module for module in snn.body.modules() if isinstance(module, nn.BatchNorm2d)]


def test_modules_keep_their_modes() -> None:
    ann, snn = pair("dropout")
    snn.train()
    ann.train()
    ss.convert(snn, ann, [images()])
    assert all(module.training for module in (*snn.modules(), *ann.modules()))


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_are_those_of_the_trained_ann(method: str) -> None:
    ann, first = pair("normalised")
    other, second = pair("normalised")
    inputs = images()
    assert not torch.equal(other.state_dict()["0.weight"], ann.state_dict()["0.weight"])
    for snn in (first, second):
        ss.convert(snn, ann, [inputs], method, **METHODS[method])
    with torch.no_grad():
        assert torch.equal(first(inputs), second(inputs))


def test_a_layer_that_is_called_twice_becomes_two_layers() -> None:
    ann, snn = pair("shared")
    ss.convert(snn, ann, [images()], "normalise")
    convolutions = [name for name, module in snn.body.named_modules() if isinstance(module, nn.Conv2d)]
    assert convolutions == ["0", "3.shared.0", "3.shared.0_2"]


@pytest.mark.parametrize("method", METHODS)
def test_the_converted_network_is_one_graph_as_any(method: str) -> None:
    ann, snn = pair("identity shortcut", timesteps=6)
    inputs = images()
    ss.convert(snn, ann, [inputs], method, **METHODS[method])
    with torch.no_grad():
        whole, state, steps = snn.unroll(inputs), None, []
        for _ in range(6):
            logits, state = snn.step(inputs, state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps), whole)
        assert torch.equal(copy.deepcopy(snn).unroll(inputs), whole)
        retraced = SpikingNetwork(trace(snn.body, SHAPE), timesteps=6, encoder=ss.Direct())
        assert torch.equal(retraced.eval().unroll(inputs), whole)
    points = {point.name for point in ss.graph.cut_points(snn.body)}  # type: ignore[attr-defined]
    assert {"3", "4"} <= points


@pytest.mark.parametrize("method", METHODS)
def test_a_converted_network_can_be_trained_through_time(method: str) -> None:
    ann, snn = pair("identity shortcut", gradient="bptt")
    ss.convert(snn, ann, [images()], method, **METHODS[method])
    snn.train()
    snn(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in snn.parameters())


def test_rate_gradients_of_a_converted_network() -> None:
    ann, snn = pair("identity shortcut", gradient="rate")
    ss.convert(snn, ann, [images()])
    snn.train()
    snn(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in snn.parameters())
    ann, snn = pair("identity shortcut", gradient="rate")
    ss.convert(snn, ann, [images()], "shift")
    assert all(neuron.initial is not None for _, neuron in snn.neurons())
    snn.train()(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in snn.parameters())


def test_batches_come_as_a_loader_gives_them() -> None:
    ann, first = pair("plain")
    second = copy.deepcopy(first)
    inputs = images()
    ss.convert(first, ann, [inputs])
    ss.convert(second, ann, ((part, torch.zeros(len(part))) for part in inputs.split(3)))
    for (_, one), (_, other) in zip(first.neurons(), second.neurons(), strict=True):
        assert torch.equal(one.threshold, other.threshold)


def test_poisson_inputs_have_the_scale_of_their_encoder() -> None:
    torch.manual_seed(3)
    ann, snn = pair("plain", encoder=ss.Poisson(scale=2.0, seed=1))
    inputs = images()
    for method in ("normalise", "threshold-balancing", "shift"):
        converted = copy.copy(snn)
        converted._modules = dict(snn._modules)
        ss.convert(converted, ann, [inputs], method)
        assert relative_error(ann, converted, inputs, 1024) < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "normalize"}, "unknown method of conversion 'normalize': did you mean 'normalise'?"),
        ({"method": "shift", "percentil": 3}, "unknown option of method shift 'percentil': did you mean 'percentile'?"),
        ({"work": 3}, "unknown option of method best 'work'"),
        ({"batches": []}, "conversion needs calibration images: there are none"),
        ({"batches": [torch.rand(0, *SHAPE)]}, "conversion needs calibration images: there are none"),
        ({"batches": [torch.rand(2, 3, 2, 8, 8)]}, "the model does not run on images of 3x2x8x8"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    ann, snn = pair("plain")
    body = snn.body
    batches = arguments.pop("batches", [images()])
    with pytest.raises(ss.InputError, match=message) as caught:
        ss.convert(snn, ann, batches, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert snn.body is body


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_no_image_drives_is_named_and_nothing_is_changed(method: str) -> None:
    ann, snn = pair("plain")
    with torch.no_grad():
        ann[3][0].bias.fill_(-1e3)  # type: ignore[index, union-attr]
    body, before = snn.body, copy.deepcopy(snn.state_dict())
    with pytest.raises(ss.InputError, match="'3.1' has no positive .* on the calibration images"):
        ss.convert(snn, ann, [images()], method, **METHODS[method])
    assert snn.body is body
    assert all(torch.equal(value, before[key]) for key, value in snn.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_neurons_that_leak_are_refused(method: str) -> None:
    ann, snn = pair("plain", neuron=ss.LIF(leak=0.9))
    with pytest.raises(ss.InputError, match="conversion needs neurons without a leak, '2' has 0.9: use IF"):
        ss.convert(snn, ann, [images()], method)


@pytest.mark.parametrize("method", ["shift", "calibrate", "quantise"])
def test_a_hard_reset_is_refused_where_the_method_needs_what_remains(method: str) -> None:
    ann, snn = pair("plain", neuron=ss.IF(reset="hard"))
    with pytest.raises(ss.InputError, match=f"{method} needs neurons with a soft reset, '2' has a hard one"):
        ss.convert(snn, ann, [images()], method)


def test_other_networks_are_refused() -> None:
    ann, snn = pair("plain")
    for other, reason in (("normalised", "it has|'3.weight'|no '3.0.weight'"), ("linear", "is|no"), ("dense", "no '3")):
        with pytest.raises(ss.InputError, match=f"was not made of this ANN: .*({reason})"):
            ss.convert(snn, pair(other)[0], [images()])
    ss.convert(snn, ann, [images()], "shift")
    with pytest.raises(ss.InputError, match=r"is converted already \(by shift\): make a new one by to_spiking"):
        ss.convert(copy.deepcopy(snn), ann, [images()])


def test_events_are_refused() -> None:
    ann, snn = pair("plain", encoder=ss.Events())
    with pytest.raises(ss.InputError, match="events cannot be converted from"):
        ss.convert(snn, ann, [images()])


def test_names_and_the_public_function() -> None:
    assert names() == ["balance-locally", "best", "calibrate", "normalise", "quantise", "shift", "threshold-balancing"]
    assert callable(ss.convert)
