from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikestill as ss
from spikestill.export import folded, replay
from spikestill.export.lowering import Scale, lower
from spikestill.graph import SpikingNetwork
from spikestill.graph.trace import calls, module_of
from tests.convert import networks as converted
from tests.export import networks as own
from tests.graph import networks

KNOWN = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.Flatten, ss.LIF, Scale)
EXPRESSED = [name for name in networks.NETWORKS if name not in ("max pooling", "circular padding")]


def assert_lowered(snn: SpikingNetwork, channels: int = 3) -> None:
    """What is left is known, and computes the same: in double precision, where rounding does not count."""
    exact = copy.deepcopy(snn).double()
    found = folded(exact)
    for node in calls(found.body.graph):
        module = module_of(found.body, node)
        assert isinstance(module, KNOWN) or node.op == "call_function", node
        assert not isinstance(module, nn.Conv2d) or (module.groups == 1 and module.bias is not None)
    compared = replay(exact, found, torch.rand(3, channels, *own.SHAPE[1:], dtype=torch.float64))
    assert compared.places > 100
    assert compared.differing == 0
    assert compared.logits < 1e-12


@pytest.mark.parametrize("name", EXPRESSED)
def test_networks_in_known_operations_give_the_same_spikes(name: str) -> None:
    assert_lowered(networks.spiking(name).eval())


@pytest.mark.parametrize("name", own.EXACT)
def test_what_formats_have_no_word_for_is_expressed_exactly(name: str) -> None:
    assert_lowered(own.spiking(own.EXACT[name]()))


@pytest.mark.parametrize("method", ["threshold-balancing", "shift", "calibrate"])
@pytest.mark.parametrize("name", ["dense", "shared", *converted.OWN])
def test_converted_networks_keep_their_spikes(name: str, method: str) -> None:
    ann, snn = converted.pair(name)
    ss.convert(snn, ann, [converted.images()], method=method)
    assert_lowered(snn)


def test_the_corrections_of_a_calibration_are_expressed() -> None:
    ann, snn = converted.pair("identity shortcut")
    ss.convert(snn, ann, [converted.images()], method="calibrate", correct="potential")
    assert any(neuron.initial is not None for _, neuron in snn.neurons())
    assert_lowered(snn)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("name", own.REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(name: str) -> None:
    make, match = own.REFUSED[name]
    with pytest.raises(ss.InputError, match=match) as caught:
        lower(own.spiking(make()).body)
    assert "\n" not in str(caught.value)


def test_a_norm_without_running_statistics_is_refused() -> None:
    made = own.between(lambda self, x: self.norm(x), norm=lambda: nn.BatchNorm2d(4, track_running_stats=False))()
    with pytest.raises(ss.InputError, match=r"'2.norm' \(BatchNorm2d\): it keeps no running statistics"):
        lower(ss.to_spiking(made, input_shape=own.SHAPE).body)


def test_a_linear_layer_of_maps_is_refused() -> None:
    made = own.between(lambda self, x: self.rows(x), rows=lambda: nn.Linear(8, 8))()
    with pytest.raises(ss.InputError, match=r"'2.rows' \(Linear\): a linear layer of maps"):
        lower(own.spiking(made).body)


def test_signals_in_one_dimension() -> None:
    made = nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 3, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(40, 5),
    )  # fmt: skip
    snn = own.spiking(made, input_shape=(3, 12))
    exact = copy.deepcopy(snn).double()
    assert replay(exact, folded(exact), torch.rand(3, 3, 12, dtype=torch.float64)).differing == 0


def test_the_network_itself_stays_as_it_is() -> None:
    snn = networks.spiking("residual").train()
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    lower(snn.body)
    assert snn.training
    assert snn.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in snn.state_dict().items())


def test_a_constant_goes_into_the_bias_that_is_there() -> None:
    snn = own.spiking(own.EXACT["constants"]())
    layers = [module for module in lower(snn.body).modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 3
