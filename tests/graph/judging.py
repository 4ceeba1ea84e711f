"""Rate gradients against the plain two passes of ``tests/reference/two_pass.py``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikestill.graph import SpikingNetwork
from spikestill.nn import IF, LIF, Poisson
from tests.graph.networks import SHAPE, gradients
from tests.reference.two_pass import rate_output

NEURONS = {
    "learnt, kept": LIF(0.6, 0.3, detach_reset=False, learn=("leak", "threshold")),
    "learnt, hard": LIF(0.6, 0.3, "hard", "leak-then-subtract", learn=("leak", "threshold")),
    "learnt threshold": IF(0.4, learn=("threshold",)),
    "without leak": IF(0.4),
}


def assert_same_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    """Value and gradients of one tensor against another's, in float64."""
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    expected = torch.autograd.grad(theirs, inputs, weights)
    for got, wanted in zip(torch.autograd.grad(ours, inputs, weights), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def assert_equals_reference(snn: SpikingNetwork, images: Tensor, encoded: list[Tensor] | None = None) -> None:
    """Value and every gradient, the images' included, of the engine against the plain two passes."""
    judge = copy.deepcopy(snn)
    encoded = [images.clone().requires_grad_() for _ in range(snn.timesteps)] if encoded is None else encoded
    images = images.clone().requires_grad_(not isinstance(snn.encoder, Poisson))
    torch.manual_seed(1)
    ours = snn(images)
    torch.manual_seed(1)
    theirs = rate_output(judge.body, encoded)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    expected = gradients(judge)
    got = gradients(snn)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-10, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")
    if images.requires_grad:
        by_images = sum(frame.grad for frame in encoded if frame.grad is not None)
        torch.testing.assert_close(images.grad, by_images, rtol=1e-10, atol=1e-10)


def assert_equals_reference_for_drawn_spikes(snn: SpikingNetwork) -> None:
    """As :func:`assert_equals_reference`, of a network in float64 whose Poisson encoder has a seed."""
    assert isinstance(snn.encoder, Poisson)
    images, encoder = images_of(), copy.deepcopy(snn.encoder)
    with torch.no_grad():
        encoded = list(encoder(images, snn.timesteps))
    assert_equals_reference(snn, images, encoded)


def images_of(batch: int = 3) -> Tensor:
    return torch.randn(batch, *SHAPE, dtype=torch.float64)


class Largest(TorchDispatchMode):
    """Notes the most numbers that an operation gave a tensor."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        numbers = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point())
        sizes = [leaf.numel() for leaf in numbers]
        self.numel = max(self.numel, *sizes, 0)
        return result
