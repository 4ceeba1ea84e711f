from __future__ import annotations

import pytest
import torch

import spikestill as ss
from tests.convert.networks import PUBLISHED, images, pair
from tests.convert.test_convert import activations, relative_error


@pytest.mark.parametrize("name", ["plain", "residual", "dense"])
def test_thresholds_are_the_largest_activations_and_neurons_start_half_way(name: str) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, inputs.split(3), "shift", by="layer")
    for (_, neuron), activation in zip(snn.neurons(), activations(ann, inputs), strict=True):
        assert neuron.threshold.item() == pytest.approx(activation.max().item(), rel=1e-5)
        assert neuron.initial is not None
        assert neuron.initial.item() == pytest.approx(neuron.threshold.item() / 2)


def test_weights_carry_the_threshold_that_they_read_and_biases_stay() -> None:
    ann, snn = pair("plain")
    ss.convert(snn, ann, [images()], "shift", percentile=95.0, by="layer")
    first, second = (neuron.threshold for _, neuron in snn.neurons())
    wanted, given = ann.state_dict(), snn.body.state_dict()
    assert torch.equal(given["0.weight"], wanted["0.weight"])
    torch.testing.assert_close(given["3.0.weight"], wanted["3.0.weight"] * first)
    torch.testing.assert_close(given["6.weight"], wanted["6.weight"] * second)
    assert all(torch.equal(given[key], wanted[key]) for key in ("0.bias", "3.0.bias", "6.bias"))


def test_the_first_layers_rates_are_the_nearest_instead_of_the_next_lower_ones() -> None:
    ann, snn = pair("plain")
    inputs, rates = images(), {}
    ss.convert(snn, ann, [inputs], "shift", by="layer")
    with torch.no_grad():
        snn.unroll(inputs, 8, lambda name, spikes: rates.update({name: spikes.mean(0)}))
    activation = activations(ann, inputs)[0]
    torch.testing.assert_close(rates["2"], (8 * activation / activation.max() + 0.5 - 1e-6).floor().clamp(max=8) / 8)


def test_it_is_nearer_to_the_ann_than_without_a_shift() -> None:
    ann, shifted = pair("plain")
    _, plain = pair("plain")
    inputs = images()
    ss.convert(shifted, ann, [inputs], "shift", by="layer")
    ss.convert(plain, ann, [inputs], "normalise", percentile=100.0, **PUBLISHED)
    assert relative_error(ann, shifted, inputs, 16) < relative_error(ann, plain, inputs, 16) / 2
