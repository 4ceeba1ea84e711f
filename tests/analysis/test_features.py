from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spikestill.analysis import attention_map, firing_rates, rate_error, rate_errors, spike_raster
from spikestill.graph import SpikingNetwork, to_spiking, trace
from spikestill.nn import IF

SHAPE = (2, 6, 6)


def ann(channels: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 3, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def spiking(network: nn.Module, timesteps: int = 4) -> SpikingNetwork:
    return to_spiking(network, neuron=IF(threshold=0.4), timesteps=timesteps, input_shape=SHAPE).eval()


def spikes_of(snn: SpikingNetwork, images: Tensor) -> dict[str, Tensor]:
    seen: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        snn.unroll(images, observe=lambda name, spikes: seen.setdefault(name, []).append(spikes.clone()))
    return {name: torch.cat(parts) for name, parts in seen.items()}


@pytest.mark.parametrize("timesteps", [1, 4, 20])
def test_rates_are_the_mean_of_the_spikes_however_many_steps_are_run_at_once(timesteps: int) -> None:
    snn, images = spiking(ann(), timesteps), torch.rand(3, *SHAPE)
    rates = firing_rates(snn, images)
    for name, spikes in spikes_of(snn, images).items():
        torch.testing.assert_close(rates[name], spikes.mean(0))
    assert list(rates) == ["1", "3"]


def test_a_map_is_the_mean_over_channels_of_the_squares() -> None:
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    assert attention_map(feature).tolist() == [[[5.0, 2.0]]]


def test_a_large_map_is_averaged() -> None:
    feature = torch.ones(2, 3, 8, 4)
    feature[:, :, :4] = 3
    assert attention_map(feature, most=4).shape == (2, 4, 4)
    assert attention_map(feature, most=2)[0].tolist() == [[9.0, 9.0], [1.0, 1.0]]
    assert attention_map(feature, most=8).shape == (2, 8, 4)


def test_the_error_is_the_least_over_all_scales() -> None:
    rate, activation = torch.rand(3, 4), torch.rand(3, 4)
    scales = torch.linspace(0, 4, 40001)
    distances = torch.linalg.vector_norm(activation.flatten() - scales[:, None] * rate.flatten(), dim=1)
    wanted = float(distances.min() / torch.linalg.vector_norm(activation))
    assert rate_error(rate, activation) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("rate", "activation", "error"),
    [
        ([1.0, 0.5], [4.0, 2.0], 0.0),
        ([1.0, 0.0], [0.0, 3.0], 1.0),
        ([0.0, 0.0], [0.0, 3.0], 1.0),
        ([1.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_the_error_of_what_is_proportional_and_of_what_has_nothing_in_common(
    rate: list[float], activation: list[float], error: float
) -> None:
    assert rate_error(torch.tensor(rate), torch.tensor(activation)) == pytest.approx(error, abs=1e-7)


def test_a_network_of_many_steps_is_near_the_ann_it_is_made_of() -> None:
    network, images = ann().eval(), torch.rand(3, *SHAPE)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.weight, -0.02, 0.05)
            nn.init.zeros_(layer.bias)
    traced = trace(network, SHAPE).eval()
    few, many = (rate_errors(firing_rates(spiking(network, steps), images), traced, images) for steps in (2, 200))
    assert many.keys() == {"1", "3"}
    assert all(many[name] < 0.05 < few[name] for name in many)


def test_an_ann_of_another_width_is_not_compared() -> None:
    traced = trace(ann(channels=5), SHAPE).eval()
    images = torch.rand(2, *SHAPE)
    assert rate_errors(firing_rates(spiking(ann()), images), traced, images) == {}


def test_the_raster_shows_the_spikes_of_the_first_image() -> None:
    snn, images = spiking(ann(), timesteps=12), torch.rand(2, *SHAPE)
    spikes = spikes_of(snn, images)
    raster = spike_raster(snn, images, ["3"], neurons=5)
    assert list(raster) == ["3"]
    shown = raster["3"]
    assert 1 < len(shown) <= 5
    for neuron, steps in shown.items():
        assert steps == tuple(step + 1 for step in range(12) if spikes["3"][(step, 0, *neuron)])
    totals = [len(steps) for steps in shown.values()]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == int(spikes["3"][:, 0].sum(0).max())


def test_of_a_silent_layer_some_silent_neurons_are_shown() -> None:
    shown = spike_raster(spiking(ann()), torch.zeros(1, *SHAPE) - 9, ["3"], neurons=3)["3"]
    assert len(shown) <= 3
