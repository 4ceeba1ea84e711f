"""Synchronised BatchNorm in the graphs: of one process it is the ordinary one. Of two: train/test_processes.py."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch

from spikestill.nn.batch_norm import SynchronisedBatchNorm, synchronise
from tests.graph.networks import SHAPE, gradients, spiking
from tests.processes import group_of_one

WITH_NORMS = ("normalised", "normalised without affine", "residual", "average pooling", "shared", "linear")


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", WITH_NORMS)
@pytest.mark.parametrize("is_deferred", [True, False])
def test_of_one_process_gradients_and_statistics_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    gradient: Literal["rate", "bptt"],
    recompute: bool,
    is_deferred: bool,
) -> None:
    if not is_deferred:  # every BatchNorm is then an operation of its own
        for place in ("rate", "sequence"):
            monkeypatch.setattr(f"spikestill.graph.{place}.deferred_to_neurons", lambda body, kept=(): frozenset())
    judge = spiking(name, gradient=gradient, recompute=recompute, timesteps=5).double()
    ours = copy.deepcopy(judge)
    synchronise(ours)
    assert any(isinstance(module, SynchronisedBatchNorm) for module in ours.modules())
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    with group_of_one(tmp_path):
        for network in (ours, judge):
            network(images).square().sum().backward()
    got, expected = gradients(ours), gradients(judge)
    assert set(got) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-8, atol=1e-10, msg=key)
    for (key, buffer), (_, value) in zip(ours.named_buffers(), judge.named_buffers(), strict=True):
        torch.testing.assert_close(buffer, value, rtol=1e-10, atol=1e-12, msg=key)
