from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from spikestill.graph import SpikingNetwork, record, trace
from spikestill.graph.sequence import Signal
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, Direct, Encoder, Events, Poisson
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, SHAPE, gradients, network, spiking


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_mean_of_the_unrolled_ones(name: str) -> None:
    snn = spiking(name).eval()
    images = torch.randn(3, *SHAPE)
    steps = snn.unroll(images)
    assert steps.shape == (4, 3, 5)
    torch.testing.assert_close(snn(images), steps.mean(0), rtol=0, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_stepping_is_unrolling(name: str) -> None:
    snn = spiking(name).eval().double()
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    state, steps = None, []
    for _ in range(4):
        logits, state = snn.step(images, state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps), snn.unroll(images), rtol=1e-12, atol=1e-12)
    assert state is not None
    assert set(state) == {layer for layer, _ in snn.neurons()}


def test_stepping_does_not_change_the_state_it_is_given() -> None:
    snn = spiking("plain").eval()
    frame = torch.randn(1, *SHAPE)
    _, state = snn.step(frame)
    kept = {name: carry.clone() for name, carry in state.items()}
    first, _ = snn.step(frame, state)
    second, _ = snn.step(frame, state)
    assert torch.equal(first, second)
    assert all(torch.equal(state[name], kept[name]) for name in kept)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("training", [True, False])
def test_no_state_is_carried_from_call_to_call(gradient: str, training: bool) -> None:
    snn = spiking("residual", gradient=gradient).train(training)
    images = torch.randn(3, *SHAPE)
    first = snn(images)
    snn(10 * torch.randn(5, *SHAPE))
    assert torch.equal(snn(images), first)
    for _ in range(2):  # no graph of an earlier call is needed for the next one's
        snn(images).sum().backward()


