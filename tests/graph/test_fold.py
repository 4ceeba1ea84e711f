from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikestill.graph import fold, to_spiking, trace
from spikestill.graph.sequence import SequenceRun
from spikestill.nn import LIF
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, SHAPE, network, spiking

FOLDABLE = [name for name in NETWORKS if name != "shared"]


@pytest.mark.parametrize("name", FOLDABLE)
def test_the_folded_graph_equals_the_original(name: str) -> None:
    traced = trace(network(name).eval().double(), SHAPE)
    folded = fold(traced)
    assert not any(isinstance(module, _BatchNorm) for module in folded.modules())
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(folded(images), traced(images), rtol=1e-10, atol=1e-10)


def test_the_original_stays_as_it_is() -> None:
    traced = trace(network("residual").eval(), SHAPE)
    before = copy.deepcopy(traced.state_dict())
    fold(traced)
    assert traced.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in traced.state_dict().items())


def test_a_spiking_body_folds_too() -> None:
    body = spiking("residual").eval().double().body
    images = torch.randn(1, 3, *SHAPE, dtype=torch.float64)
    ours, theirs = (SequenceRun(graph, 4).sequence(images) for graph in (fold(body), body))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def refused(*layers: nn.Module) -> str:
    with pytest.raises(InputError) as refusal:
        fold(trace(nn.Sequential(*layers).eval(), SHAPE))
    return str(refusal.value)


def test_a_normalisation_of_something_else_is_refused() -> None:
    assert refused(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)) == (
        "cannot fold '0': it does not follow a convolution or linear layer"
    )
    assert "cannot fold '2'" in refused(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2), nn.BatchNorm2d(4))


def test_a_layer_used_twice_is_refused() -> None:
    with pytest.raises(InputError, match="cannot fold '3.shared.1': '3.shared.0' is used elsewhere too"):
        fold(trace(network("shared").eval(), SHAPE))


def test_a_normalisation_without_running_statistics_is_refused() -> None:
    message = refused(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert message == "cannot fold '1': it keeps no running statistics"


def test_what_cannot_be_folded_stays_where_that_is_allowed() -> None:
    traced = trace(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval().double(), SHAPE)
    folded = fold(traced, strict=False)
    assert [name for name, module in folded.named_modules() if isinstance(module, _BatchNorm)] == ["0"]
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(folded(images), traced(images), rtol=1e-10, atol=1e-10)


def test_what_was_folded_can_be_trained() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    folded = fold(trace(network.eval(), (3, 4, 4)))
    folded(torch.rand(2, 3, 4, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in folded.parameters())
    network.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in fold(trace(network, (3, 4, 4))).parameters())


def test_learnable_parameters_of_neurons_stay_learnable() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    snn = to_spiking(ann, neuron=LIF(leak=0.9, learn=("leak", "threshold")), timesteps=2, input_shape=(1, 8, 8))
    folded = fold(snn.body)
    learned = [name for name, _ in folded.named_parameters() if "parametrizations" in name]
    assert learned == [name for name, _ in snn.body.named_parameters() if "parametrizations" in name]
    assert len(learned) == 2
