"""The switch between compiled and plain, and that both give the same."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spikestill.dynamics import NeuronRule, compiled, rate_forward, spike_sequence

IS_ENABLED = compiled.is_compiling_enabled
"""As it was before the fixtures of this folder replaced it."""


class Compiler:
    """Stands in for ``torch.compile``: counts, and fails where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.calls = error, 0

    def __call__(self, function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def fast(*args: Any) -> Any:
            self.calls += 1
            if self.error is not None:
                raise self.error
            return function(*args)

        assert dynamic
        return fast


def scale(values: Tensor, timesteps: int) -> Tensor:
    return values * timesteps


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    return compiler


def fresh() -> Callable[..., Tensor]:
    """A function that was not wrapped before: what is wrapped is remembered."""
    return compiled.compiled(lambda values, timesteps: scale(values, timesteps))


@pytest.mark.usefixtures("compiling")
def test_up_to_16_steps_are_compiled_and_more_are_not(compiler):
    function = fresh()
    for timesteps, calls in ((1, 1), (16, 2), (17, 2), (100, 2), (16, 3)):
        assert torch.equal(function(torch.ones(3), timesteps), torch.full((3,), float(timesteps)))
        assert compiler.calls == calls


def test_nothing_is_compiled_where_it_is_switched_off(compiler):
    assert torch.equal(fresh()(torch.ones(3), 2), torch.full((3,), 2.0))
    assert compiler.calls == 0


@pytest.mark.usefixtures("compiling")
def test_nothing_is_compiled_inside_another_compilation(compiler, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    fresh()(torch.ones(3), 2)
    assert compiler.calls == 0


@pytest.mark.usefixtures("compiling")
def test_a_failing_compiler_is_reported_once_and_not_asked_again(compiler, caplog):
    function = fresh()
    assert torch.equal(function(torch.ones(3), 2), torch.full((3,), 2.0))
    # A second variant fails after the first has been compiled.
    compiler.error = torch._dynamo.exc.TorchDynamoException("no room\nand more lines")
    with caplog.at_level(logging.WARNING, "spikestill"):
        for _ in range(3):
            assert torch.equal(function(torch.ones(3), 4), torch.full((3,), 4.0))
    assert compiler.calls == 2
    assert [record.message for record in caplog.records] == ["cannot compile (no room): neurons run uncompiled, slower"]


@pytest.mark.usefixtures("compiling")
def test_a_failure_in_a_variant_that_was_seen_is_caught_too(compiler):
    function = fresh()
    function(torch.ones(3), 2)
    compiler.error = torch._dynamo.exc.TorchDynamoException("no room")
    assert torch.equal(function(torch.ones(5), 2), torch.full((5,), 2.0))


@pytest.mark.usefixtures("compiling")
def test_errors_of_the_function_itself_are_not_swallowed(compiler):
    compiler.error = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        fresh()(torch.ones(3), 2)


@pytest.mark.usefixtures("compiling")
def test_a_compilation_is_logged_once_for_each_variant(compiler, caplog):
    function = fresh()
    batch = torch.ones(4, 3)
    variants = (batch, batch.double(), batch[:1], batch[:, :1], batch.t(), batch.clone().requires_grad_(True))
    with caplog.at_level(logging.INFO, "spikestill"):
        for values in (*variants, torch.ones(5, 7), *variants):  # another size is no other variant
            function(values, 2)
    assert len(caplog.records) == len(variants)


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), (None, True)])
def test_the_environment_switches_compiling_off(monkeypatch, value, expected):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)
    if value is None:
        monkeypatch.delenv("SPIKESTILL_COMPILE", raising=False)
    else:
        monkeypatch.setenv("SPIKESTILL_COMPILE", value)
    assert IS_ENABLED.__wrapped__() is expected


def test_without_a_compiler_it_is_off_and_says_so(monkeypatch, caplog):
    monkeypatch.delenv("SPIKESTILL_COMPILE", raising=False)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING, "spikestill"):
        assert IS_ENABLED.__wrapped__() is False
    assert "no C++ compiler found" in caplog.text


def results(current: Tensor, timesteps: int, rule: NeuronRule) -> list[Tensor]:
    current = current.clone().requires_grad_(True)
    leak, threshold = torch.tensor(0.7, requires_grad=True), torch.tensor(0.9, requires_grad=True)
    spikes, carry = spike_sequence(current, leak, threshold, timesteps, rule)
    weights = torch.linspace(-1, 1, spikes.numel()).reshape(spikes.shape)
    gradients = torch.autograd.grad((spikes * weights).sum() + carry.sum(), (current, leak, threshold))
    _, rate, eligibility = rate_forward(current, leak, threshold, timesteps, rule, True, True)
    assert eligibility.leak is not None
    assert eligibility.threshold is not None
    return [spikes, carry, rate, *gradients, eligibility.current, eligibility.leak, eligibility.threshold]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    loggers = ("spikestill", "torch._dynamo")  # others speak of missing drivers
    return [entry.getMessage() for entry in caplog.records if entry.levelno > 20 and entry.name.startswith(loggers)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        NeuronRule(reset, order, detach)
        for (reset, order), detach in zip(
            itertools.product(("soft", "hard"), ("reset-then-leak", "leak-then-subtract")),
            (True, False, False, True),
            strict=True,
        )
    ],
    ids=lambda rule: f"{rule.reset}-{rule.order}",
)
def test_compiled_equals_plain(rule, monkeypatch, caplog):
    if not IS_ENABLED.__wrapped__():
        pytest.skip("nothing here can compile")
    current = torch.randn(4, 3, 5, 7)
    both = []
    for enabled in (False, True):
        monkeypatch.setattr(compiled, "is_compiling_enabled", lambda enabled=enabled: enabled)
        with caplog.at_level(logging.INFO, "spikestill"):
            both.append(results(current, 4, rule))
    assert any(record.message.startswith("compiled forward_through_time") for record in caplog.records)
    assert not warnings_of(caplog)
    for plain, fast in zip(both[0][:3], both[1][:3], strict=True):
        assert torch.equal(plain, fast)
    for plain, fast in zip(both[0][3:], both[1][3:], strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_many_variants_are_all_compiled(compiling, caplog):
    if not IS_ENABLED.__wrapped__():
        pytest.skip("nothing here can compile")
    torch._dynamo.reset()
    # torch gives up at 8 compilations of one function unless told otherwise.
    with caplog.at_level(logging.INFO, "spikestill"):
        for timesteps in range(1, 11):
            current = torch.randn(1, 3, 2)
            spikes, _ = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), timesteps, NeuronRule())
            assert spikes.shape == (timesteps, 3, 2)
    assert not warnings_of(caplog)
    counters = torch._dynamo.utils.counters["stats"]
    assert counters["unique_graphs"] >= 10
