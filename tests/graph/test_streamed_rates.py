from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikestill.graph import SpikingNetwork, streamed_rates
from spikestill.graph.rate import RateRun
from spikestill.nn import LIF, Direct, Encoder, Events, Poisson
from spikestill.types import Record
from tests.graph.judging import (
    NEURONS,
    Largest,
    assert_equals_reference,
    assert_equals_reference_for_drawn_spikes,
    images_of,
)
from tests.graph.networks import NETWORKS, SHAPE, gradients, spiking

T = 37  # 8 + 8 + 8 + 8 + 5 steps


def without_statistics(snn: SpikingNetwork) -> SpikingNetwork:
    for module in snn.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return snn


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[SpikingNetwork, Tensor, tuple[str, ...]], Record]:
    """The record of a network that runs all its steps at once."""

    def record(snn: SpikingNetwork, images: Tensor, taps: tuple[str, ...] = ()) -> Record:
        with monkeypatch.context() as patched:
            patched.setattr("spikestill.graph.network._STEPS_AT_ONCE", 10**6)
            return snn.record(images, taps)

    return record


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_plain_two_passes(name: str) -> None:
    assert_equals_reference(without_statistics(spiking(name, timesteps=T)).double(), images_of())


@pytest.mark.parametrize("name", ["residual", "dropout", "max pooling", "dense"])
def test_equals_the_plain_two_passes_for_an_input_that_moves(name: str) -> None:
    """Poisson spikes drawn part by part are those of one draw."""
    snn = without_statistics(spiking(name, encoder=Poisson(scale=3.0, seed=5), timesteps=T)).double()
    assert_equals_reference_for_drawn_spikes(snn)


@pytest.mark.parametrize("initial", [None, 0.2], ids=["from rest", "from elsewhere"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_equals_the_plain_two_passes_for_every_kind_of_neuron(neuron: str, initial: float | None) -> None:
    layer = copy.deepcopy(NEURONS[neuron])
    layer.set_initial(initial)
    snn = without_statistics(spiking("residual", layer, timesteps=T)).double()
    assert {item.initial is None for _, item in snn.neurons()} == {initial is None}
    assert_equals_reference(snn, images_of())


@pytest.mark.parametrize("timesteps", [3, T])
def test_neurons_may_each_start_from_another_potential(timesteps: int) -> None:
    snn = without_statistics(spiking("plain", timesteps=timesteps))
    for _, neuron in snn.neurons():
        neuron.set_initial(torch.rand(4, 1, 1) / 5)
    assert_equals_reference(snn.double(), images_of())


class Rising(Encoder):
    """Each step's input depends on how many steps there are."""

    def forward(self, batch: Tensor, timesteps: int) -> Tensor:
        return torch.stack([batch * (t + 1) / timesteps for t in range(timesteps)])


ENCODERS = {"direct": Direct(), "events": Events(), "poisson": Poisson(3.0, seed=2), "rising": Rising()}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_all_steps_at_once_give_the_same(name: str, encoder: Encoder, at_once: Any) -> None:
    ours = without_statistics(spiking(name, encoder=encoder, timesteps=T)).double()
    whole = copy.deepcopy(ours)
    taps = tuple(item for item, _ in ours.neurons())[:2]
    images = torch.randn(*([T] if isinstance(encoder, Events) else []), 3, *SHAPE, dtype=torch.float64)
    results = []
    for snn, run in ((ours, SpikingNetwork.record), (whole, at_once)):
        torch.manual_seed(3)
        given = images.clone().requires_grad_()
        record = run(snn, given, taps)
        assert record.steps is None
        loss = record.logits.square().sum() + sum(rate.square().sum() for rate in record.features.values())
        loss.backward()
        results.append((record.logits, *record.features.values(), given.grad, *gradients(snn).values()))
    assert results[0][1].any()
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["plain", "residual", "dropout", "max pooling"])
def test_in_float32_too(name: str, at_once: Any) -> None:
    ours = without_statistics(spiking(name, timesteps=T))
    whole, images = copy.deepcopy(ours), torch.randn(3, *SHAPE)
    for snn, run in ((ours, SpikingNetwork.record), (whole, at_once)):
        torch.manual_seed(3)
        run(snn, images, ()).logits.square().sum().backward()
    expected = gradients(whole)
    for path, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, expected[path], rtol=1e-4, atol=1e-4)


def test_autocast_reaches_every_weight(at_once: Any) -> None:
    ours = without_statistics(spiking("residual", timesteps=T))
    whole, images, labels = copy.deepcopy(ours), torch.randn(16, *SHAPE), torch.randint(5, (16,))
    for snn, run in ((ours, SpikingNetwork.record), (whole, at_once)):
        with torch.autocast("cpu", torch.bfloat16):
            logits = run(snn, images, ()).logits
        nn.functional.cross_entropy(logits.float(), labels).backward()
    got, expected = gradients(ours), gradients(whole)
    assert got.keys() == expected.keys()
    flat = [torch.cat([item[name].flatten() for name in expected]) for item in (got, expected)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.99


@pytest.mark.parametrize("frozen", ["0", "3.conv1", "7"])
def test_frozen_layers(frozen: str) -> None:
    snn = without_statistics(spiking("residual", timesteps=T)).double()
    layer = snn.body.get_submodule(frozen).requires_grad_(False)
    assert_equals_reference(snn, images_of())
    assert all(parameter.grad is None for parameter in layer.parameters())


@pytest.mark.parametrize("statistics", ["training", "not tracked"])
def test_a_normalisation_by_the_batch_gets_its_whole_sequence(statistics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(RateRun, "rate", lambda run, encoded: ran.append(run.timesteps) or encoded[0].flatten(1))
    snn = spiking("normalised", timesteps=T)
    if statistics == "not tracked":
        for module in without_statistics(snn).modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = module.running_var = None
    snn(torch.randn(2, *SHAPE))
    assert ran == [T]


@pytest.mark.parametrize(("timesteps", "parts"), [(8, 0), (9, 2), (16, 2), (T, 5)])
def test_more_than_eight_steps_are_run_in_parts(timesteps: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    sequence = streamed_rates._SpikePass.sequence
    monkeypatch.setattr(
        streamed_rates._SpikePass, "sequence", lambda run, part: ran.append(run.timesteps) or sequence(run, part)
    )
    spiking("plain", timesteps=timesteps)(torch.randn(2, *SHAPE))
    assert len(ran) == parts
    assert sum(ran) in (0, timesteps)


@pytest.mark.parametrize("encoder", [Direct(), Poisson(3.0, seed=1)], ids=["direct", "poisson"])
@pytest.mark.parametrize("name", ["residual", "max pooling", "shared", "linear"])
def test_no_tensor_grows_with_time(name: str, encoder: Encoder) -> None:
    largest = []
    for timesteps in (32, 128):
        snn = without_statistics(spiking(name, LIF(0.5, 0.15, learn=("leak",)), timesteps, encoder=encoder))
        with Largest() as seen:
            snn(torch.randn(2, *SHAPE)).sum().backward()
        largest.append(seen.numel)
    assert largest[0] == largest[1] >= 2 * 192


def test_what_is_kept_is_of_one_step_s_size() -> None:
    """Nothing of the spikes is alive when the backward pass begins."""
    alive = []
    for timesteps in (32, 128):
        snn, images, kept = without_statistics(spiking("residual", timesteps=timesteps)), torch.randn(2, *SHAPE), {}

        def note(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = snn(images)
        alive.append(sum(kept.values()))
        assert output.requires_grad
    assert alive[0] == alive[1]
