"""Whole sequences: both gradients against plain autograd, finite differences and the printed recursions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from spikestill.dynamics import (
    ATan,
    Linear,
    NeuronRule,
    Normalisation,
    Rectangular,
    Sigmoid,
    Surrogate,
    Term,
    Triangle,
    batch_moments,
    rate_after,
    rate_forward,
    rate_sequence,
    rate_steps,
    spike_counts,
    spike_sequence,
    time_mean,
)
from spikestill.types import InputError
from tests.reference.plain_neuron import hard_step, simulate
from tests.reference.two_pass import next_sensitivity

RESETS = ("soft", "hard")
ORDERS = ("reset-then-leak", "leak-then-subtract")
SURROGATES = (Sigmoid(4.0), Linear(0.3), ATan(2.0), Triangle(1.0), Rectangular(0.8))
RULES = [NeuronRule(*parts) for parts in itertools.product(RESETS, ORDERS, (True, False), SURROGATES)]
HOW = [NeuronRule(*parts) for parts in itertools.product(RESETS, ORDERS, (True, False))]
SMOOTH = (Sigmoid(4.0), ATan(2.0), Linear(0.3))


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def name(value: object) -> str | None:
    if not isinstance(value, NeuronRule):
        return None
    detached = "detached" if value.detach_reset else "kept"
    return f"{value.reset}-{value.order}-{detached}-{type(value.surrogate).__name__}"


def close(first: Tensor | None, second: Tensor | None, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


def plainly(currents: list[Tensor], leak: Tensor, threshold: Tensor, rule: NeuronRule) -> Tensor:
    fire = hard_step(rule.surrogate.derivative, at_threshold=rule.order == "reset-then-leak")
    options = {"reset": rule.reset, "order": rule.order, "detach_reset": rule.detach_reset}
    return simulate(currents, leak, threshold, fire, **options)[0]


# ------------------------------------------------------------------------------------------- through time


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_gradients_through_time_are_plain_autograd_s(rule):
    base, weights = torch.randn(7, 40, dtype=torch.float64) * 1.5, torch.randn(7, 40, dtype=torch.float64)
    results = []
    for ours in (True, False):
        current, leak, threshold = base.clone().requires_grad_(True), double(0.7), double(1.2)
        if ours:
            spikes = spike_sequence(current, leak, threshold, 7, rule)[0]
        else:
            spikes = plainly(list(current), leak, threshold, rule)
        results.append((spikes, *torch.autograd.grad((spikes * weights).sum(), (current, leak, threshold))))
    assert torch.equal(results[0][0], results[1][0])
    assert 0.02 < results[0][0].mean() < 0.9
    for got, expected in zip(results[0][1:], results[1][1:], strict=True):
        close(got, expected)


@pytest.mark.parametrize("rule", HOW, ids=name)
@pytest.mark.parametrize("timesteps", [1, 4])
def test_a_constant_current_is_the_repeated_one(rule, timesteps):
    base, weights = torch.randn(1, 30, dtype=torch.float64), torch.randn(timesteps, 30, dtype=torch.float64)
    results = []
    for repeats in (1, timesteps):
        current, leak, threshold = base.clone().requires_grad_(True), double(0.7), double(0.8)
        spikes, carry = spike_sequence(current.expand(repeats, -1), leak, threshold, timesteps, rule)
        loss = (spikes * weights).sum() + (carry**2).sum()
        results.append((spikes, carry, *torch.autograd.grad(loss, (current, leak, threshold))))
    for one, other in zip(*results, strict=True):
        close(one, other, 1e-12)


@pytest.mark.parametrize("rule", HOW, ids=name)
def test_two_calls_that_hand_on_the_carry_are_one(rule):
    base, weights = torch.randn(6, 3, 11, dtype=torch.float64), torch.randn(6, 3, 11, dtype=torch.float64)
    results = []
    for parts in ((6,), (2, 4), (5, 1)):
        current, leak, threshold = base.clone().requires_grad_(True), double(0.7), double(0.8)
        spikes, carry = [], None
        for part in current.split(parts):
            some, carry = spike_sequence(part, leak, threshold, len(part), rule, carry)
            spikes.append(some)
        assert carry is not None
        loss = (torch.cat(spikes) * weights).sum() + carry.sum()
        results.append((torch.cat(spikes), carry, *torch.autograd.grad(loss, (current, leak, threshold))))
    for other in results[1:]:
        for expected, got in zip(results[0], other, strict=True):
            close(got, expected, 1e-12)


def test_a_zero_carry_is_the_resting_neuron():
    current = torch.randn(4, 9)
    zero = torch.zeros(9, requires_grad=True)
    spikes, _ = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule(), zero)
    assert torch.equal(spikes, spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())[0])
    spikes.sum().backward()
    assert zero.grad is not None
    assert (zero.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("current_dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_carry_may_be_of_another_dtype_and_repeated_in_memory(current_dtype, dtype):
    current, arguments = torch.randn(4, 300).to(current_dtype), (torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())
    carry = torch.tensor([0.75], dtype=dtype, requires_grad=True)
    spikes, last = spike_sequence(current, *arguments, carry.expand(300))
    expected, expected_last = spike_sequence(current, *arguments, torch.full_like(last, 0.75))
    assert torch.equal(spikes, expected)
    assert torch.equal(last, expected_last)
    last.sum().backward()
    assert carry.grad is not None
    assert carry.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_second_derivative_is_refused_rather_than_wrong(dtype):
    current, leak, threshold = torch.randn(4, 30, dtype=dtype, requires_grad=True), torch.tensor(0.5), torch.tensor(1.0)
    for function in (spike_sequence, rate_sequence):
        result = function(current, leak, threshold, 4, NeuronRule())[function is rate_sequence]
        (first,) = torch.autograd.grad((result**2).sum(), current, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@pytest.mark.parametrize(("by_leak", "by_threshold"), list(itertools.product((True, False), repeat=2)))
def test_gradients_reach_exactly_what_requires_them(by_leak, by_threshold):
    leak, threshold = torch.tensor(0.5, requires_grad=by_leak), torch.tensor(1.0, requires_grad=by_threshold)
    current = torch.randn(4, 9, requires_grad=True)
    spike_sequence(current, leak, threshold, 4, NeuronRule())[0].sum().backward()
    assert current.grad is not None
    assert (leak.grad is not None, threshold.grad is not None) == (by_leak, by_threshold)


# ------------------------------------------------------------------------------------------- through rates


@dataclass(frozen=True)
class SmoothRule(NeuronRule):
    """A neuron that emits its surrogate's smoothed step, of a width that does not follow the threshold."""

    width: float = 1.0

    def fire(self, potential: Tensor, threshold: Tensor) -> Tensor:
        return self.surrogate.smoothed_step(potential - threshold, torch.tensor(self.width, dtype=potential.dtype))


