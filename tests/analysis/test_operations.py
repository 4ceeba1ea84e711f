from __future__ import annotations

import copy
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spikestill.analysis import LayerOperations, Operations, evaluate
from spikestill.analysis.operations import Firing, operations
from spikestill.convert import convert
from spikestill.graph import SpikingNetwork, evaluating, to_spiking
from spikestill.nn import IF, LIF, Encoder, Events, Poisson
from tests.graph.networks import NETWORKS, SHAPE, network, spiking

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


@contextmanager
def inputs_of_layers(snn: SpikingNetwork) -> Iterator[dict[str, Tensor]]:
    """The sum of the magnitudes of all that enters each layer, ``[C, ...]``, while the network runs."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[Any, Any], None]:
        def note(module: Any, inputs: Any) -> None:
            total = inputs[0].abs().double().sum(0)
            seen[name] = seen[name] + total if name in seen else total

        return note

    layers = [(name, module) for name, module in snn.body.named_modules() if isinstance(module, LAYERS)]
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in layers]
    yield seen
    for handle in handles:
        handle.remove()


def paths(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """How many of a function's outputs depend on each of its inputs, ``[C, ...]``, by differentiation."""
    derivative = torch.autograd.functional.jacobian(function, torch.rand(1, *shape, dtype=torch.float64))
    return (derivative != 0).double().flatten(0, -len(shape) - 2).sum(0).squeeze(0)


def fan_out(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """How many weights a spike at each place of a layer's input is multiplied with."""
    positive = copy.deepcopy(layer).double()
    nn.init.uniform_(positive.weight, 0.1, 1)  # type: ignore[arg-type]
    return paths(positive, shape)


def measured(snn: SpikingNetwork, images: Tensor, timesteps: int | None = None) -> Operations:
    """What the evaluation of some images counts, whatever the output's shape."""
    steps, firing = timesteps or snn.timesteps, Firing(snn)
    with evaluating(snn), torch.no_grad():
        snn.unroll(images, steps, watch=firing)
    return operations(snn, firing, images.shape[1] if isinstance(snn.encoder, Events) else len(images), steps)


UNITS: dict[str, dict[str, Any]] = {
    "average pooling": {"4.0": 9},
    "dense": {"4.conv1": 4, "4.conv2": torch.tensor([4] * 5 + [1] * 4).view(-1, 1, 1), "7": 4},
}
"""By layer, how many spikes an input of 1 stands for where they were averaged; the last layer's is its pool's size."""


@pytest.mark.parametrize("timesteps", [3, 37])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("dropout",)])
def test_accumulates_are_the_fan_outs_of_all_spikes(name: str, timesteps: int) -> None:
    snn = spiking(name, timesteps=timesteps)
    last = [node for node in snn.body.graph.nodes if node.target is nn.functional.adaptive_avg_pool2d]
    pools = [math.prod(node.args[0].meta["shape"][2:]) for node in last]
    with inputs_of_layers(snn) as seen:
        found = measured(snn, torch.randn(5, *SHAPE))
    first, *_, final = found.layers
    assert list(found.layers) == list(seen)
    for path, layer in found.layers.items():
        module = snn.body.get_submodule(path)
        spikes = seen[path] * UNITS.get(name, {}).get(path, 1) * (pools[0] if pools and path == final else 1)
        expected = 0.0 if path == first else float((spikes * fan_out(module, spikes.shape)).sum()) / 5
        assert layer.accumulates == pytest.approx(expected, rel=1e-6), path
        assert (layer.multiply_accumulates > 0) == (path == first)
    assert found.accumulates > 0
    assert found.layers[first].multiply_accumulates == found.layers[first].ann_multiply_accumulates


@pytest.mark.parametrize("name", NETWORKS)
def test_an_ann_s_operations_are_those_that_torch_counts(name: str) -> None:
    ann = network(name).eval()
    with FlopCounterMode(display=False) as counter:
        ann(torch.randn(1, *SHAPE))
    found = measured(to_spiking(ann, input_shape=SHAPE), torch.randn(2, *SHAPE))
    assert found.ann_multiply_accumulates == counter.get_total_flops() / 2


def reached(size: int, place: int, layer: Any, axis: int) -> int:
    """Over all outputs and kernel taps along one axis: those that read one place."""
    kernel, stride, padding, dilation = (
        getattr(layer, name)[axis] for name in ("kernel_size", "stride", "padding", "dilation")
    )
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return sum(
        output * stride - padding + tap * dilation == place
        for output, tap in itertools.product(range(outputs), range(kernel))
    )


