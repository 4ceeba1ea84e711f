"""Segments that are computed again give what a whole run gives, and keep less."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from spikestill import models
from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.graph.recomputing import segment_ends
from tests.graph.networks import NETWORKS, SHAPE, gradients, spiking


def kept_bytes(snn: SpikingNetwork, images: Tensor) -> int:
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = snn(images)
    output.sum().backward()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in snn.parameters()}
    return sum(size for place, size in storages.items() if place not in parameters)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_statistics_are_those_of_the_whole_run(name: str) -> None:
    whole = spiking(name, gradient="bptt", timesteps=5).double()
    parts = copy.deepcopy(whole)
    parts.recompute = True
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    for snn in (whole, parts):
        torch.manual_seed(3)  # of dropout
        snn(images).square().sum().backward()
    for (key, ours), theirs in zip(gradients(parts).items(), gradients(whole).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, msg=key)
    for (key, ours), (_, theirs) in zip(parts.named_buffers(), whole.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, msg=key)


def test_taps_within_a_segment_and_at_its_end_are_recorded() -> None:
    whole = to_spiking(models.create("resnet20", width=0.25), input_shape=(3, 16, 16), gradient="bptt").double()
    parts = copy.deepcopy(whole)
    parts.recompute = True
    ends = segment_ends(whole.body)
    assert len(ends) == 4
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    taps = (ends[0], "layer1", "layer3.block2")
    ours, theirs = (snn.record(images, taps) for snn in (parts, whole))
    for name in taps:
        torch.testing.assert_close(ours.spikes[name], theirs.spikes[name], rtol=0, atol=0)
    by_ours, by_theirs = (
        torch.autograd.grad(sum(rate.square().sum() for rate in record.features.values()), snn.body.stem.conv.weight)  # type: ignore[arg-type, union-attr]
        for record, snn in ((ours, parts), (theirs, whole))
    )
    torch.testing.assert_close(by_ours, by_theirs, rtol=1e-10, atol=1e-10)


def test_less_is_kept() -> None:
    layers: list[nn.Module] = []
    for _ in range(16):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 64, 5))
    snn = to_spiking(net, input_shape=(3, 8, 8), timesteps=8, gradient="bptt")
    images = torch.randn(4, 3, 8, 8)
    whole = kept_bytes(snn, images)
    snn.recompute = True
    assert kept_bytes(snn, images) < whole / 4


def test_evaluation_and_rates_do_not_mind() -> None:
    snn = spiking("residual", gradient="rate")
    images = torch.randn(2, *SHAPE)
    expected = snn(images)
    snn.recompute = True
    assert torch.equal(snn(images), expected)
    with torch.no_grad():
        assert torch.equal(snn(images), SpikingNetwork(snn.body, timesteps=4, encoder=snn.encoder)(images))
