from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikestill.graph import SpikingNetwork, recomputed_rates, to_spiking
from spikestill.graph.rate import RateRun
from spikestill.graph.recomputed_rates import RecomputedRateRun
from spikestill.nn import LIF, Direct, Encoder, Events, Poisson
from tests.graph.judging import (
    NEURONS,
    Largest,
    assert_equals_reference,
    assert_equals_reference_for_drawn_spikes,
    images_of,
)
from tests.graph.networks import NETWORKS, SHAPE, gradients, spiking

T = 7  # 2 + 2 + 2 + 1 steps


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_plain_two_passes(name: str) -> None:
    assert_equals_reference(spiking(name, timesteps=T, recompute=True).double(), images_of())


@pytest.mark.parametrize("name", ["residual", "dropout", "max pooling", "dense", "shared"])
def test_equals_the_plain_two_passes_for_an_input_that_moves(name: str) -> None:
    snn = spiking(name, encoder=Poisson(scale=3.0, seed=5), timesteps=T, recompute=True).double()
    assert_equals_reference_for_drawn_spikes(snn)


@pytest.mark.parametrize("initial", [None, 0.2], ids=["from rest", "from elsewhere"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_equals_the_plain_two_passes_for_every_kind_of_neuron(neuron: str, initial: float | None) -> None:
    layer = copy.deepcopy(NEURONS[neuron])
    layer.set_initial(initial)
    assert_equals_reference(spiking("residual", layer, timesteps=T, recompute=True).double(), images_of())


def both(snn: SpikingNetwork, images: Tensor, *, taps: Iterable[str] = ()) -> tuple[list[Tensor], list[Tensor]]:
    """With ``recompute`` and without: logits, tapped rates, gradients and the statistics afterwards."""
    results = []
    for recompute in (True, False):
        run = copy.deepcopy(snn)
        run.recompute = recompute
        torch.manual_seed(3)
        given = images.clone().requires_grad_(images.is_floating_point())
        record = run.record(given, list(taps))
        (record.logits.square().sum() + sum(rate.square().sum() for rate in record.features.values())).backward()
        by_images = [] if given.grad is None else [given.grad]
        results.append([record.logits, *record.features.values(), *by_images, *gradients(run).values(), *run.buffers()])
    return results[0], results[1]


ENCODERS: dict[str, Encoder] = {"direct": Direct(), "events": Events(), "poisson": Poisson(3.0, seed=2)}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, "training") for name in NETWORKS),
        *itertools.product(("residual", "shared", "linear"), ("frozen", "not tracked")),
    ],
)
def test_equals_the_whole_sequence(name: str, encoder: str, mode: str) -> None:
    snn = spiking(name, encoder=copy.deepcopy(ENCODERS[encoder]), timesteps=T).double()
    for module in snn.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and mode != "training":
            module.eval()
            if mode == "not tracked":
                module.running_mean = module.running_var = None
    images = torch.randn(*([T] if encoder == "events" else []), 3, *SHAPE, dtype=torch.float64)
    got, expected = both(snn, images, taps=[item for item, _ in snn.neurons()][:2])
    for value, other in zip(got, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-10)


def test_a_normalisation_that_is_no_summand_of_neurons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikestill.graph.rate.deferred_to_neurons", lambda body, kept=(): frozenset())
    for name in ("residual", "linear", "shared"):
        got, expected = both(spiking(name, timesteps=T).double(), images_of())
        for value, other in zip(got, expected, strict=True):
            torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-10)