@given(some.data())
def test_a_convolution_s_borders_strides_and_groups_are_exact(data: some.DataObject) -> None:
    draw = data.draw
    dimensions, groups = draw(some.integers(1, 2)), draw(some.integers(1, 3))
    numbers = {
        name: tuple(draw(some.integers(low, high)) for _ in range(dimensions))
        for name, low, high in (("kernel_size", 1, 3), ("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 2))
    }
    kind: Any = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    channels, out = groups * draw(some.integers(1, 2)), groups * draw(some.integers(1, 3))
    layer = kind(channels, out, **numbers, groups=groups)
    shape = (channels, *(draw(some.integers(5, 7)) for _ in range(dimensions)))
    snn = to_spiking(nn.Sequential(nn.ReLU(), layer), neuron=IF(), timesteps=2, input_shape=shape)
    images = torch.rand(2, *shape)
    spikes = snn.body.get_submodule("0")(images.unsqueeze(0), 2).sum((0, 1))
    expected = sum(
        float(spikes[place]) * (out // groups) * reached(shape[1], place[1], layer, 0)
        * (reached(shape[2], place[2], layer, 1) if dimensions == 2 else 1)
        for place in itertools.product(*map(range, shape))
    )  # fmt: skip
    found = measured(snn, images)
    assert found.accumulates == expected / 2
    assert found.multiply_accumulates == 0


def of_function(function: Callable[[Tensor], Tensor], last: nn.Module, shape: tuple[int, ...] = (4, 6, 6)) -> Any:
    """Neurons, a function, and a layer; with the spikes that the neurons give for some images, ``[C, ...]``."""

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neurons, self.function, self.last = nn.ReLU(), function, last

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.function(self.neurons(x)))  # type: ignore[no-any-return]

    snn = to_spiking(Between(), neuron=IF(), timesteps=3, input_shape=shape)
    images = torch.rand(2, *shape)
    return snn, images, snn.body.get_submodule("neurons")(images.unsqueeze(0), 3).sum((0, 1))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": nn.AvgPool2d(2),
    "overlapping average": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average of a ceiling": nn.AvgPool2d(3, 2, ceil_mode=True),
    "function": lambda x: functional.avg_pool2d(x, (3, 2), stride=1, padding=(1, 0)),
    "uneven adaptive average": nn.AdaptiveAvgPool2d((4, 5)),
    "adaptive function": lambda x: functional.adaptive_avg_pool2d(x, 4),
    "mean": lambda x: x.mean(3, keepdim=True),
    "mean function": lambda x: torch.mean(x, dim=(2, 3), keepdim=True),
    "sum with itself": lambda x: x + x[:, [1, 0, 3, 2]],
    "difference": lambda x: torch.sub(x, x[:, [2, 3, 0, 1]].transpose(2, 3)),
    "concatenation": lambda x: torch.cat([x[:, 2:], x[:, :2]], 1),
    "chunks": lambda x: torch.cat(torch.chunk(x, 2, 1)[::-1], 1),
    "scaling": lambda x: -(0.3 * x) / 2,
    "padding": lambda x: functional.pad(x, (1, 0, 2, 1)),
    "resizing": nn.Upsample(scale_factor=2),
    "normalisation": nn.BatchNorm2d(4).eval(),
    "nothing": lambda x: x.contiguous().view(x.size(0), 4, 6, 6),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_spike_counts_once_for_every_way_through_pools_and_sums(name: str) -> None:
    layer, function = nn.Conv2d(4, 6, 1, stride=2, bias=False), FUNCTIONS[name]
    snn, images, spikes = of_function(function, layer)
    exact: Callable[[Tensor], Tensor] = (
        copy.deepcopy(function).double() if isinstance(function, nn.Module) else function
    )
    image = torch.rand(1, *spikes.shape, dtype=torch.float64)
    size = tuple(exact(image).shape[1:])
    ways = (torch.autograd.functional.jacobian(exact, image) != 0).double().reshape(-1, spikes.numel())
    expected = float(fan_out(layer, size).flatten() @ ways @ spikes.flatten().double())
    found = measured(snn, images)
    assert found.accumulates == pytest.approx(expected / 2)
    assert found.multiply_accumulates == 0


def test_a_place_where_two_spikes_meet_counts_twice() -> None:
    snn, images, spikes = of_function(lambda x: x + x, nn.Conv2d(4, 1, 1))
    assert measured(snn, images).accumulates == 2 * float(spikes.sum()) / 2


class Analog(nn.Module):
    """Two layers before the first neuron; and one after another behind it, without a neuron between them."""

    def __init__(self) -> None:
        super().__init__()
        self.still = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Conv2d(3, 3, 1))
        self.neurons = nn.ReLU()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neurons(self.still(x))
        return self.second(torch.cat([self.first(spikes), spikes], 1))


@pytest.mark.parametrize("timesteps", [1, 5, 40])
def test_what_does_not_move_is_computed_once_and_what_moves_at_every_step(timesteps: int) -> None:
    snn = to_spiking(Analog(), neuron=LIF(threshold=0.1), timesteps=timesteps, input_shape=(2, 4, 4))
    images = torch.randn(3, 2, 4, 4)
    spikes = 0.0

    def note(_: str, fired: Tensor) -> None:
        nonlocal spikes
        spikes += float(fired.sum()) / 3

    with evaluating(snn), torch.no_grad():
        snn.unroll(images, observe=note)
    found = measured(snn, images)
    assert spikes > 0
    assert found.layers == {
        "still.0": LayerOperations(0, 2 * 3 * 16, 2 * 3 * 16),
        "still.3": LayerOperations(0, 3 * 3 * 4, 3 * 3 * 4),
        "first": LayerOperations(pytest.approx(4 * spikes), 0, 3 * 4 * 4),
        "second": LayerOperations(pytest.approx(2 * spikes), timesteps * 4 * 2 * 4, 7 * 2 * 4),
    }
    assert found.accumulates == pytest.approx(6 * spikes)
    assert found.multiply_accumulates == 2 * 3 * 16 + 3 * 3 * 4 + timesteps * 4 * 2 * 4


def encoded(encoder: Encoder, timesteps: int = 2, *before: nn.Module) -> SpikingNetwork:
    ann = nn.Sequential(*before, nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 9, 4))
    return to_spiking(ann, timesteps=timesteps, encoder=encoder, input_shape=(2, 3, 3))


