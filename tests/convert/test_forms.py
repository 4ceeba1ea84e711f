"""Conversion comes near the ANN whatever form its operations have; weights that are computed count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import spikestill as ss
from spikestill.convert.preparing import prepare
from spikestill.export import from_nir, to_nir

SHAPE = (1, 6, 6)


class Net(nn.Module):
    """Two layers with a function between them that reads spikes, then a read-out."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **buffers: Tensor) -> None:
        super().__init__()
        self.first, self.second, self.read_out = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.function = function
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(F.relu(self.second(self.function(self, F.relu(self.first(x))))).mean((2, 3)))


def _parametrised(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


ANNS: dict[str, Callable[[], nn.Module]] = {
    "a sum by name": lambda: Net(lambda s, x: torch.add(x, other=0.5)),
    "a difference with a factor": lambda: Net(lambda s, x: torch.sub(x, F.avg_pool2d(x, 3, 1, 1), alpha=0.5)),
    "from a number": lambda: Net(lambda s, x: 1 - x),
    "a buffer added": lambda: Net(lambda s, x: x + s.shift.view(1, -1, 1, 1), shift=torch.rand(4)),
    "buffers that normalise": lambda: Net(
        lambda s, x: (x - s.shift.view(1, -1, 1, 1)) / s.variance.sqrt()[None, :, None, None],
        shift=torch.rand(4),
        variance=torch.rand(4) + 0.5,
    ),
    "a product with a buffer": lambda: Net(lambda s, x: s.gain[:, None, None] * x, gain=torch.rand(4) + 0.1),
    "a clipped rectifier": lambda: Net(lambda s, x: (x - 0.2).clamp(0, 0.3)),
    "a function's weights": lambda: Net(lambda s, x: F.conv_transpose2d(x, s.kernel), kernel=torch.randn(4, 4, 2, 2)),
    "weight_norm": lambda: _parametrised(parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.BatchNorm2d(4)),
    "spectral_norm": lambda: _parametrised(parametrizations.spectral_norm(nn.Conv2d(1, 4, 3))),
    "a norm over another axis": lambda: nn.Sequential(
        nn.Flatten(1, 2), nn.Linear(6, 8), nn.BatchNorm1d(6), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    ),
}


def _ann(name: str) -> nn.Module:
    torch.manual_seed(0)
    ann = ANNS[name]()
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return ann.eval()


@pytest.mark.parametrize("name", ANNS)
@torch.no_grad()
def test_the_converted_network_comes_near_the_ann(name: str) -> None:
    ann, images = _ann(name), torch.randn(8, *SHAPE)
    snn = ss.to_spiking(ann, neuron=ss.IF(), timesteps=512, input_shape=SHAPE)
    ss.convert(snn, ann, [images], "shift")
    expected = ann(images)
    assert float((snn.eval()(images) - expected).norm() / expected.norm()) < 0.02


def test_the_ceiling_of_a_clipped_rectifier_bounds_its_scale() -> None:
    ann = _ann("a clipped rectifier")
    snn = ss.to_spiking(ann, neuron=ss.IF(), timesteps=8, input_shape=SHAPE)
    work = prepare(snn, ann, [torch.randn(8, *SHAPE)])
    assert [work.ceiling(name) for name in work.activations] == [float("inf"), 0.3, float("inf")]


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
        lambda s, x: x.mean((-1, -2), keepdim=True).squeeze(-1).squeeze(-1),
        lambda s, x: F.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1),
        lambda s, x: torch.flatten(input=F.adaptive_avg_pool2d(x, (1, 1)), start_dim=1),
    ],
)
def test_every_way_to_a_vector_goes_to_nir_and_back(function: Callable[[Any, Tensor], Tensor]) -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), _Applied(function), nn.Linear(4, 3))
    neuron = ss.LIF(threshold=0.3, reset="hard")
    snn = ss.to_spiking(ann, neuron=neuron, timesteps=4, input_shape=SHAPE).eval()
    images = torch.randn(3, *SHAPE)
    torch.testing.assert_close(from_nir(to_nir(snn))(images), snn(images), rtol=1e-5, atol=1e-5)


class _Applied(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)
