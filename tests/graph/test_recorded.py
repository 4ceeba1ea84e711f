"""What torch records of a network computes what the network does, on other images too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import spikestill as ss
from spikestill.dynamics.backend import fuses, is_recorded
from spikestill.types import InputError

IMAGES, OTHERS = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def network(timesteps: int, gradient: str = "bptt") -> ss.SpikingNetwork:
    torch.manual_seed(0)
    ann = ss.models.create("vgg5", num_classes=10, in_channels=3, image_size=16, width=0.5)
    neuron = ss.LIF(leak=0.5, threshold=0.3)
    return ss.to_spiking(ann, neuron=neuron, timesteps=timesteps, gradient=gradient, input_shape=(3, 16, 16)).eval()


def traced(snn: Callable[..., Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of every size that it takes for a constant, and of its own age
        return torch.jit.trace(snn, IMAGES, check_trace=False)


RECORDERS: dict[str, Callable[[ss.SpikingNetwork], Callable[[Tensor], Tensor]]] = {
    "trace": traced,
    "make_fx": lambda snn: make_fx(snn)(IMAGES),
    "export": lambda snn: torch.export.export(snn, (IMAGES,)).module(),
    "export, not strict": lambda snn: torch.export.export(snn, (IMAGES,), strict=False).module(),
    "vmap": lambda snn: torch.vmap(lambda image: snn(image[None])[0]),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("timesteps", [3, 10])  # the second is run some steps at a time
@pytest.mark.parametrize("record", RECORDERS.values(), ids=RECORDERS)
def test_what_is_recorded_computes_the_same(record: Callable[..., Any], timesteps: int) -> None:
    snn = network(timesteps)
    with torch.no_grad():
        wanted = snn(OTHERS)
        found = record(snn)(OTHERS)
    assert float((found - wanted).abs().max()) < 1e-5
    assert not torch.allclose(wanted, snn(IMAGES))  # constants would do otherwise


def test_a_trace_with_autograd_is_refused() -> None:
    snn = network(2)
    for call in (snn, lambda images: snn.unroll(images), lambda images: snn.step(images)[0]):
        with pytest.raises(InputError, match="trace a spiking network under torch.no_grad"):
            traced(call)


def test_kernels_serve_where_nothing_is_recorded() -> None:
    assert not is_recorded()
    seen = []

    def function(images: Tensor) -> Tensor:
        seen.append(fuses())
        return images

    make_fx(function)(IMAGES)
    torch.vmap(function)(IMAGES)
    assert seen == [False, False]
    assert fuses()