@pytest.mark.parametrize("timesteps", [1, 6, 50])
def test_negative_spikes_of_an_encoder_count_too(timesteps: int) -> None:
    snn = encoded(Poisson(seed=0), timesteps)
    with inputs_of_layers(snn) as seen:
        found = measured(snn, torch.rand(3, 2, 3, 3) * 2 - 1)
    assert found.layers["0"].accumulates == pytest.approx(3 * float(seen["0"].sum()) / 3)
    assert found.multiply_accumulates == 0
    assert found.uncounted == ("Poisson", "bias", "LIF")


def test_several_events_at_a_place_count_each() -> None:
    frames = torch.randint(0, 4, (2, 5, 2, 3, 3)).float()
    found = measured(encoded(Events()), frames)
    assert found.layers["0"].accumulates == pytest.approx(3 * float(frames.sum()) / 5)
    assert found.multiply_accumulates == 0


def test_frames_that_are_no_counts_are_analog_at_every_step() -> None:
    found = measured(encoded(Events()), torch.rand(2, 5, 2, 3, 3))
    assert found.layers["0"] == LayerOperations(0, 2 * 2 * 3 * 9, 2 * 3 * 9)


@pytest.mark.parametrize(("most", "are_spikes"), [(1, True), (3, False)])
def test_a_maximum_of_spikes_is_a_spike_and_one_of_sums_a_value(most: int, are_spikes: bool) -> None:
    snn = encoded(Events(), 2, nn.MaxPool2d(2, 1, 1), nn.Conv2d(2, 2, 2))
    frames = torch.randint(0, most + 1, (2, 5, 2, 3, 3)).float()
    found = measured(snn, frames).layers["1"]
    pooled = functional.max_pool2d(frames.flatten(0, 1), 2, 1, 1).sum(0)
    assert found.ann_multiply_accumulates == 2 * 2 * 4 * 9
    if are_spikes:
        assert found.accumulates == pytest.approx(float((pooled * fan_out(nn.Conv2d(2, 2, 2), (2, 4, 4))).sum()) / 5)
        assert found.multiply_accumulates == 0
    else:
        assert (found.accumulates, found.multiply_accumulates) == (0, 2 * 2 * 2 * 4 * 9)