def smooth_rates(
    x: Tensor, leak: float, threshold: float, rule: SmoothRule, steps: int, frozen: Tensor | None
) -> Tensor:
    spikes, _ = simulate(
        [x] * steps,
        torch.tensor(leak, dtype=x.dtype),
        torch.tensor(threshold, dtype=x.dtype),
        rule.fire,
        reset=rule.reset,
        order=rule.order,
        frozen=None if frozen is None else list(frozen),
    )
    return spikes.mean(0)


@pytest.mark.parametrize("timesteps", [1, 2, 3, 4])
@pytest.mark.parametrize("surrogate", SMOOTH, ids=lambda surrogate: type(surrogate).__name__)
@pytest.mark.parametrize("how", HOW, ids=name)
def test_eligibility_is_the_slope_of_the_smooth_neuron_s_rate(how: NeuronRule, surrogate: Surrogate, timesteps: int):
    # With the step replaced by the function whose derivative the surrogate is, the rate has a true derivative. Where
    # the reset is detached, the spikes inside the reset stay what they were at the point of differentiation.
    leak, threshold, step = 0.7, 1.2, 1e-5
    rule = SmoothRule(how.reset, how.order, how.detach_reset, surrogate, threshold)
    x = torch.linspace(-0.5, 2.5, 61, dtype=torch.float64) + 0.0037
    spikes, rate, eligibility = rate_forward(
        x[None], double(leak).detach(), double(threshold).detach(), timesteps, rule, True
    )
    frozen = spikes if how.detach_reset else None
    close(rate, smooth_rates(x, leak, threshold, rule, timesteps, frozen), 1e-12)

    def slope(by_x: float, by_leak: float, by_threshold: float) -> Tensor:
        sides = (
            smooth_rates(x + s * by_x, leak + s * by_leak, threshold + s * by_threshold, rule, timesteps, frozen)
            for s in (step, -step)
        )
        return (next(sides) - next(sides)) / (2 * step)

    close(eligibility.current, slope(1, 0, 0), 2e-6)
    close(eligibility.leak, slope(0, 1, 0), 2e-6)
    close(eligibility.threshold, slope(0, 0, 1), 2e-6)


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_eligibility_is_the_printed_recursion(rule):
    """The recursions of k, formula by formula, on potentials that the plain simulation gives (currents vary here)."""
    lam, theta, timesteps = 0.7, 1.2, 6
    current = torch.randn(timesteps, 60, dtype=torch.float64) * 1.5
    leak, threshold = torch.tensor(lam).double(), torch.tensor(theta).double()
    fire = hard_step(rule.surrogate.derivative, at_threshold=rule.order == "reset-then-leak")
    spikes, potentials = simulate(list(current), leak, threshold, fire, reset=rule.reset, order=rule.order)
    k, total = torch.ones(60, dtype=torch.float64), torch.zeros(60, dtype=torch.float64)
    for v, s in zip(potentials, spikes, strict=True):
        g = rule.surrogate.derivative(v - threshold, threshold)
        total = total + g * k
        k = next_sensitivity(k, rule, leak, threshold, v, s, g)
    ours, rate, eligibility = rate_forward(current, leak, threshold, timesteps, rule)
    assert torch.equal(ours, spikes)
    close(rate, spikes.mean(0), 1e-12)
    close(eligibility.current, total / timesteps)
    assert eligibility.leak is None
    assert eligibility.threshold is None


