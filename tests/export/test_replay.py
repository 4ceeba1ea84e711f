from __future__ import annotations

import copy

import pytest
import torch

import spikestill as ss
from spikestill.export import replay
from tests.graph import networks


def test_a_network_replays_itself_in_whatever_mode_it_is() -> None:
    snn = networks.spiking("dropout").train()
    found = replay(snn, copy.deepcopy(snn).eval(), torch.rand(3, *networks.SHAPE))
    assert str(found) == "0 of 4,800 spikes differ (3 images, 4 time steps)"
    assert found.predictions_differing == found.logits == 0
    assert snn.training


def test_differences_are_counted_one_by_one() -> None:
    snn = networks.spiking("plain", timesteps=12).eval()
    other = copy.deepcopy(snn)
    dict(other.neurons())["2"].set_threshold(0.3)
    images = torch.rand(3, *networks.SHAPE)
    ours, theirs = [], []
    with torch.no_grad():
        snn.unroll(images, observe=lambda _, spikes: ours.append(spikes.flatten()))
        other.unroll(images, observe=lambda _, spikes: theirs.append(spikes.flatten()))
    expected = int((torch.cat(ours) != torch.cat(theirs)).sum())
    found = replay(snn, other, images)
    assert found.differing == expected > 100
    assert found.places == 12 * 3 * 2 * 4 * 8 * 8
    assert found.logits > 0


def test_both_see_the_same_random_spikes_and_events() -> None:
    snn = networks.spiking("plain", encoder=ss.Poisson()).eval()
    assert replay(snn, copy.deepcopy(snn), torch.rand(2, *networks.SHAPE)).differing == 0
    snn = networks.spiking("plain", encoder=ss.Events()).eval()
    found = replay(snn, copy.deepcopy(snn), torch.rand(4, 5, *networks.SHAPE))
    assert (found.differing, found.images) == (0, 5)


def test_networks_of_other_layers_are_not_compared() -> None:
    snn, other = networks.spiking("plain").eval(), networks.spiking("residual").eval()
    with pytest.raises(ss.InputError, match="neuron layers have other names or shapes"):
        replay(snn, other, torch.rand(1, *networks.SHAPE))
