from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from spikestill import models
from spikestill.dynamics import ATan, Linear, Rectangular, Sigmoid, Triangle
from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.graph.rate_gradients import RateBatchNorm
from spikestill.nn import IF, LIF, Events, Poisson
from tests.graph.judging import assert_equals_reference, images_of
from tests.graph.networks import NETWORKS, SHAPE, gradients, network, spiking
from tests.reference.two_pass import eligibility, rate_output, smoothed_rate

NEURONS = {
    "soft, detached": LIF(threshold=0.3),
    "soft, kept": LIF(threshold=0.3, detach_reset=False),
    "hard, detached": LIF(leak=0.8, threshold=0.3, reset="hard"),
    "hard, kept": LIF(leak=0.8, threshold=0.3, reset="hard", detach_reset=False),
    "leak-then-subtract, detached": LIF(leak=0.7, threshold=0.3, order="leak-then-subtract"),
    "leak-then-subtract, kept": LIF(leak=0.7, threshold=0.3, order="leak-then-subtract", detach_reset=False),
    "hard, leak-then-subtract": LIF(threshold=0.3, reset="hard", order="leak-then-subtract", detach_reset=False),
    "without leak": IF(threshold=0.4),
}


@pytest.mark.parametrize("timesteps", [1, 2, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_plain_two_passes(name: str, timesteps: int) -> None:
    snn = spiking(name, timesteps=timesteps).double()
    assert_equals_reference(snn, images_of())
    rates = {}
    snn.eval().unroll(images_of(), observe=lambda layer, spikes: rates.update({layer: float(spikes.mean())}))
    assert min(rates.values()) > 0.01, "a silent layer would make the comparison easy"


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_equals_the_plain_two_passes_for_every_neuron(name: str, neuron: str) -> None:
    assert_equals_reference(spiking(name, copy.deepcopy(NEURONS[neuron])).double(), images_of())


@pytest.mark.parametrize("surrogate", [Sigmoid(2.0), Linear(), ATan(), Triangle(), Rectangular()], ids=repr)
def test_equals_the_plain_two_passes_for_every_surrogate(surrogate: object) -> None:
    neuron = LIF(threshold=0.3, surrogate=surrogate, detach_reset=False)  # type: ignore[arg-type]
    assert_equals_reference(spiking("residual", neuron).double(), images_of())


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "kept"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("order", ["reset-then-leak", "leak-then-subtract"])
def test_equals_the_plain_two_passes_for_learnt_leak_and_threshold(order: str, reset: str, detach: bool) -> None:
    neuron = LIF(0.6, 0.3, reset, order, detach, learn=("leak", "threshold"))  # type: ignore[arg-type]
    snn = spiking("residual", neuron).double()
    assert_equals_reference(snn, images_of())
    learnt = [gradient for name, gradient in gradients(snn).items() if "parametrizations" in name]
    assert len(learnt) == 2 * len(list(snn.neurons()))
    assert all(float(gradient.abs()) > 0 for gradient in learnt)


@pytest.mark.parametrize("neuron", NEURONS)
def test_the_two_ways_of_the_reference_agree(neuron: str) -> None:
    layer = copy.deepcopy(NEURONS[neuron]).double()
    current = torch.randn(50, dtype=torch.float64).requires_grad_()
    changes = [torch.randn(50, dtype=torch.float64) for _ in range(5)]
    currents = [current + change for change in changes]
    _, rate, gain = eligibility([item.detach() for item in currents], layer)
    smoothed = smoothed_rate(currents, layer)
    torch.testing.assert_close(smoothed, rate)
    torch.testing.assert_close(torch.autograd.grad(smoothed.sum(), current)[0], gain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [1e-3, 1e3], ids=["all firing", "all silent"])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_equals_the_plain_two_passes_where_all_or_none_fire(name: str, threshold: float) -> None:
    ann = network(name)
    if threshold < 1:
        with torch.no_grad():
            for parameter in ann.parameters():
                parameter.abs_()
    neuron = LIF(threshold=threshold, surrogate=ATan(0.1))
    snn = to_spiking(ann, neuron=neuron, timesteps=3, input_shape=SHAPE).double()
    if threshold < 1:  # normalised by running statistics, a positive current stays positive
        for module in snn.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().running_mean.zero_()  # type: ignore[union-attr]
    images = images_of().abs()
    rates: list[float] = []
    snn.unroll(images, observe=lambda _, spikes: rates.append(float(spikes.mean())))
    assert set(rates) == {1.0 if threshold < 1 else 0.0}
    assert_equals_reference(snn, images)


@pytest.mark.parametrize("name", ["plain", "residual", "max pooling", "dropout"])
def test_equals_the_plain_two_passes_for_one_image(name: str) -> None:
    assert_equals_reference(spiking(name, timesteps=2).double(), images_of(1))


@pytest.mark.parametrize("name", ["plain", "residual", "dropout", "max pooling", "linear"])
def test_equals_the_plain_two_passes_for_an_input_that_moves(name: str) -> None:
    snn = spiking(name, encoder=Poisson(scale=3.0, seed=5)).double()
    images = images_of()
    with torch.no_grad():
        encoded = list(Poisson(scale=3.0, seed=5)(images, snn.timesteps))
    assert_equals_reference(snn, images, encoded)


def test_the_gradient_reaches_events_through_their_mean() -> None:
    snn = spiking("normalised", timesteps=3, encoder=Events()).double()
    events = torch.randn(3, 2, *SHAPE, dtype=torch.float64)
    events.requires_grad_()
    encoded = [frame.detach().clone().requires_grad_() for frame in events]
    ours, theirs = snn(events), rate_output(copy.deepcopy(snn).body, encoded)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(events.grad, torch.stack([frame.grad for frame in encoded]), rtol=1e-10, atol=1e-10)


def test_equals_the_plain_two_passes_with_a_normalisation_in_evaluation_mode() -> None:
    snn = spiking("residual").double()
    snn.body.get_submodule("3.bn1").eval()
    before = snn.body.get_submodule("3.bn1").running_mean.clone()
    assert_equals_reference(snn, images_of())
    assert torch.equal(snn.body.get_submodule("3.bn1").running_mean, before)


@pytest.mark.parametrize("frozen", ["0", "3.conv1", "3.bn1", "7"])
def test_equals_the_plain_two_passes_with_frozen_layers(frozen: str) -> None:
    snn = spiking("residual").double()
    layer = snn.body.get_submodule(frozen)
    layer.requires_grad_(False)
    assert_equals_reference(snn, images_of())
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_a_frozen_bias_alone_gets_no_gradient() -> None:
    snn = spiking("plain")
    for layer in ("3.0", "6"):
        snn.body.get_submodule(layer).bias.requires_grad_(False)
    snn(torch.randn(2, *SHAPE)).sum().backward()
    for layer in ("3.0", "6"):
        assert snn.body.get_submodule(layer).bias.grad is None
        assert snn.body.get_submodule(layer).weight.grad is not None


def test_a_network_whose_every_parameter_is_frozen_still_runs() -> None:
    snn = spiking("residual").requires_grad_(False)
    assert not snn(torch.randn(2, *SHAPE)).requires_grad
    images = torch.randn(2, *SHAPE, requires_grad=True)
    snn(images).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_taps_hold_rates_and_pass_gradients_to_what_comes_before_them() -> None:
    snn = spiking("residual").double()
    images = images_of()
    spikes: dict[str, Tensor] = {}
    twin = copy.deepcopy(snn)
    twin.gradient = "bptt"
    twin.unroll(images, observe=lambda name, fired: spikes.update({name: fired.mean(0)}))
    record = snn.record(images, taps=("3", "4"))
    assert record.steps is None
    torch.testing.assert_close(record.features["3"], spikes["3.relu_2"])
    torch.testing.assert_close(record.features["4"], spikes["4.relu_2"])

    record.features["3"].sum().backward()
    reached = {name for name, gradient in gradients(snn).items() if float(gradient.abs().sum()) > 0}
    assert reached >= {"body.0.weight", "body.3.conv2.weight"}
    assert not any(name.startswith(("body.4", "body.7")) for name in reached)

    judge = to_spiking(nn.Sequential(*list(network("residual"))[:4]), input_shape=SHAPE, neuron=LIF(threshold=0.15))
    judge.double().body.load_state_dict({k: v for k, v in snn.body.state_dict().items() if k[0] in "0123"})
    expected = rate_output(judge.body, [images] * 4)
    torch.testing.assert_close(record.features["3"], expected, rtol=1e-10, atol=1e-10)
    expected.sum().backward()
    for name, gradient in gradients(judge).items():
        torch.testing.assert_close(gradients(snn)[name], gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["residual", "shared", "linear"])
def test_running_statistics_are_updated_once_and_as_in_backpropagation_through_time(name: str) -> None:
    ours = spiking(name)
    through_time = copy.deepcopy(ours)
    through_time.gradient = "bptt"
    images = torch.randn(4, *SHAPE)
    for snn in (ours, through_time):
        snn(images).sum().backward()
    for (path, buffer), other in zip(ours.named_buffers(), through_time.buffers(), strict=True):
        if path.endswith("num_batches_tracked"):
            assert int(buffer) == int(other) == (2 if name == "shared" and "shared" in path else 1)
        torch.testing.assert_close(buffer, other, msg=lambda text, n=path: f"{n}: {text}")


def test_cumulative_running_statistics() -> None:
    ann = network("normalised")
    ann[4].momentum = None  # type: ignore[index]
    ours = to_spiking(ann, neuron=LIF(threshold=0.3), input_shape=SHAPE)
    through_time = copy.deepcopy(ours)
    through_time.gradient = "bptt"
    for _ in range(3):
        images = torch.randn(4, *SHAPE)
        for snn in (ours, through_time):
            snn(images)
    torch.testing.assert_close(
        ours.body.get_submodule("4").running_var, through_time.body.get_submodule("4").running_var
    )


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "dropout"])
def test_one_step_has_the_gradient_of_backpropagation_through_time(name: str) -> None:
    ours = spiking(name, timesteps=1).double()
    through_time = copy.deepcopy(ours)
    through_time.gradient = "bptt"
    images = images_of()
    for snn in (ours, through_time):
        snn(images).square().sum().backward()
    expected = gradients(through_time)
    for path, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, expected[path], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("neuron", [LIF(0.5, 0.5), LIF(0.5, 0.5, detach_reset=False), LIF(0.9, 0.5), IF(0.5)])