@pytest.mark.parametrize("rule", RULES, ids=name)
@pytest.mark.parametrize("timesteps", [1, 5])
def test_eligibility_is_backpropagation_through_time_of_the_rate(rule, timesteps):
    # For a current that is constant in time, nothing is dropped: each neuron's E is its gradient through time.
    x = torch.randn(1, 50, dtype=torch.float64).requires_grad_(True)
    leak, threshold = (torch.full((50,), value, dtype=torch.float64, requires_grad=True) for value in (0.7, 0.8))
    rate = plainly([x[0]] * timesteps, leak, threshold, rule).mean(0)
    expected = torch.autograd.grad(rate.sum(), (x, leak, threshold), allow_unused=True, materialize_grads=True)
    scalars = (leak[0].detach(), threshold[0].detach())
    _, counted, eligibility = rate_forward(x.detach(), *scalars, timesteps, rule, True)
    close(counted, rate.detach(), 1e-12)
    close(eligibility.current, expected[0][0])
    close(eligibility.leak, expected[1])
    close(eligibility.threshold, expected[2])


@pytest.mark.parametrize("from_rest", [True, False], ids=["from rest", "from elsewhere"])
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", HOW, ids=name)
def test_the_rate_in_parts_is_the_rate_bit_for_bit(rule, dtype, layout, from_rest):
    current = layouts()[layout].to(dtype).requires_grad_()
    carry = None if from_rest else torch.rand(current.shape[1:], dtype=torch.promote_types(dtype, torch.float32))
    results = []
    for parts in ((4,), (1, 2, 1)):
        leak, threshold = torch.tensor(0.7, requires_grad=True), torch.tensor(0.8, requires_grad=True)
        term = Term(current.detach(), rate=current.mean(0))
        if len(parts) == 1:
            spikes, rate = rate_sequence([term], leak, threshold, 4, rule, carry)
        else:
            emitted, state = [], None
            for part in current.split(parts):
                some, state = rate_steps(part, leak, threshold, len(part), rule, state, carry, True)
                emitted.append(some)
            spikes, rate = torch.cat(emitted), rate_after(state, 4, [term], leak, threshold)
        results.append((spikes, rate, *torch.autograd.grad(rate.sum(), (current, leak, threshold))))
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("how", HOW, ids=name)
def test_e_does_not_depend_on_where_neurons_start_but_through_their_potentials(how):
    """Written out: what the first step starts from is one more input, before it."""
    current, carry, leak = torch.randn(4, 9, dtype=torch.float64), torch.rand(9, dtype=torch.float64), double(0.7)
    shifted = current + torch.cat([carry[None], torch.zeros(3, 9)])
    arguments = (leak.detach(), torch.tensor(0.8, dtype=torch.float64), 4, how, True)
    for got, expected in zip(rate_forward(current, *arguments, carry), rate_forward(shifted, *arguments), strict=True):
        if isinstance(got, Tensor):
            assert torch.equal(got, expected)
        else:
            close(got.current, expected.current)
            close(got.leak, expected.leak)
            close(got.threshold, expected.threshold)