def test_more_and_fewer_steps_begin_alike() -> None:
    snn = spiking("residual", timesteps=4).eval().double()
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    whole = snn.unroll(images)
    for steps in (1, 2, 6):
        torch.testing.assert_close(snn.unroll(images, steps)[:4], whole[:steps], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("encoder", [Direct(), Events()], ids=["direct", "events"])
def test_many_steps_without_autograd_are_run_some_at_a_time(encoder: Encoder) -> None:
    snn = spiking("residual", encoder=encoder, timesteps=37).eval()
    images = torch.randn(*([37] if isinstance(encoder, Events) else []), 3, *SHAPE)
    seen: dict[str, list[Tensor]] = {}

    def observe(name: str, spikes: Tensor) -> None:
        seen.setdefault(name, []).append(spikes)

    whole = snn.unroll(images, observe=observe)
    together = {name: torch.cat(parts) for name, parts in seen.items()}
    assert {len(parts) for parts in seen.values()} == {1}
    seen.clear()
    with torch.no_grad():
        torch.testing.assert_close(snn.unroll(images, observe=observe), whole)
        torch.testing.assert_close(snn(images), whole.mean(0))
    assert {len(parts) for parts in seen.values()} == {5}  # 8 + 8 + 8 + 8 + 5 steps
    for name, parts in seen.items():
        assert torch.equal(torch.cat(parts), together[name])


class Rising(Encoder):
    """Each step's input depends on how many steps there are."""

    def forward(self, batch: Tensor, timesteps: int) -> Tensor:
        return torch.stack([batch * (t + 1) / timesteps for t in range(timesteps)])


@pytest.mark.parametrize("what", ["encoder", "dropout", "statistics"])
def test_what_looks_at_all_steps_together_is_given_all_of_them(what: str) -> None:
    name = "dropout" if what == "dropout" else "normalised"
    snn = spiking(name, encoder=Rising() if what == "encoder" else Direct(), timesteps=37).eval()
    for module in snn.modules():
        if what == "dropout" and isinstance(module, nn.Dropout):
            module.train()
        if what == "statistics" and isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    images, results = torch.randn(3, *SHAPE), []
    for enabled in (True, False):
        torch.manual_seed(0)
        with torch.set_grad_enabled(enabled):
            results.append(snn.unroll(images).detach())
    torch.testing.assert_close(results[1], results[0])


def test_dropout_has_one_mask_for_all_steps() -> None:
    snn = spiking("dropout", gradient="bptt")
    images = torch.randn(3, *SHAPE)
    taken = snn.record(images, taps=("2", "3")).spikes
    dropped = (taken["2"] == 1) & (taken["3"] == 0)
    kept = (taken["2"] == 1) & (taken["3"] > 0)
    assert dropped.any()
    assert kept.any()
    assert not (dropped.any(0) & kept.any(0)).any(), "a neuron is dropped at every step or at none"
    torch.testing.assert_close(taken["3"].unique(), torch.tensor([0, 1 / 0.6]))
    assert set(snn.eval().record(images, taps=("3",)).spikes["3"].unique().tolist()) == {0.0, 1.0}


def test_observe_sees_every_neuron_layer() -> None:
    snn = spiking("dense").eval()
    seen: dict[str, Tensor] = {}
    snn.unroll(torch.randn(2, *SHAPE), observe=lambda name, spikes: seen.update({name: spikes}))
    assert list(seen) == [name for name, _ in snn.neurons()]
    for spikes in seen.values():
        assert spikes.shape[:2] == (4, 2)
        assert not spikes.requires_grad
        assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("timesteps", [4, 40])
def test_watch_sees_every_value_that_is_computed(timesteps: int) -> None:
    """All but what the neurons take over: BatchNorm and sums of two."""
    snn = spiking("residual", timesteps=timesteps).eval()
    values: dict[str, list[Tensor]] = {}
    spikes: list[Tensor] = []

    def watch(node: fx.Node, signal: Signal) -> None:
        values.setdefault(node.name, []).append(signal.value.clone())

    with torch.no_grad():
        steps = snn.unroll(torch.randn(2, *SHAPE), watch=watch, observe=lambda _, fired: spikes.append(fired.clone()))
    seen = [node.name for node in snn.body.graph.nodes if node.name in values]
    assert seen == list(values)
    assert {node.name for node in snn.body.graph.nodes if isinstance(module_of(snn.body, node), LIF)} < set(seen)
    assert not any("bn" in name or "add" in name for name in seen)
    neurons = [node.name for node in snn.body.graph.nodes if isinstance(module_of(snn.body, node), LIF)]
    last = torch.cat([part.unflatten(0, (-1, 2)) for part in values[neurons[-1]]])
    assert torch.equal(last, torch.cat(spikes[len(neurons) - 1 :: len(neurons)]))
    assert torch.equal(torch.cat([part.unflatten(0, (-1, 2)) for part in values["output"]]), steps)


def test_poisson_input_is_drawn_anew_at_each_step_and_seeded() -> None:
    images = torch.rand(2, *SHAPE)
    first, second = (spiking("plain", encoder=Poisson(seed=3)).eval() for _ in range(2))
    second.load_state_dict(first.state_dict())
    steps = first.unroll(images)
    assert torch.equal(steps, second.unroll(images))
    assert not torch.equal(steps[0], steps[1])
    assert not torch.equal(first.unroll(images), steps)


def test_events_go_in_as_they_are() -> None:
    snn = spiking("plain", encoder=Events(), timesteps=3).eval()
    events = torch.randn(3, 2, *SHAPE)
    steps = snn.unroll(events)
    assert steps.shape == (3, 2, 5)
    state, by_step = None, []
    for frame in events:
        logits, state = snn.step(frame, state)
        by_step.append(logits)
    torch.testing.assert_close(torch.stack(by_step), steps)
    with pytest.raises(InputError, match="4 frames, the network runs 3"):
        snn(torch.randn(4, 2, *SHAPE))


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_deep_copy_is_independent_and_equal(gradient: str) -> None:
    snn = spiking("residual", gradient=gradient)
    images = torch.randn(3, *SHAPE)
    snn(images)
    twin = copy.deepcopy(snn)
    assert torch.equal(twin(images), snn(images))
    twin(images).sum().backward()
    assert gradients(twin)
    assert not gradients(snn)
    with torch.no_grad():
        twin.body.get_submodule("0").weight.zero_()
    assert not torch.equal(twin(images), snn(images))


def test_a_copy_of_a_network_with_a_seeded_encoder() -> None:
    snn = spiking("plain", encoder=Poisson(seed=1)).eval()
    images = torch.rand(2, *SHAPE)
    snn(images)
    twin = copy.deepcopy(snn)
    assert torch.equal(snn(images), twin(images))


def test_state_dict_round_trip() -> None:
    neuron = LIF(0.6, 0.3, learn=("leak", "threshold"))
    first, second = spiking("residual", neuron).eval(), spiking("residual", LIF(learn=("leak", "threshold"))).eval()
    images = torch.randn(3, *SHAPE)
    assert not torch.equal(first(images), second(images))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images), second(images))