def test_the_gradient_points_where_backpropagation_through_time_points(neuron: LIF, seed: int) -> None:
    """Two layers, T = 4, no normalisation: what the rate drops is the correlation in time of errors and spikes.

    Direct input makes the first layer's current constant, and its E exact: the two differ only in how the second
    layer's gradient reaches single steps of the first. Both layers have the weights that PyTorch gives them, and a
    threshold at which both fire. The shorter the memory of a neuron, the closer the two: 0.999 for a leak of 0.5,
    0.993 without one.
    """
    rates: list[float] = []
    torch.manual_seed(seed)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 5))
    ours = to_spiking(ann, neuron=copy.deepcopy(neuron), input_shape=SHAPE)
    through_time = copy.deepcopy(ours)
    through_time.gradient = "bptt"
    images, labels = torch.randn(32, *SHAPE), torch.randint(5, (32,))
    for snn in (ours, through_time):
        nn.functional.cross_entropy(snn(images), labels).backward()
    flat = [torch.cat([item.flatten() for item in gradients(snn).values()]) for snn in (ours, through_time)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.99
    ours.unroll(images, observe=lambda _, spikes: rates.append(float(spikes.mean())))
    assert all(0.05 < rate < 0.5 for rate in rates)


def test_the_value_is_that_of_the_unrolled_network() -> None:
    for name in NETWORKS:
        snn = spiking(name).double()
        for module in snn.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Dropout | nn.Dropout2d):
                module.eval()
        images = images_of()
        ours = snn(images)
        assert ours.requires_grad
        torch.testing.assert_close(ours, snn.unroll(images).mean(0), rtol=1e-10, atol=1e-10)