def test_rates_leave_autograd_alone_and_share_the_spikes_with_time():
    current = torch.randn(4, 2, 3, 5, 5, requires_grad=True)
    arguments = (torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())
    spikes, rate, eligibility = rate_forward(current, *arguments)
    assert not any(tensor.requires_grad for tensor in (spikes, rate, eligibility.current))
    assert torch.equal(spikes, spike_sequence(current, *arguments)[0])
    assert torch.equal(rate, spikes.mean(0))
    assert rate.shape == eligibility.current.shape == current.shape[1:]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_time_mean_is_the_mean_in_the_sequence_s_dtype(dtype):
    sequence = torch.randn(5, 3, 4).to(dtype)
    mean = time_mean(sequence)
    assert mean.dtype == dtype
    torch.testing.assert_close(mean, sequence.double().mean(0).to(dtype))


def test_time_mean_accumulates_in_float32():
    # In bfloat16, 256 + 1 is 256: a sum of 1000 ones that is kept in it never passes 256.
    ones = torch.ones(1000, 2, dtype=torch.bfloat16)
    assert torch.equal(time_mean(ones), torch.ones(2, dtype=torch.bfloat16))
    large = torch.full((3, 2), 6e4, dtype=torch.float16)  # the sum of two is beyond float16
    assert torch.equal(time_mean(large), large[0])


# --------------------------------------------------------------------------------------- layouts and dtypes


def layouts() -> dict[str, Tensor]:
    base = torch.randn(4, 2, 6, 5, 3)
    return {
        "contiguous": base,
        "channels_last": base.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2)),
        "time innermost": base.permute(1, 2, 3, 4, 0).contiguous().permute(4, 0, 1, 2, 3),
        "every second": torch.randn(4, 2, 12, 5, 3)[:, :, ::2],
        "flipped axes": base.transpose(2, 4),
        "expanded": torch.randn(4, 2, 1, 5, 3).expand(4, 2, 6, 5, 3),
        "batch of 1": base[:, :1],
        "vectors": base[:, :, 0, 0],
        "empty": base[:, :0],
    }


