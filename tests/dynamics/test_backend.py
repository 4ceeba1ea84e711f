"""Which kernels do the passes for which sequences, rules and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from spikestill.dynamics import NeuronRule, Sigmoid, native, plain, spike_sequence
from spikestill.dynamics.backend import passes_for
from spikestill.types import InputError


class Subclassed(NeuronRule):
    """Another neuron than its fields say."""

    def fire(self, potential: Tensor, threshold: Tensor) -> Tensor:
        return torch.ones_like(potential)


@dataclass(frozen=True)
class Steep(Sigmoid):
    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:
        return torch.full_like(distance, 7.0)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKESTILL_KERNELS", raising=False)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, plain), (torch.float16, plain), (torch.float32, native), (torch.bfloat16, native)],
    ids=str,
)
def test_the_dtype_decides(dtype: torch.dtype, expected: object) -> None:
    assert passes_for(torch.empty(2, 3, dtype=dtype)) is expected
    assert passes_for(torch.empty(2, 3, dtype=dtype), NeuronRule(reset="hard")) is expected


def test_other_devices_are_not_given_to_the_cpu() -> None:
    assert passes_for(torch.empty(2, 3, device="meta")) is plain


@pytest.mark.parametrize(
    ("value", "expected"), [("plain", plain), ("auto", native), ("", native)], ids=["plain", "auto", "empty"]
)
def test_the_environment_chooses(value: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKESTILL_KERNELS", value)
    assert passes_for(torch.empty(2, 3), NeuronRule()) is expected


@pytest.mark.parametrize("value", ["native", "Plain", "plian"])
def test_an_unknown_choice_is_refused_and_the_known_ones_are_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKESTILL_KERNELS", value)
    with pytest.raises(InputError, match=f"unknown value of SPIKESTILL_KERNELS '{value}'.*known: auto, plain"):
        spike_sequence(torch.zeros(2, 3), torch.tensor(0.5), torch.tensor(1.0), 2, NeuronRule())


@pytest.mark.parametrize("rule", [Subclassed(), NeuronRule(surrogate=Steep())], ids=["rule", "surrogate"])
def test_what_is_subclassed_runs_plainly(rule: NeuronRule) -> None:
    assert passes_for(torch.empty(2, 3), rule) is plain
    current = torch.zeros(2, 3, requires_grad=True)
    spikes, _ = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 2, rule)
    spikes[1].sum().backward()
    assert bool(spikes.all()) == isinstance(rule, Subclassed)
    assert current.grad is not None
    assert (current.grad[1] == 7).all() == isinstance(rule.surrogate, Steep)


def test_what_torch_compiles_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert passes_for(torch.empty(2, 3), NeuronRule()) is plain


def test_both_backends_have_every_pass() -> None:
    passes: Sequence[str] = plain.__all__
    assert set(native.__all__) - {"covers"} == set(passes)
    assert all(callable(getattr(backend, name)) for backend in (plain, native) for name in passes)
