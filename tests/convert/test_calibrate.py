from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.graph import SpikingNetwork
from tests.convert.networks import PUBLISHED, images, pair
from tests.convert.test_convert import activations


def mean_errors(ann: nn.Module, snn: SpikingNetwork, inputs: torch.Tensor, timesteps: int) -> list[torch.Tensor]:
    """Of every layer, the mean over the images of the activation minus threshold times rate ``[C, ...]``."""
    rates: list[torch.Tensor] = []
    with torch.no_grad():
        snn.unroll(inputs, timesteps, lambda name, spikes: rates.append(spikes.mean(0)))
    neurons = [neuron for _, neuron in snn.neurons()]
    found = zip(activations(ann, inputs), rates, neurons, strict=True)
    return [(activation - rate * neuron.threshold).mean(0) for activation, rate, neuron in found]


@pytest.mark.parametrize(("timesteps", "grid"), [(4, 10), (16, 40)])
def test_thresholds_minimise_the_error_of_quantising(timesteps: int, grid: int) -> None:
    ann, snn = pair("residual")
    inputs = images()
    ss.convert(snn, ann, inputs.split(3), "calibrate", timesteps=timesteps, grid=grid, correct="none", **PUBLISHED)
    for (_, neuron), tensor in zip(snn.neurons(), activations(ann, inputs), strict=True):
        a = tensor.double().numpy()
        candidates = a.max() * np.arange(1, grid + 1) / grid
        errors = [
            np.mean((a - np.floor(np.clip(a * timesteps / v, 0, timesteps)) * v / timesteps) ** 2) for v in candidates
        ]
        assert neuron.threshold.item() == pytest.approx(candidates[int(np.argmin(errors))], rel=1e-5)
        assert neuron.initial is None


@pytest.mark.parametrize("correct", ["light", "potential"])
@pytest.mark.parametrize("name", ["plain", "residual", "dense", "linear", "gathering", "identity shortcut"])
def test_corrections_make_the_mean_error_smaller(name: str, correct: str) -> None:
    ann, plain = pair(name)
    _, corrected = pair(name)
    inputs = images()
    for snn, kind in ((plain, "none"), (corrected, correct)):
        ss.convert(snn, ann, inputs.split(3), "calibrate", timesteps=8, correct=kind, **PUBLISHED)
    before, after = (sum(float(e.abs().sum()) for e in mean_errors(ann, s, inputs, 8)) for s in (plain, corrected))
    assert after < 0.8 * before
    assert all((neuron.initial is None) == (correct == "light") for _, neuron in corrected.neurons())
    same = zip(plain.neurons(), corrected.neurons(), strict=True)
    assert all(torch.equal(one.threshold, other.threshold) for (_, one), (_, other) in same)


def test_light_adds_the_mean_error_of_a_channel_to_its_bias() -> None:
    ann, plain = pair("plain")
    _, corrected = pair("plain")
    inputs = images()
    for snn, correct in ((plain, "none"), (corrected, "light")):
        ss.convert(snn, ann, [inputs], "calibrate", timesteps=8, correct=correct, **PUBLISHED)
    error = mean_errors(ann, plain, inputs, 8)[0].mean((1, 2))
    one, other = (snn.body.state_dict() for snn in (plain, corrected))
    torch.testing.assert_close(other["0.bias"], one["0.bias"] + error)
    assert not torch.equal(other["3.0.bias"], one["3.0.bias"])
    assert all(torch.equal(one[key], other[key]) for key in one if key not in ("0.bias", "3.0.bias"))


def test_potential_starts_each_neuron_at_t_times_its_own_error() -> None:
    ann, plain = pair("plain")
    _, corrected = pair("plain")
    inputs = images()
    for snn, correct in ((plain, "none"), (corrected, "potential")):
        ss.convert(snn, ann, [inputs], "calibrate", correct=correct, **PUBLISHED)  # at the network's own T, 8
    initial = dict(corrected.neurons())["2"].initial
    torch.testing.assert_close(initial, 8 * mean_errors(ann, plain, inputs, 8)[0])
    one, other = (snn.body.state_dict() for snn in (plain, corrected))
    assert set(other) - set(one) == {"2.initial", "3.1.initial"}
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_current_without_a_layer_of_its_own_gets_a_constant() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu1, self.relu2 = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ReLU()
            self.head = nn.Linear(512, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.conv(x)
            return self.head(torch.cat([self.relu1(maps), self.relu2(maps - 0.1)], 1).flatten(1))

    ann, inputs = Doubled(), images()
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF(), timesteps=8, gradient="bptt").eval()
    ss.convert(snn, ann, [inputs], "calibrate", **PUBLISHED)
    added = {name: tuple(value.shape) for name, value in snn.body.named_buffers() if "correction" in name}
    assert added == {"relu1_correction": (4, 1, 1), "relu2_correction": (4, 1, 1)}
    assert max(float(error.mean((1, 2)).abs().max()) for error in mean_errors(ann, snn, inputs, 8)) < 0.02
    snn.train()(inputs).sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 0}, "the number of time steps must be at least 1, not 0"),
        ({"grid": 0}, "grid must be at least 1, not 0"),
        ({"correct": "bias"}, "correct must be 'light', 'potential', 'weights' or 'none', not 'bias'"),
        ({"correct": "weights", "iterations": 0}, "iterations must be at least 1, not 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, not 0.0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    ann, snn = pair("plain")
    with pytest.raises(ss.InputError, match=message):
        ss.convert(snn, ann, [images()], "calibrate", **options)