@pytest.mark.parametrize("layout", list(layouts()))
def test_no_layout_changes_a_result(layout):
    base = layouts()[layout]
    results = []
    for tensor in (base, base.contiguous()):
        current = tensor.detach().requires_grad_(True)
        spikes, carry = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())
        weights = torch.arange(spikes.numel()).reshape(spikes.shape) / max(spikes.numel(), 1)
        (by,) = torch.autograd.grad((spikes * weights).sum() + carry.sum(), current)
        _, rate, eligibility = rate_forward(current, torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())
        results.append((spikes, carry, rate, by, eligibility.current))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
    assert all(torch.equal(one, other) for one, other in zip(results[0][:3], results[1][:3], strict=True))
    # The library's sigmoid rounds differently at the end of a row, and the rows are others.
    for one, other in zip(results[0][3:], results[1][3:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_spikes_come_in_the_memory_format_of_the_current():
    current = layouts()["channels_last"]
    spikes, carry = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 4, NeuronRule())
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert carry.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", HOW, ids=name)
def test_half_precision_currents_give_the_spikes_of_float32(rule, dtype):
    current = torch.randn(8, 4, 100).to(dtype).requires_grad_(True)
    single = current.detach().float().requires_grad_(True)
    leak, threshold = torch.tensor(0.7), torch.tensor(0.9)
    spikes, carry = spike_sequence(current, leak, threshold, 8, rule)
    expected, expected_carry = spike_sequence(single, leak, threshold, 8, rule)
    assert spikes.dtype == dtype
    assert carry.dtype == torch.float32
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(spikes.float(), expected)
    assert torch.equal(carry, expected_carry)
    spikes.sum().backward()
    expected.sum().backward()
    assert current.grad is not None
    assert single.grad is not None
    torch.testing.assert_close(current.grad, single.grad.to(dtype))
    counted, rate, eligibility = rate_forward(current, leak, threshold, 8, rule)
    assert torch.equal(counted, spikes)
    assert rate.dtype == dtype
    assert eligibility.current.dtype == torch.float32


@pytest.mark.parametrize("first", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float64, torch.float32, torch.bfloat16])
def test_normalised_terms_of_two_dtypes_have_the_gradients_of_the_wider_one(first, second):
    made = [torch.randn(5, 3, 4, 7).bfloat16() for _ in range(2)]  # the same values in every dtype
    weights = torch.randn(3, 4, 7).bfloat16().double()
    results = []
    for dtypes in ((first, second), (torch.float64, torch.float64)):
        terms, leaves = [], []
        for values, dtype in zip(made, dtypes, strict=True):
            sequence, rate = values.to(dtype), values.double().mean(0).to(dtype).requires_grad_()
            mean, variance, _ = batch_moments(sequence)
            weight = torch.full((4,), 0.75, dtype=mean.dtype, requires_grad=True)
            terms.append(Term(sequence, Normalisation(mean, variance.rsqrt(), weight, None, True), rate))
            leaves += [rate, weight]
        _, rate = rate_sequence(terms, torch.tensor(0.5), torch.tensor(1.0), 5, NeuronRule())
        gradients = torch.autograd.grad((rate * weights).sum(), leaves)
        assert [gradient.dtype for gradient in gradients] == [leaf.dtype for leaf in leaves]
        results.append((rate, *gradients))
    assert results[0][0].dtype == torch.promote_types(first, second)
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=2e-2, atol=2e-2 * expected.detach().abs().max().item())