def test_under_autocast() -> None:
    snn = spiking("residual", timesteps=8)
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = both(snn, torch.randn(16, *SHAPE))
    flat = [torch.cat([value.flatten() for value in values[2:]]) for values in (got, expected)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.99


def test_nan_shows_although_spikes_are_bits() -> None:
    snn = spiking("plain", timesteps=T, recompute=True)
    images = torch.randn(2, *SHAPE)
    images[1, 0, 2, 2] = float("nan")
    logits = snn(images)
    assert logits[0].isfinite().all()
    assert logits[1].isnan().all()


@pytest.mark.parametrize(("timesteps", "recompute", "kind"), [(4, True, RateRun), (5, False, RateRun), (5, True, None)])
def test_runs_from_the_fifth_step_on(
    timesteps: int, recompute: bool, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[type] = []
    run = RateRun.run
    monkeypatch.setattr(RateRun, "run", lambda self, *given: ran.append(type(self)) or run(self, *given))
    spiking("normalised", timesteps=timesteps, recompute=recompute)(torch.randn(2, *SHAPE))
    assert ran == [kind or RecomputedRateRun]


@pytest.mark.parametrize("name", ["residual", "max pooling", "shared", "linear"])
def test_no_tensor_of_numbers_grows_with_time(name: str) -> None:
    largest = []
    for timesteps in (64, 128):
        with Largest() as seen:
            spiking(name, LIF(0.5, 0.15), timesteps, recompute=True)(torch.randn(2, *SHAPE)).sum().backward()
        largest.append(seen.numel)
    assert largest[0] == largest[1] >= 2 * 192


def test_every_convolution_before_a_normalisation_runs_twice_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputed_rates, "_STEPS_AT_ONCE", 100)
    snn = spiking("normalised", timesteps=8, recompute=True)
    calls: list[str] = []
    for name, module in snn.body.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    snn(torch.randn(2, *SHAPE)).sum().backward()
    assert {name: calls.count(name) for name in calls} == {"0": 1, "3": 2, "8": 1}


class Wide(nn.Module):
    """Blocks that many read: sums without neurons between them, halves that go apart, sizes that are asked for."""

    def __init__(self, blocks: int, writes: bool) -> None:
        super().__init__()
        self.writes = writes
        self.stem, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.sums = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(blocks))
        self.halves = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(blocks)
        )
        self.norm, self.last, self.head = nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x.mul_(0.5) if self.writes else x))
        for layer in self.sums:
            x = x + layer(x) / x.size(1)
        for layer in self.halves:
            first, second = x.chunk(2, 1)
            x = torch.cat([first, layer(second)], 1)
        x = self.last(self.norm(nn.functional.interpolate(x, size=x.shape[2:])))
        return self.head(x.mean((2, 3)))


def wide(blocks: int, encoder: str = "direct") -> SpikingNetwork:
    neuron, way = LIF(0.6, 0.3), copy.deepcopy(ENCODERS[encoder])
    return to_spiking(
        Wide(blocks, encoder != "direct"), neuron=neuron, timesteps=T, input_shape=SHAPE, encoder=way
    ).double()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_network_with_many_readers_and_sizes(encoder: str) -> None:
    images = torch.randn(*([T] if encoder == "events" else []), 3, *SHAPE, dtype=torch.float64)
    got, expected = both(wide(3, encoder), images)
    for value, other in zip(got, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-10)


def test_no_sequence_is_made_more_than_three_times() -> None:
    snn = wide(6)
    snn.recompute = True
    images: dict[str, int] = {}

    def count(name: str, batch: Tensor) -> None:
        images[name] = images.get(name, 0) + len(batch)

    for name, module in snn.body.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, args, name=name: count(name, args[0]))
    snn(torch.randn(2, *SHAPE, dtype=torch.float64)).sum().backward()
    assert max(images.values()) <= 3 * T * 2
    assert images["stem"] == 2


def test_a_normalisation_that_is_watched() -> None:
    snn = spiking("residual", timesteps=T).double()
    for module in snn.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: None)
    got, expected = both(snn, images_of())
    for value, other in zip(got, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-10)


def test_what_a_hook_keeps_of_a_convolution_stays_as_it_is() -> None:
    snn = spiking("residual", timesteps=T, recompute=True)
    kept: list[tuple[Tensor, Tensor]] = []
    for module in snn.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, args, output: kept.append((output, output.clone())))
    snn(torch.randn(2, *SHAPE))
    assert kept
    assert all(torch.equal(output, then) for output, then in kept)