def test_what_is_not_counted_is_named() -> None:
    found = measured(spiking("residual"), torch.randn(2, *SHAPE))
    assert found.uncounted == ("bias", "BatchNorm2d", "LIF", "add", "AdaptiveAvgPool2d")


def test_a_layer_called_twice_has_the_sum_of_its_calls() -> None:
    ann_layer = measured(spiking("shared"), torch.randn(2, *SHAPE)).layers["3.shared.0"]
    assert ann_layer.ann_multiply_accumulates == 2 * 4 * 4 * 9 * 64


def test_energy_is_the_operations_by_their_price() -> None:
    found = Operations({"a": LayerOperations(100, 20, 300), "b": LayerOperations(50, 0, 700)}, ())
    assert (found.accumulates, found.multiply_accumulates, found.ann_multiply_accumulates) == (150, 20, 1000)
    assert found.energy() == pytest.approx((150 * 0.9 + 20 * 4.6) / 1000)
    assert found.energy(multiply_accumulate=3.1, accumulate=0.1) == pytest.approx((15 + 62) / 1000)
    assert found.ann_energy() == pytest.approx(4.6)
    assert found.ann_energy(2.0) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["residual", "max pooling", "linear"])
def test_memory_layout_precision_and_batches_change_nothing(name: str) -> None:
    snn = spiking(name, timesteps=20)
    images, labels = torch.randn(6, *SHAPE), torch.zeros(6, dtype=torch.int64)
    whole = evaluate(snn, [(images, labels)])
    parts = evaluate(snn, [(images[:4], labels[:4]), (images[4:], labels[4:])])
    assert parts.operations == whole.operations
    assert whole.operations == measured(snn, images)
    laid = snn.to(memory_format=torch.channels_last)
    with inputs_of_layers(laid) as seen, torch.autocast("cpu", torch.bfloat16):
        found = evaluate(laid, [(images.to(memory_format=torch.channels_last), labels)]).operations
    first, second, *_ = found.layers
    spikes = seen[second]
    expected = float((spikes * fan_out(laid.body.get_submodule(second), spikes.shape)).sum()) / 6
    assert found.layers[second].accumulates == pytest.approx(expected, rel=1e-6)
    assert found.layers[first].accumulates == 0


def test_a_conversion_s_factors_and_constants_are_no_analog_values() -> None:
    ann = network("dense").eval()
    snn = to_spiking(ann, neuron=IF(), timesteps=4, input_shape=SHAPE)
    images = torch.randn(4, *SHAPE)
    convert(snn, ann, [images], method="normalise", by="layer")
    assert any(node.target is operator.mul for node in snn.body.graph.nodes)
    found = measured(snn, images)
    first, *others = found.layers.values()
    assert first.multiply_accumulates == first.ann_multiply_accumulates
    assert all(layer.accumulates > 0 and layer.multiply_accumulates == 0 for layer in others)


@pytest.mark.parametrize("name", ["plain", "grouped", "dilated", "max pooling"])
def test_agrees_with_spikingjelly(name: str) -> None:
    counting = pytest.importorskip("spikingjelly.activation_based.op_counter")
    snn = spiking(name)
    layer = [module for module in snn.body.modules() if isinstance(module, nn.Conv2d)][1]
    captured: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    found = measured(snn, torch.randn(3, *SHAPE))
    handle.remove()
    counter = counting.SynOpCounter()
    with counting.DispatchCounterMode([counter]), torch.no_grad():
        layer(captured[0])
    assert list(found.layers.values())[1].accumulates == pytest.approx(counter.get_total() / 3)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2])
def test_synaptic_operations_are_spikingjelly_s_where_it_counts(stride: int, padding: int) -> None:
    """It counts what convolutions and linear layers are given while torch runs them: at borders and strides too."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    ann = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=padding, stride=stride),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    ann(torch.zeros(1, 2, 6, 6))
    snn = to_spiking(ann, neuron=IF(threshold=0.3), timesteps=3, input_shape=(2, 6, 6)).eval()
    images = torch.rand(5, 2, 6, 6)
    counter = counters.SynOpCounter()
    with torch.no_grad(), counters.DispatchCounterMode([counter]):
        snn.unroll(images)
    assert counter.get_total() == pytest.approx(5 * measured(snn, images).accumulates)
    assert counter.get_total() > 1000