@pytest.mark.parametrize("through", ["time", "rates"])
def test_running_statistics_in_half_precision_are_read_as_what_they_are(through):
    made = torch.randn(5, 3, 4, 7).bfloat16()
    numbers, weights = [(torch.rand(4) + 0.5).bfloat16() for _ in range(4)], torch.randn(5, 3, 4, 7).bfloat16()
    results = []
    for dtype in (torch.bfloat16, torch.float64):
        mean, inverse, weight, bias = (number.to(dtype) for number in numbers)
        leaves = [made.to(dtype).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
        term = Term(leaves[0], Normalisation(mean, inverse, weight, bias, False), leaves[0].mean(0))
        arguments = ([term], torch.tensor(0.5), torch.tensor(1.0), 5, NeuronRule())
        if through == "time":
            loss = (spike_sequence(*arguments)[0] * weights).sum()
        else:
            loss = (rate_sequence(*arguments)[1] * weights[0]).sum()
        results.append(torch.autograd.grad(loss, leaves))
    for got, expected in zip(*results, strict=True):
        assert torch.cosine_similarity(got.double().flatten(), expected.flatten(), dim=0) > 0.98


# ----------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("rule", HOW, ids=name)
def test_a_silent_and_a_saturated_layer(rule):
    leak, threshold = torch.tensor(0.5), torch.tensor(1.0)
    for level, expected in ((-5.0, 0), (0.0, 0), (50.0, 1)):
        spikes, rate, eligibility = rate_forward(torch.full((1, 7), level), leak, threshold, 8, rule)
        assert spikes.shape == (8, 7)
        assert (spikes == expected).all()
        assert (rate == expected).all()
        assert eligibility.current.isfinite().all()


@pytest.mark.parametrize("rule", HOW, ids=name)
def test_nan_shows_in_its_own_neuron_from_its_step_on(rule):
    current = torch.full((4, 3), 2.0)
    current[1, 1] = float("nan")
    spikes, carry = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 4, rule)
    assert spikes[0, 1] == 1
    assert spikes[1:, 1].isnan().all()
    assert (spikes[:, ::2] == 1).all()
    assert carry.isnan().tolist() == [False, True, False]
    _, rate, eligibility = rate_forward(current, torch.tensor(0.5), torch.tensor(1.0), 4, rule)
    assert rate.isnan().tolist() == eligibility.current.isnan().tolist() == [False, True, False]
    current.requires_grad_(True)
    spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 4, rule)[0].sum().backward()
    assert current.grad is not None
    assert current.grad[:, 1].isnan().any()
    assert current.grad[:, ::2].isfinite().all()


@pytest.mark.parametrize("rule", HOW, ids=name)
def test_an_infinite_current_fires_and_shows_in_the_carry(rule):
    current = torch.zeros(3, 2)
    current[0] = torch.tensor([float("inf"), float("-inf")])
    spikes, carry = spike_sequence(current, torch.tensor(0.5), torch.tensor(1.0), 3, rule)
    # Subtracting leaves infinity; a reset to 0 multiplies it by 0, which is not a number.
    assert spikes[0].tolist() == [1, 0]
    if rule.reset == "soft":
        assert spikes[:, 0].tolist() == [1, 1, 1]
    else:
        assert spikes[1:, 0].isnan().all()
    assert spikes[:, 1].tolist() == [0, 0, 0]
    assert not carry.isfinite().any()


@pytest.mark.parametrize(("steps", "timesteps"), [(3, 2), (2, 3), (0, 2), (1, 0)])
def test_a_current_of_another_number_of_steps_is_refused(steps, timesteps):
    current, arguments = torch.randn(steps, 5), (torch.tensor(0.5), torch.tensor(1.0), timesteps, NeuronRule())
    for function in (spike_sequence, rate_forward):
        with pytest.raises(InputError, match=f"the current has {steps} time steps, the neurons run {timesteps}"):
            function(current, *arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_spikes_of_every_neuron_are_counted_exactly(dtype):
    spikes = (torch.rand(700, 4, 5, 7) > 0.2).to(dtype)
    counted = spikes.double().sum(0)
    for laid in (spikes, spikes.to(memory_format=torch.channels_last)):
        assert spike_counts(laid).dtype == torch.float64
        assert torch.equal(spike_counts(laid), counted)
    assert torch.equal(spike_counts(spikes[:0]), torch.zeros(4, 5, 7, dtype=torch.float64))
    assert spike_counts(spikes[:, :0]).shape == (0, 5, 7)