def test_autocast_keeps_spikes_in_bfloat16() -> None:
    ours = spiking("residual")
    twin = copy.deepcopy(ours)
    images, labels = torch.randn(16, *SHAPE), torch.randint(5, (16,))
    seen: list[torch.dtype] = []
    with torch.autocast("cpu", torch.bfloat16):
        ours.unroll(images, observe=lambda _, spikes: seen.append(spikes.dtype))
        logits = ours(images)
    assert set(seen) == {torch.bfloat16}
    nn.functional.cross_entropy(logits.float(), labels).backward()
    twin.unroll(images)  # the same number of running statistics
    nn.functional.cross_entropy(twin(images), labels).backward()
    got, expected = gradients(ours), gradients(twin)
    assert {gradient.dtype for gradient in got.values()} == {torch.float32}
    flat = [torch.cat([item[name].flatten() for name in expected]) for item in (got, expected)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.95


def kept_for_backward(snn: SpikingNetwork, images: Tensor) -> int:
    """Bytes that the backward pass holds: saved tensors, and the eligibilities, which the neurons' nodes hold."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = snn(images)
    pending, met = [output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in met:
            continue
        met.add(node)
        pending += [following for following, _ in node.next_functions]
    return sum(storages.values())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "dropout"])
def test_memory_does_not_grow_with_time(name: str) -> None:
    images = torch.randn(2, *SHAPE)
    few, many = (kept_for_backward(spiking(name, timesteps=steps), images) for steps in (4, 16))
    assert few > 2 * 8 * 8 * 4
    assert many == few


@pytest.mark.slow
def test_the_gradient_keeps_its_scale_through_a_deep_network_with_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/methods.md, section 6, with the alternative that it rejects."""
    torch.manual_seed(0)
    ann = models.create("resnet20", width=0.5).double()
    student = to_spiking(ann, input_shape=(3, 32, 32)).double()
    images = torch.randn(16, 3, 32, 32, dtype=torch.float64)

    def lengths(mode: Literal["rate", "bptt"]) -> dict[str, float]:
        student.gradient = mode
        student.zero_grad()
        student(images).square().sum().backward()
        return {name: float(value.grad.norm()) for name, value in student.named_parameters() if value.grad is not None}

    through_time, by_rates = lengths("bptt"), lengths("rate")
    first = "body.stem.conv.weight"
    assert by_rates[first] / through_time[first] == pytest.approx(2.3, abs=0.2)
    later = [name for name in by_rates if "conv" in name and "block" in name and "layer1.block1" not in name]
    assert all(2 / 3 < by_rates[name] / through_time[name] < 1.5 for name in later)

    class OwnStatistics:
        @staticmethod
        def apply(rate: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
            arguments = (weight, bias, None, None, True, 0.0, 1e-5)
            return RateBatchNorm.apply(rate, weight, bias, *torch.native_batch_norm(rate.detach(), *arguments)[1:])

    monkeypatch.setattr("spikestill.graph.rate.deferred_to_neurons", lambda body, kept: ())
    assert lengths("rate")[first] / through_time[first] == pytest.approx(2.3, abs=0.2)
    monkeypatch.setattr("spikestill.graph.rate.RateBatchNorm", OwnStatistics)
    assert lengths("rate")[first] / through_time[first] == pytest.approx(1400, rel=0.1)
