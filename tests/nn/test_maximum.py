"""The maximum of firing rates, spike by spike, against counting, and in every way to run a network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import spikestill as ss
from spikestill.graph.network import Gradient
from spikestill.nn import MaxGate
from tests.graph.networks import SHAPE

POOLS = {
    "plain": lambda: nn.MaxPool2d(2),
    "overlapping, padded": lambda: nn.MaxPool2d(3, 2, 1),
    "dilated": lambda: nn.MaxPool2d(2, 1, dilation=2),
    "ceiling": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "adaptive": lambda: nn.AdaptiveMaxPool2d(3),
}


@pytest.mark.parametrize("pool", POOLS)
@given(timesteps=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_at_every_step_a_window_has_counted_what_its_best_input_has(pool: str, timesteps: int, seed: int) -> None:
    spikes = (torch.rand(timesteps, 2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) < 0.4).float()
    gate = MaxGate(POOLS[pool]())
    passed, sums = gate.run(spikes)
    assert set(passed.unique().tolist()) <= {0.0, 1.0}
    for step in range(timesteps):
        torch.testing.assert_close(passed[: step + 1].sum(0), POOLS[pool]()(spikes[: step + 1].sum(0)))
    assert torch.equal(sums, spikes.sum(0))


def test_parts_are_the_whole() -> None:
    spikes, gate = (torch.rand(9, 2, 3, 8, 8) < 0.5).float(), MaxGate(nn.MaxPool2d(3, 2, 1))
    first, carry = gate.run(spikes[:4])
    second, _ = gate.run(spikes[4:], carry)
    assert torch.equal(torch.cat([first, second]), gate.run(spikes)[0])


def test_bf16_counts_exactly() -> None:
    spikes = torch.ones(300, 1, 1, 2, 2, dtype=torch.bfloat16)
    passed, _ = MaxGate(nn.MaxPool2d(2)).run(spikes)
    assert passed.dtype == torch.bfloat16
    assert passed.sum(dtype=torch.float32) == 300


class Functional(nn.Module):
    """A pooling by function between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.relu1(self.conv1(x)), 2, stride=1)
        return self.head(self.relu2(self.conv2(x)).mean((2, 3)))


def network(gradient: Gradient, timesteps: int, norm: bool = False, recompute: bool = False) -> ss.SpikingNetwork:
    torch.manual_seed(1)
    norms = [nn.BatchNorm2d(4)] if norm else []
    ann = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), *norms, nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )
    neuron = ss.LIF(leak=0.9, threshold=0.3)
    return ss.to_spiking(
        ann,
        input_shape=SHAPE,
        neuron=neuron,
        timesteps=timesteps,
        gradient=gradient,
        max_pool="gate",
        recompute=recompute,
    )


def test_streams_step_by_step_and_in_parts() -> None:
    snn, images = network("bptt", 19).eval(), torch.rand(3, *SHAPE)
    with torch.no_grad():
        parts = snn.unroll(images)
        state, steps = None, []
        for _ in range(19):
            logits, state = snn.step(images, state)
            steps.append(logits)
    whole = snn.unroll(images)  # with autograd the sequence is run at once
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.stack(steps), whole)


@pytest.mark.parametrize(("timesteps", "norm", "recompute"), [(4, False, False), (12, False, False), (6, True, True)])
def test_rate_gradients_go_through_the_maximum_of_the_rates(timesteps: int, norm: bool, recompute: bool) -> None:
    images = torch.rand(3, *SHAPE)
    found = []
    for again in (False, recompute):
        snn = network("rate", timesteps, norm, again).train()
        record = snn.record(images, taps=["2", "3"] if norm else ["1", "2"])
        before, after = record.features.values()
        torch.testing.assert_close(after, nn.MaxPool2d(3, 2, 1)(before))
        record.logits.sum().backward()
        found.append([parameter.grad for parameter in snn.parameters()])
        with torch.no_grad():
            torch.testing.assert_close(network("rate", timesteps, norm).train().unroll(images).mean(0), record.logits)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_through_time_the_gradient_is_that_of_the_growing_maximum() -> None:
    spikes = torch.rand(4, 1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    gate = MaxGate(nn.MaxPool2d(2))
    assert torch.autograd.gradcheck(lambda x: gate.run(x)[0], [spikes])
    snn = network("bptt", 4).train()
    snn(torch.rand(2, *SHAPE)).sum().backward()
    assert all(parameter.grad is not None for parameter in snn.parameters())


def test_a_function_becomes_a_gate_and_the_ann_stays() -> None:
    ann = Functional().eval()
    snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF(), timesteps=400, max_pool="gate").eval()
    gates = [module for module in snn.body.modules() if isinstance(module, MaxGate)]
    assert len(gates) == 1
    images = torch.rand(4, *SHAPE)
    ss.convert(snn, ann, [images], "shift")
    with torch.no_grad():
        torch.testing.assert_close(snn(images), ann(images), atol=0.02, rtol=0.05)


def test_a_converted_maximum_is_exact_with_time_where_that_of_spikes_is_not() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16, 3)),
    ).eval()
    images, errors = torch.rand(8, *SHAPE), {}
    for max_pool in ("gate", "keep"):
        snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF(), timesteps=256).eval()
        ss.convert(snn, ann, [images], "shift", max_pool=max_pool)
        with torch.no_grad():
            errors[max_pool] = float((snn(images) - ann(images)).abs().max())
    assert errors["gate"] < 0.01
    assert errors["keep"] > 10 * errors["gate"]


def test_exports_refuse_it_by_name(tmp_path) -> None:
    snn = network("rate", 2).eval()
    for export in (
        lambda: ss.export.to_nir(snn),
        lambda: ss.export.to_onnx(snn, tmp_path / "x.onnx"),
        lambda: ss.to_spikingjelly(snn),
    ):
        with pytest.raises(ss.InputError, match=r"'2'.* maximum over time.*max_pool='average'"):
            export()


def test_another_kind_of_pooling_is_refused() -> None:
    with pytest.raises(ss.InputError, match="max_pool must be 'keep', 'gate' or 'average', not 'mean'"):
        ss.to_spiking(Functional(), input_shape=SHAPE, max_pool="mean")
