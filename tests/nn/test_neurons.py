"""The neurons as modules: what they hold, keep in range, refuse, and hand to the pure functions."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn

from spikestill.dynamics import ATan, NeuronRule, Term, rate_forward, spike_sequence
from spikestill.nn import IF, LIF
from spikestill.types import InputError

LEARN = [(), ("leak",), ("threshold",), ("leak", "threshold")]
LEAK, THRESHOLD = "parametrizations.leak.original", "parametrizations.threshold.original"


@pytest.mark.parametrize("learn", LEARN)
def test_values_are_the_given_ones_whether_learnable_or_not(learn):
    for leak in (1e-3, 0.3, 0.5, 0.99):
        for threshold in (1e-4, 0.2, 1.0, 17.0, 500.0):
            neuron = LIF(leak, threshold, learn=learn)
            assert neuron.leak.item() == pytest.approx(leak, rel=1e-5)
            assert neuron.threshold.item() == pytest.approx(threshold, rel=1e-5)


@pytest.mark.parametrize("learn", LEARN)
def test_state_dict_holds_leak_and_threshold_and_makes_the_round_trip(learn):
    first, second = LIF(0.3, 2.5, learn=learn), LIF(0.6, 1.0, learn=learn)
    keys = {LEAK if "leak" in learn else "leak", THRESHOLD if "threshold" in learn else "threshold"}
    assert set(first.state_dict()) == keys
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(second.leak, first.leak)
    assert torch.equal(second.threshold, first.threshold)
    assert {name for name, _ in first.named_parameters()} == {key for key in keys if "original" in key}


@pytest.mark.parametrize("learn", LEARN)
def test_a_deep_copy_shares_nothing(learn):
    first = LIF(0.3, 2.0, surrogate=ATan(), learn=learn)
    second = copy.deepcopy(first)
    second.set_threshold(5.0)
    assert first.threshold.item() == pytest.approx(2.0)
    assert second.threshold.item() == pytest.approx(5.0)
    assert isinstance(second, LIF)
    assert (second.rule, second.learn) == (first.rule, first.learn)
    current = torch.randn(4, 20)
    second.set_threshold(2.0)
    assert torch.equal(first(current), second(current))


@pytest.mark.parametrize("step", [1e3, -1e3, 1e30, -1e30])
def test_learnable_values_stay_in_their_ranges_after_the_largest_steps(step):
    neuron = LIF(0.5, 1.0, learn=("leak", "threshold"))
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.add_(step)
    assert 0 < neuron.leak.item() <= 1
    assert 0 < neuron.threshold.item() < math.inf
    assert neuron(torch.randn(3, 5)).isfinite().all()


def test_training_moves_leak_and_threshold_and_nothing_leaves_its_range():
    neuron = LIF(0.5, 1.0, learn=("leak", "threshold"))
    optimizer = torch.optim.SGD(neuron.parameters(), lr=1.0)
    for _ in range(20):
        current = torch.randn(4, 200)
        optimizer.zero_grad()
        (neuron(current).mean() - 0.9).square().backward()
        assert all(parameter.grad is not None and parameter.grad.abs() > 0 for parameter in neuron.parameters())
        optimizer.step()
    assert 0 < neuron.leak.item() < 1
    assert 0 < neuron.threshold.item() < 1  # more spikes were asked for


def test_gradients_of_the_parameters_are_those_of_the_values_through_the_parametrisation():
    neuron = LIF(0.3, 1.4, learn=("leak", "threshold")).double()
    current, weights = torch.randn(5, 60, dtype=torch.float64), torch.randn(5, 60, dtype=torch.float64)
    (neuron(current) * weights).sum().backward()
    leak, threshold = (value.detach().requires_grad_(True) for value in (neuron.leak, neuron.threshold))
    spikes, _ = spike_sequence(current, leak, threshold, 5, neuron.rule)
    by_leak, by_threshold = torch.autograd.grad((spikes * weights).sum(), (leak, threshold))
    raw = dict(neuron.named_parameters())
    # d sigmoid(r) / dr = leak (1 - leak); d softplus(r) / dr = 1 - exp(-threshold)
    torch.testing.assert_close(raw[LEAK].grad, (by_leak * leak * (1 - leak)).detach())
    torch.testing.assert_close(raw[THRESHOLD].grad, (by_threshold * (1 - torch.exp(-threshold))).detach())


@pytest.mark.parametrize("learn", LEARN)
def test_set_threshold(learn):
    neuron = LIF(0.5, 1.0, learn=learn)
    before = dict(neuron.named_parameters())
    for value in (3.5, torch.tensor(0.25), torch.tensor(2.0, dtype=torch.float64)):
        neuron.set_threshold(value)
        assert neuron.threshold.item() == pytest.approx(float(value))
        assert neuron.threshold.dtype == torch.float32
    after = dict(neuron.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[key] is after[key] for key in before)  # an optimizer holds on to them
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="threshold must be positive and finite"):
            neuron.set_threshold(value)
    assert neuron.threshold.item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leak": 0.0}, r"leak must lie in \(0, 1\], not 0.0"),
        ({"leak": 1.5}, r"leak must lie in \(0, 1\], not 1.5"),
        ({"leak": math.nan}, r"leak must lie in \(0, 1\], not nan"),
        ({"leak": 1e-60}, r"leak must lie in \(0, 1\], not 0.0"),
        ({"threshold": 0}, "threshold must be positive and finite, not 0"),
        ({"threshold": -2.0}, "threshold must be positive and finite, not -2"),
        ({"threshold": math.inf}, "threshold must be positive and finite, not inf"),
        ({"threshold": math.nan}, "threshold must be positive and finite, not nan"),
        ({"threshold": 1e-60}, "threshold must be positive and finite, not 0.0"),
        ({"reset": "none"}, "reset must be 'soft' or 'hard', not 'none'"),
        ({"order": "none"}, "order must be 'reset-then-leak' or 'leak-then-subtract', not 'none'"),
        ({"learn": ("leek",)}, "unknown learnable neuron parameter 'leek': did you mean 'leak'?"),
        ({"leak": 1.0, "learn": ("leak",)}, "a learnable leak must start below 1"),
        ({"leak": 1 - 1e-9, "learn": ("leak",)}, "a learnable leak must start below 1"),
    ],
)
def test_wrong_values_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        LIF(**options)
    assert "\n" not in str(caught.value)


def test_an_if_neuron_is_a_lif_neuron_with_leak_1():
    current = torch.randn(6, 4, 30)
    for options in ({}, {"threshold": 0.4, "reset": "hard"}, {"order": "leak-then-subtract", "detach_reset": False}):
        one, other = IF(**options), LIF(leak=1.0, **options)
        assert one.rule == other.rule
        assert torch.equal(one(current), other(current))
        assert one.state_dict().keys() == other.state_dict().keys()
    assert isinstance(IF(), LIF)
    with pytest.raises(InputError, match="an IF neuron has no leak to learn: use LIF with leak=0.99"):
        IF(learn=("leak",))
    assert len(list(IF(learn=("threshold",)).parameters())) == 1


def test_forward_run_and_rate_are_the_pure_functions():
    neuron = LIF(0.7, 0.9, "hard", learn=("threshold",))
    leak, threshold = neuron.leak.detach(), neuron.threshold.detach()
    current = torch.randn(5, 2, 3, 4, 4)
    spikes, carry = spike_sequence(current, leak, threshold, 5, NeuronRule("hard"))
    assert torch.equal(neuron(current), spikes)
    assert torch.equal(neuron.run(current)[1], carry)
    counted, rate = neuron.rate(current)
    assert torch.equal(counted, spikes)
    assert torch.equal(rate, rate_forward(current, leak, threshold, 5, NeuronRule("hard"))[1])
    assert rate.requires_grad  # its threshold is learnable
    assert not counted.requires_grad


def test_a_constant_current_runs_for_the_steps_asked_for():
    neuron, current = LIF(), torch.randn(1, 2, 9)
    assert neuron(current).shape == (1, 2, 9)
    assert torch.equal(neuron(current, 4), neuron(current.expand(4, 2, 9)))
    assert neuron.rate(current, 4)[0].shape == (4, 2, 9)
    with pytest.raises(InputError, match="the current has 3 time steps, the neurons run 4"):
        neuron(torch.randn(3, 2, 9), 4)


def test_two_calls_share_nothing_and_a_carry_continues():
    neuron, current = LIF(0.9), torch.randn(6, 50)
    whole = neuron(current)
    assert torch.equal(neuron(current), whole)  # nothing to reset
    first, carry = neuron.run(current[:2])
    assert torch.equal(torch.cat([first, neuron(current[2:], carry=carry)]), whole)
    whole_loss = neuron(current.requires_grad_(True)).sum()
    whole_loss.backward()
    neuron(current).sum().backward()  # no second way through the first graph


def test_repr_names_what_matters():
    assert repr(LIF()) == "LIF(leak=0.5, threshold=1, reset='soft', order='reset-then-leak')"
    text = repr(LIF(0.25, 2, "hard", learn=("threshold", "leak")))
    assert "leak=0.25, threshold=2, reset='hard', order='reset-then-leak', learn=('leak', 'threshold')" in text
    assert "threshold=3" in repr(nn.Sequential(IF(3.0)))


def test_it_moves_between_dtypes_as_any_module():
    neuron = LIF(0.5, 1.0, learn=("leak",)).to(torch.bfloat16)
    current = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    spikes = neuron(current)
    assert spikes.dtype == torch.bfloat16
    spikes.sum().backward()
    (parameter,) = neuron.parameters()
    assert parameter.grad is not None
    assert parameter.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("initial", [None, 0.3])
def test_the_rate_in_parts_is_the_rate(initial):
    neuron, current = LIF(0.7, 0.9, "hard", learn=("leak", "threshold")), torch.randn(6, 2, 3, 4, 4)
    neuron.set_initial(initial)
    spikes, state = neuron.rate_steps(current[:4])
    more, state = neuron.rate_steps(current[4:], state=state)
    whole, rate = neuron.rate(current)
    assert torch.equal(torch.cat([spikes, more]), whole)
    assert torch.equal(whole, neuron(current))
    mean = current.mean(0)
    in_parts = neuron.rate_after(state, 6, [Term(mean[None], rate=mean)])
    assert torch.equal(in_parts, rate)
    leaves = list(neuron.parameters())
    for got, expected in zip(*(torch.autograd.grad(one.sum(), leaves) for one in (in_parts, rate)), strict=True):
        assert torch.equal(got, expected)
        assert got != 0


def test_an_initial_potential_is_the_carry_into_the_first_step():
    neuron, current = LIF(0.9, 1.0), torch.rand(5, 2, 3, 4, 4)
    assert neuron.initial is None
    for initial in (0.3, torch.rand(3, 1, 1), torch.rand(3, 4, 4)):
        neuron.set_initial(None)
        carry = torch.as_tensor(initial).expand(2, 3, 4, 4)
        expected = neuron.run(current, carry=carry)
        neuron.set_initial(initial)
        spikes, last = neuron.run(current)
        assert torch.equal(spikes, expected[0])
        assert torch.equal(last, expected[1])
        assert torch.equal(neuron.rate(current)[0], spikes)
        assert torch.equal(neuron.run(current, carry=torch.zeros_like(carry))[0], LIF(0.9, 1.0)(current))
    assert torch.equal(IF(5.0)(torch.ones(1, 1, 2), 5)[:, 0, 0], torch.tensor([0.0, 0, 0, 0, 1]))
    started = IF(5.0)
    started.set_initial(2.5)
    assert torch.equal(started(torch.ones(1, 1, 2), 5)[:, 0, 0], torch.tensor([0.0, 0, 1, 0, 0]))


@pytest.mark.parametrize("learn", LEARN)
def test_an_initial_potential_is_in_the_state_dict_only_where_there_is_one(learn):
    first, second = LIF(0.5, 1.0, learn=learn), LIF(0.5, 1.0, learn=learn)
    at_rest = copy.deepcopy(first.state_dict())
    first.set_initial(torch.rand(3, 1, 1))
    assert set(first.state_dict()) - set(at_rest) == {"initial"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.initial, first.initial)
    assert torch.equal(copy.deepcopy(second).initial, first.initial)
    assert second.to(torch.bfloat16).initial.dtype == torch.bfloat16
    nn.ModuleList([second]).load_state_dict({}, strict=False)  # says nothing of this layer
    assert second.initial is not None
    second.load_state_dict(at_rest)  # as runs have it that were written before there was one
    assert second.initial is None


def test_wrong_initial_potentials_are_refused():
    neuron = LIF()
    with pytest.raises(InputError, match="the initial membrane potential must be finite"):
        neuron.set_initial(math.nan)
    neuron.set_initial(torch.zeros(3, 1, 1))
    with pytest.raises(InputError, match=r"initial membrane potential \[3, 1, 1\] does not fit neurons \[4, 2, 2\]"):
        neuron(torch.rand(2, 1, 4, 2, 2))
    for run in (neuron.rate, neuron.rate_steps):
        with pytest.raises(InputError, match="does not fit neurons"):
            run(torch.rand(2, 1, 4, 2, 2))
