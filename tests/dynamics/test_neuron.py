"""One step's rule: its parts against autograd and closed forms, and whole spike trains against the two peers.

The peers are judged on what they define: SpikingJelly's IFNode and LIFNode reset before they leak and fire at the
threshold; snnTorch's Leaky leaks, subtracts the last spike's threshold undecayed and fires above it.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from spikestill.dynamics import ATan, NeuronRule, Sigmoid, spike_sequence
from spikestill.types import InputError

RESETS = ("soft", "hard")
ORDERS = ("reset-then-leak", "leak-then-subtract")
LEAK, THRESHOLD = torch.tensor(0.5), torch.tensor(1.0)


def sequence(current: Tensor, leak: float, threshold: float, rule: NeuronRule) -> Tensor:
    return spike_sequence(current, torch.tensor(leak), torch.tensor(threshold), current.shape[0], rule)[0]


@pytest.mark.parametrize(("reset", "order"), list(itertools.product(RESETS, ORDERS)))
def test_partial_derivatives_of_the_carry_are_autograd_s(reset, order):
    rule = NeuronRule(reset, order)
    potential, spike = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    leak, threshold = torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)

    def each(*scalars: Tensor) -> tuple[Tensor, ...]:
        return tuple(scalar.expand(50).clone().requires_grad_(True) for scalar in scalars)

    v, s, lam, theta = (*(x.clone().requires_grad_(True) for x in (potential, spike)), *each(leak, threshold))
    carried = rule.carry(v, s, lam, theta)
    by = torch.autograd.grad(carried.sum(), (v, s, lam, theta), allow_unused=True, materialize_grads=True)
    ours = (
        rule.carry_by_potential(spike, leak),
        rule.carry_by_spike(potential, leak, threshold),
        rule.carry_by_leak(potential, spike, threshold),
        rule.carry_by_threshold(spike, leak),
    )
    for expected, got in zip(by, ours, strict=True):
        torch.testing.assert_close(got.expand(50), expected)


def test_at_the_threshold_one_order_fires_and_the_other_does_not():
    at = torch.tensor([0.999, 1.0, 1.001])
    assert NeuronRule(order="reset-then-leak").fire(at, THRESHOLD).tolist() == [0, 1, 1]
    assert NeuronRule(order="leak-then-subtract").fire(at, THRESHOLD).tolist() == [0, 0, 1]


@pytest.mark.parametrize("reset", RESETS)
def test_without_leak_the_two_orders_differ_only_at_the_threshold(reset):
    current = torch.randn(16, 500, dtype=torch.float64)  # no sum of these meets the threshold exactly
    first, second = (
        spike_sequence(current, torch.tensor(1.0), THRESHOLD, 16, NeuronRule(reset, order))[0] for order in ORDERS
    )
    assert torch.equal(first, second)
    assert 0.02 < first.mean() < 0.9


@pytest.mark.parametrize("threshold", [0.5, 1.0, 3.0])
def test_a_constant_current_fires_at_the_known_rate(threshold):
    # IF, soft reset: after T steps floor(T x / threshold) spikes, for a current below the threshold.
    current = torch.arange(0, 64) * threshold / 64
    spikes, _ = spike_sequence(current[None], torch.tensor(1.0), torch.tensor(threshold), 16, NeuronRule())
    assert torch.equal(spikes.sum(0), torch.floor(16 * current / threshold))


def test_a_leaking_neuron_with_hard_reset_has_the_known_period():
    # v_k = x (1 - leak^k) / (1 - leak): 0.6 -> 0.6, 0.9, 1.05 fires at the third step, then starts again from 0.
    spikes, carry = spike_sequence(torch.full((1, 1), 0.6), LEAK, THRESHOLD, 9, NeuronRule("hard"))
    assert spikes.flatten().tolist() == [0, 0, 1] * 3
    assert carry.tolist() == [0]


def test_the_undecayed_reset_takes_more_away_than_the_decayed_one():
    current = torch.tensor([[2.0], [0.0]])
    carries = [spike_sequence(current[:1], LEAK, THRESHOLD, 1, NeuronRule("soft", order))[1] for order in ORDERS]
    assert [carry.item() for carry in carries] == [0.5 * (2 - 1), 0.5 * 2 - 1]


def test_what_is_neither_a_reset_nor_an_order_is_refused():
    with pytest.raises(InputError, match="reset must be 'soft' or 'hard', not 'zero'"):
        NeuronRule(reset="zero")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="order must be 'reset-then-leak' or 'leak-then-subtract', not 'leak'"):
        NeuronRule(order="leak")  # type: ignore[arg-type]


def spikingjelly_node(leak: float, threshold: float, reset: str, detach_reset: bool, surrogate: str, alpha: float):
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based import surrogate as surrogates

    options = {
        "v_threshold": threshold,
        "v_reset": None if reset == "soft" else 0.0,
        "surrogate_function": getattr(surrogates, surrogate)(alpha=alpha),
        "detach_reset": detach_reset,
        "step_mode": "m",
    }
    if leak == 1:
        return neuron.IFNode(**options)
    return neuron.LIFNode(tau=1 / (1 - leak), decay_input=False, **options)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("leak", [1.0, 0.5, 0.75])
@pytest.mark.parametrize("timesteps", [1, 2, 4, 7, 16])
def test_spikes_are_spikingjelly_s_bit_for_bit(timesteps, leak, reset):
    current = torch.randn(timesteps, 8, 300) * 1.5 + 0.3
    node = spikingjelly_node(leak, 1.0, reset, True, "Sigmoid", 4.0)
    assert torch.equal(sequence(current, leak, 1.0, NeuronRule(reset)), node(current))


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("threshold", [0.4, 1.7])
def test_spikes_are_spikingjelly_s_for_other_thresholds(reset, threshold):
    current = torch.randn(8, 2000) * threshold
    node = spikingjelly_node(0.5, threshold, reset, True, "Sigmoid", 4.0)
    assert torch.equal(sequence(current, 0.5, threshold, NeuronRule(reset)), node(current))


@pytest.mark.parametrize(("reset", "detach_reset"), list(itertools.product(RESETS, (True, False))))
@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize(("surrogate", "name"), [(Sigmoid(4.0), "Sigmoid"), (ATan(2.0), "ATan")])
def test_gradients_are_spikingjelly_s_within_rounding(surrogate, name, leak, reset, detach_reset):
    weights = torch.randn(8, 500)
    gradients = []
    node = spikingjelly_node(leak, 1.0, reset, detach_reset, name, surrogate.alpha)
    rule = NeuronRule(reset, detach_reset=detach_reset, surrogate=surrogate)
    base = torch.randn(8, 500) * 1.5
    for function in (lambda x: sequence(x, leak, 1.0, rule), node):
        current = base.clone().requires_grad_(True)
        (function(current) * weights).sum().backward()
        gradients.append(current.grad)
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=2e-5)


def snntorch_run(current: Tensor, leak: float, threshold: float, reset: str, alpha: float = 2.0) -> Tensor:
    snntorch = pytest.importorskip("snntorch")
    from snntorch import surrogate

    mechanism = {"soft": "subtract", "hard": "zero"}[reset]
    neuron = snntorch.Leaky(leak, threshold, surrogate.atan(alpha), reset_mechanism=mechanism, reset_delay=True)
    memory, spikes = torch.zeros_like(current[0]), []
    for step in current:
        spike, memory = neuron(step, memory)
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize("timesteps", [1, 4, 12])
def test_spikes_are_snntorch_s_bit_for_bit(timesteps, leak, reset):
    # Multiples of 1/64 keep every sum exact, so that neither side rounds and many potentials meet the threshold.
    current = torch.randint(-128, 192, (timesteps, 3000)) / 64
    ours = sequence(current, leak, 1.0, NeuronRule(reset, "leak-then-subtract"))
    assert torch.equal(ours, snntorch_run(current, leak, 1.0, reset))


@pytest.mark.parametrize("reset", RESETS)
def test_spikes_are_snntorch_s_for_random_currents(reset):
    # Theirs is (leak v + x) - theta s, ours (leak v - theta s) + x: in float64 no spike hangs on that rounding.
    current = torch.randn(16, 3000, dtype=torch.float64)
    ours = spike_sequence(current, torch.tensor(0.9), torch.tensor(1.2), 16, NeuronRule(reset, "leak-then-subtract"))[0]
    assert torch.equal(ours, snntorch_run(current, 0.9, 1.2, reset).double())


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("leak", [1.0, 0.5])
def test_gradients_are_snntorch_s_within_rounding(leak, reset):
    weights, base = torch.randn(8, 500), torch.randint(-128, 192, (8, 500)) / 64
    rule = NeuronRule(reset, "leak-then-subtract", detach_reset=True, surrogate=ATan(2.0))
    gradients = []
    for function in (lambda x: sequence(x, leak, 1.0, rule), lambda x: snntorch_run(x, leak, 1.0, reset)):
        current = base.clone().requires_grad_(True)
        (function(current) * weights).sum().backward()
        gradients.append(current.grad)
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=2e-5)
