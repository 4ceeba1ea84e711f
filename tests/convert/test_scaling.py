"""Scales: which factor each layer takes, and where an explicit one is needed."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.convert.preparing import prepare
from spikestill.convert.scaling import rescale
from tests.convert.networks import images, pair
from tests.graph.networks import SHAPE


def factors(snn: ss.SpikingNetwork) -> list[float]:
    return [float(node.args[1]) for node in snn.body.graph.nodes if node.target is operator.mul]


def test_weights_by_both_scales_biases_by_the_outer_one() -> None:
    ann, snn = pair("plain")
    work = prepare(snn, ann, [images()])
    scales = {"2": 3.0, "3.1": 5.0}
    rescale(work.body, lambda name, node, current: scales[name], currents={"2": 3.0, "3.1": 5.0}, output=0.5)
    wanted, given = ann.state_dict(), work.body.state_dict()
    for layer, before, after in (("0", 1.0, 3.0), ("3.0", 3.0, 5.0), ("6", 5.0, 0.5)):
        torch.testing.assert_close(given[f"{layer}.weight"], wanted[f"{layer}.weight"] * before / after)
        torch.testing.assert_close(given[f"{layer}.bias"], wanted[f"{layer}.bias"] / after)


def test_scales_of_one_change_nothing() -> None:
    ann, snn = pair("identity shortcut")
    work = prepare(snn, ann, [images()])
    before = {key: value.clone() for key, value in work.body.state_dict().items()}
    nodes = len(work.body.graph.nodes)
    ones = dict.fromkeys(work.activations, 1.0)
    rescale(work.body, lambda name, node, current: 1.0, currents=ones, output=1.0)
    assert len(work.body.graph.nodes) == nodes
    assert all(torch.equal(value, before[key]) for key, value in work.body.state_dict().items())


@pytest.mark.parametrize(
    ("name", "count"),
    [("plain", 0), ("residual", 0), ("identity shortcut", 2), ("dense", 2), ("gathering", 0), ("shared", 0)],
)
def test_explicit_factors_stand_only_where_no_layer_can_take_them(name: str, count: int) -> None:
    ann, snn = pair(name)
    ss.convert(snn, ann, [images()], "normalise", by="layer")
    assert len(factors(snn)) == count


def test_the_factor_of_a_shortcut_is_the_ratio_of_the_scales() -> None:
    ann, snn = pair("identity shortcut")
    inputs = images()
    ss.convert(snn, ann, [inputs], "normalise", percentile=100.0, by="layer")
    with torch.no_grad():
        stem = ann[:3](inputs)  # type: ignore[index]
        first = ann[3](stem)  # type: ignore[index]
        second = ann[4](first)  # type: ignore[index]
    assert factors(snn) == pytest.approx([float(stem.max() / first.max()), float(first.max() / second.max())], rel=1e-5)


def test_tied_weights_are_scaled_once_each() -> None:
    ann = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2))
    ann[2].weight = ann[0].weight
    snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF()).eval()
    inputs = images()
    ss.convert(snn, ann, [inputs], "normalise", percentile=100.0)
    with torch.no_grad():
        torch.testing.assert_close(snn.unroll(inputs, 4096).mean(0), ann(inputs), atol=2e-3, rtol=2e-2)


def test_padding_with_a_constant_and_statistics_of_the_batch_are_refused() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(400, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.pad(self.relu(self.conv(x)), (2, 2, 2, 2), "constant", 0.5).flatten(1))

    unsteady = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2)
    )
    for ann, message in ((Padded(), "which pads with 0.5"), (unsteady, "cannot convert '1': it keeps no running")):
        snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF())
        with pytest.raises(ss.InputError, match=message):
            ss.convert(snn, ann, [images()], "normalise")