def test_thresholds_and_leaks_are_in_the_state_dict() -> None:
    first, second = spiking("plain", LIF(0.5, 0.3)), spiking("plain", LIF(0.9, 0.8))
    second.load_state_dict(first.state_dict())
    for _, neuron in second.neurons():
        assert (float(neuron.leak), float(neuron.threshold)) == pytest.approx((0.5, 0.3))


def test_switching_between_training_and_evaluation() -> None:
    snn = spiking("residual")
    images = torch.randn(3, *SHAPE)
    assert snn.record(images).steps is None
    snn.eval()
    record_of_evaluation = snn.record(images)
    assert record_of_evaluation.steps is not None
    before = {name: buffer.clone() for name, buffer in snn.named_buffers()}
    snn(images)
    assert all(torch.equal(before[name], buffer) for name, buffer in snn.named_buffers())
    with torch.no_grad():
        assert snn.train().record(images).steps is not None
    assert snn.record(images).steps is None


def test_records_of_a_spiking_network_through_time() -> None:
    snn = spiking("residual", gradient="bptt")
    images = torch.randn(3, *SHAPE)
    result = snn.record(images, taps=("2", "3"))
    assert result.steps is not None
    assert torch.equal(result.steps.mean(0), result.logits)
    assert result.spikes["3"].shape == (4, 3, 6, 8, 8)
    assert torch.equal(result.spikes["3"].mean(0), result.features["3"])
    result.features["3"].sum().backward()
    assert float(gradients(snn)["body.0.weight"].abs().sum()) > 0


@pytest.mark.parametrize("mode", ["rate", "bptt"])
def test_a_tap_that_is_no_point_is_refused_with_the_nearest_name(mode: str) -> None:
    with pytest.raises(InputError, match="unknown point '3.conv3': did you mean '3.conv"):
        spiking("residual", gradient=mode).record(torch.randn(2, *SHAPE), taps=("3.conv3",))


def test_the_record_of_an_ann() -> None:
    ann = network("residual").eval()
    images = torch.randn(3, *SHAPE)
    features: list[Tensor] = []
    ann[3].register_forward_hook(lambda *call: features.append(call[2].clone()))  # type: ignore[index]
    expected = ann(images)
    result = record(trace(ann, SHAPE), images, taps=("3",))
    assert torch.equal(result.logits, expected)
    assert torch.equal(result.features["3"], features[0])
    assert result.steps is None


@pytest.mark.parametrize("timesteps", [0, -1])
def test_numbers_of_steps_below_one_are_refused(timesteps: int) -> None:
    with pytest.raises(InputError, match=f"must be at least 1, not {timesteps}"):
        spiking("plain", timesteps=timesteps)
    with pytest.raises(InputError, match=f"must be at least 1, not {timesteps}"):
        spiking("plain").unroll(torch.randn(1, *SHAPE), timesteps)


def test_an_unknown_gradient_is_refused() -> None:
    body = spiking("plain").body
    with pytest.raises(InputError, match="gradient must be 'rate' or 'bptt', not 'surrogate'"):
        SpikingNetwork(body, timesteps=2, encoder=Direct(), gradient="surrogate")  # type: ignore[arg-type]


def test_in_evaluation_mode_gradients_go_through_time() -> None:
    snn = spiking("plain").eval()
    snn(torch.randn(2, *SHAPE)).sum().backward()
    assert float(gradients(snn)["body.0.weight"].abs().sum()) > 0


def test_the_printed_network_says_how_it_runs() -> None:
    assert "timesteps=4, gradient='rate'" in repr(spiking("plain"))


def test_a_user_may_train_it_like_any_module() -> None:
    snn = spiking("linear", LIF(threshold=0.3))
    images, labels = torch.randn(40, *SHAPE), torch.arange(40) % 5
    optimiser = torch.optim.Adam(snn.parameters(), 0.02)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(snn(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
