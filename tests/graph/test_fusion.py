"""What is left to the neurons, and that leaving it to them changes nothing."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.graph.cut import node_named
from spikestill.graph.fusion import deferred_to_neurons, has_one_reader, is_deferrable_norm
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, Direct, Encoder, Poisson
from spikestill.nn.batch_norm import normalisation_of
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, SHAPE, Residual, gradients, network, spiking

Gradient = Literal["rate", "bptt"]
BOTH: tuple[Gradient, Gradient] = ("rate", "bptt")


def spiking_of(ann: nn.Module, **options: Any) -> SpikingNetwork:
    return to_spiking(ann, neuron=LIF(leak=0.5, threshold=0.15), input_shape=SHAPE, **options)


def names(snn: SpikingNetwork, *kept: str) -> set[str]:
    nodes = deferred_to_neurons(snn.body, [node_named(snn.body, name) for name in kept])
    return {node.name if module_of(snn.body, node) is None else str(node.target) for node in nodes}


def readers(snn: SpikingNetwork, *kept: str) -> set[str]:
    """The convolutions whose values may be overwritten."""
    taps = [node_named(snn.body, name) for name in kept]
    deferred = deferred_to_neurons(snn.body, taps)
    found = (node for node in snn.body.graph.nodes if isinstance(module_of(snn.body, node), nn.Conv2d))
    return {str(node.target) for node in found if has_one_reader(snn.body, node, taps, deferred)}


class Graph(nn.Module):
    """Four convolutions, two normalisations, and between them and the neurons whatever a test wants."""

    def __init__(self, between: Callable[..., Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.four = nn.Conv2d(4, 4, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.last, self.pool, self.flat = nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(self.pool(self.last(self.between(self, x))))


def residual_sum(g: Any, x: Tensor) -> Tensor:
    return g.relu1(g.bn1(g.one(x)) + g.bn2(g.two(x)))


def sum_in_place(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x))
    out += g.two(x)
    return g.relu1(out)


def sum_as_function(g: Any, x: Tensor) -> Tensor:
    return g.relu1(torch.add(g.bn1(g.one(x)), g.two(x)))


def sum_as_method(g: Any, x: Tensor) -> Tensor:
    return g.relu1(g.bn1(g.one(x)).add(g.two(x)))


def sum_with_a_factor(g: Any, x: Tensor) -> Tensor:
    return g.relu1(torch.add(g.bn1(g.one(x)), g.two(x), alpha=2))


def sum_with_a_number(g: Any, x: Tensor) -> Tensor:
    return g.relu1(g.bn1(g.one(x)) + 0.1)


def sum_with_itself(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x))
    return g.relu1(out + out)


def convolution_with_itself(g: Any, x: Tensor) -> Tensor:
    out = g.one(x)
    return g.relu1(out + out)


def sum_that_broadcasts(g: Any, x: Tensor) -> Tensor:
    return g.relu1(g.bn1(g.one(x)) + g.pool(g.two(x)))


def sum_for_two_neurons(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x)) + g.two(x)
    return torch.cat([g.relu1(out), g.relu2(out)], 1)[:, 2:6]


def sum_also_used_elsewhere(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x)) + g.two(x)
    return g.relu1(out) + out


def sum_of_three(g: Any, x: Tensor) -> Tensor:
    return g.relu1(g.bn1(g.one(x)) + g.two(x) + g.three(x))


def sum_used_alone_and_in_a_sum(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x)) + g.two(x)
    return g.relu1(out) + g.relu2(out + g.three(x))


def norm_for_two_neurons(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x))
    return g.relu1(out) + g.relu2(out)


def norm_used_alone_and_in_a_sum(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x))
    return g.relu1(out) + g.relu2(out + g.two(x))


def norm_also_used_elsewhere(g: Any, x: Tensor) -> Tensor:
    out = g.bn1(g.one(x))
    return g.relu1(out) + out


def norm_of_norm(g: Any, x: Tensor) -> Tensor:
    return g.relu1(g.bn2(g.bn1(g.one(x))))


def norm_before_pooling(g: Any, x: Tensor) -> Tensor:
    return g.relu1(nn.functional.avg_pool2d(g.bn1(g.one(x)), 2))


def still_and_moving_sum(g: Any, x: Tensor) -> Tensor:
    return g.relu2(g.bn1(g.four(g.relu1(g.three(x)))) + g.bn2(g.two(x)))


def norm_before_no_neuron(g: Any, x: Tensor) -> Tensor:
    return g.bn2(g.two(x)) + g.relu1(g.one(x))


def pre_activation(g: Any, x: Tensor) -> Tensor:
    stem = g.one(x)
    return stem + g.two(g.relu1(g.bn1(stem))[:, :3])


def pre_activation_of_a_sum(g: Any, x: Tensor) -> Tensor:
    first = g.one(x) + g.two(x)
    return first + g.three(g.relu1(g.bn1(first))[:, :3])


GRAPHS: dict[Callable[..., Tensor], tuple[set[str], set[str]]] = {
    residual_sum: ({"bn1", "bn2", "add"}, {"one", "two"}),
    sum_in_place: ({"bn1", "add"}, {"one", "two"}),
    sum_as_function: ({"bn1", "add"}, {"one", "two"}),
    sum_as_method: ({"bn1", "add"}, {"one", "two"}),
    sum_with_a_factor: ({"bn1", "add"}, {"one", "two"}),
    sum_with_a_number: (set(), {"one"}),
    sum_with_itself: ({"bn1", "add"}, {"one"}),
    convolution_with_itself: ({"add"}, {"one"}),
    sum_that_broadcasts: (set(), {"one", "two"}),
    sum_for_two_neurons: ({"bn1", "add"}, set()),
    sum_also_used_elsewhere: (set(), {"one", "two"}),
    sum_of_three: ({"add_1"}, {"one", "two", "three"}),
    sum_used_alone_and_in_a_sum: ({"add_1"}, {"one", "two", "three"}),
    norm_for_two_neurons: ({"bn1"}, set()),
    norm_used_alone_and_in_a_sum: ({"bn1", "add"}, {"two"}),
    norm_also_used_elsewhere: (set(), {"one"}),
    norm_of_norm: ({"bn2"}, {"one"}),
    norm_before_pooling: (set(), {"one"}),
    still_and_moving_sum: ({"bn1", "bn2", "add"}, {"two", "three", "four"}),
    norm_before_no_neuron: (set(), {"one", "two"}),
    pre_activation: ({"bn1"}, {"two"}),
    pre_activation_of_a_sum: ({"bn1"}, {"one", "two", "three"}),
}


def graph(between: Callable[..., Tensor], **options: Any) -> SpikingNetwork:
    made = Graph(between)
    for norm in (made.bn1, made.bn2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.5)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return spiking_of(made, **options)


# -------------------------------------------------------------------------------------------------- which are left


@pytest.mark.parametrize("between", GRAPHS)
def test_what_only_neurons_want_is_left_to_them(between: Callable[..., Tensor]) -> None:
    deferred, spare = GRAPHS[between]
    snn = graph(between)
    assert names(snn) == deferred
    assert readers(snn) - {"last"} == spare


def test_a_residual_network_leaves_every_normalisation_and_sum() -> None:
    snn = spiking("residual")
    blocks = {f"{block}.{norm}" for block in "34" for norm in ("bn1", "bn2")}
    assert names(snn) == {"1", "add", "add_1", *blocks}
    convolutions = {f"{block}.{conv}" for block in "34" for conv in ("conv1", "conv2", "shortcut")}
    assert readers(snn) == {"0", *convolutions}


def test_what_is_tapped_is_computed() -> None:
    snn = spiking("residual")
    for tap, lost in (("3.bn1", {"3.bn1"}), ("1", {"1"})):
        assert names(snn) - names(snn, tap) == lost
        assert names(snn, tap) < names(snn)
    assert readers(snn) - readers(snn, "3.conv1") == {"3.conv1"}
    assert names(snn, "3.conv1") == names(snn)


@pytest.mark.parametrize(
    "hook",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
def test_a_normalisation_that_is_watched_is_called(hook: str) -> None:
    snn = spiking("normalised")
    norm = snn.body.get_submodule("4")
    assert names(snn) == {"1", "4"}
    handle = getattr(norm, hook)(lambda *_: None)
    assert names(snn) == {"1"}
    handle.remove()
    assert names(snn) == {"1", "4"}


@pytest.mark.parametrize("gradient", BOTH)
def test_a_hook_sees_the_normalised_steps(gradient: Gradient) -> None:
    snn = spiking("normalised", gradient=gradient).eval()
    seen: list[Tensor] = []
    norm = snn.body.get_submodule("4")
    norm.register_forward_hook(lambda module, given, result: seen.append(result))
    with torch.no_grad():
        snn(torch.randn(2, *SHAPE))
    assert [tuple(item.shape) for item in seen] == [(snn.timesteps * 2, 4, 6, 6)]


def test_a_convolution_that_is_watched_keeps_its_value() -> None:
    snn = spiking("normalised").double()
    seen: list[Tensor] = []
    convolution = snn.body.get_submodule("3")
    handle = convolution.register_forward_hook(lambda module, given, result: seen.append(result))
    assert readers(snn) == {"0"}
    inputs: list[Tensor] = []
    convolution.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    snn(torch.randn(2, *SHAPE, dtype=torch.float64))
    handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(seen[0], convolution(inputs[0]))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.BatchNorm1d(3), True),
        (nn.BatchNorm2d(3), True),
        (nn.BatchNorm3d(3), True),
        (nn.BatchNorm2d(3, affine=False, momentum=None, track_running_stats=False), True),
        (nn.SyncBatchNorm(3), False),
        (nn.InstanceNorm2d(3), False),
        (type("Own", (nn.BatchNorm2d,), {})(3), False),
        (nn.Conv2d(3, 3, 1), False),
        (None, False),
    ],
    ids=repr,
)
def test_only_torch_s_own_batch_norm_is_left(module: nn.Module | None, expected: bool) -> None:
    assert is_deferrable_norm(module) is expected


# ----------------------------------------------------------------------------------------- and changes nothing


def undeferred(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("rate", "sequence"):
        monkeypatch.setattr(f"spikestill.graph.{where}.deferred_to_neurons", lambda body, kept: frozenset())


def assert_deferring_changes_nothing(snn: SpikingNetwork, monkeypatch: pytest.MonkeyPatch, runs: int = 2) -> None:
    """Value, gradients by parameters and images, and buffers, of some runs one after the other."""
    judge = copy.deepcopy(snn)
    results = []
    for net in (snn, judge):
        if net is judge:
            undeferred(monkeypatch)
        outputs = []
        for run in range(runs):
            torch.manual_seed(run)
            images = torch.randn(3, *SHAPE, dtype=torch.float64).requires_grad_(not isinstance(net.encoder, Poisson))
            output = net(images)
            (output * torch.randn_like(output)).sum().backward()
            outputs.append((output.detach(), images.grad))
        results.append((outputs, gradients(net), dict(net.named_buffers())))
    for ours, theirs in zip(results[0][0], results[1][0], strict=True):
        for got, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(results[0][1:], results[1][1:], strict=True):
        assert ours.keys() == theirs.keys()
        for path, expected in theirs.items():
            torch.testing.assert_close(ours[path], expected, rtol=1e-9, atol=1e-9, msg=lambda m, p=path: f"{p}: {m}")


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("between", GRAPHS)
def test_every_graph_is_as_without_deferring(
    between: Callable[..., Tensor], gradient: Gradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_deferring_changes_nothing(graph(between, gradient=gradient).double(), monkeypatch)


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("between", GRAPHS)
def test_every_graph_in_float32_rounds_the_one_in_float64(between: Callable[..., Tensor], gradient: Gradient) -> None:
    """In float32 the kernels run, and spikes may take the place of a convolution's output."""
    single = graph(between, gradient=gradient, encoder=Poisson(scale=3.0, seed=5))
    double = copy.deepcopy(single).double()
    images, weights = torch.randn(3, 3, *SHAPE), torch.randn(3, 1)
    results = []
    for net, dtype in ((single, torch.float32), (double, torch.float64)):
        outputs = [net(batch.to(dtype)) for batch in images]
        sum((output * weights).sum() for output in outputs).backward()  # type: ignore[union-attr]
        results.append({**dict(enumerate(outputs)), **gradients(net), **dict(net.named_buffers())})
    assert results[0].keys() == results[1].keys()
    for path, expected in results[1].items():
        got = results[0][path].to(expected.dtype)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4, msg=lambda m, p=path: f"{p}: {m}")


ENCODERS: tuple[Encoder, ...] = (Direct(), Poisson(scale=3.0, seed=5))


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)
@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("name", ["normalised", "normalised without affine", "residual", "shared", "linear"])
def test_every_network_is_as_without_deferring(
    name: str, gradient: Gradient, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = spiking(name, gradient=gradient, encoder=encoder).double()
    assert_deferring_changes_nothing(snn, monkeypatch)


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("frozen", [("3.bn1",), ("3.bn2", "4.bn1"), ("1",), ("1", "3.bn1", "3.bn2", "4.bn1", "4.bn2")])
def test_frozen_normalisations_are_as_without_deferring(
    frozen: tuple[str, ...], gradient: Gradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = spiking("residual", gradient=gradient).double()
    for path in frozen:
        snn.body.get_submodule(path).eval()
    before = {path: copy.deepcopy(snn.body.get_submodule(path)) for path in frozen}
    assert_deferring_changes_nothing(snn, monkeypatch)
    for path, norm in before.items():
        for got, expected in zip(snn.body.get_submodule(path).buffers(), norm.buffers(), strict=True):
            assert torch.equal(got, expected)
        assert snn.body.get_submodule(path).weight.grad is not None


KINDS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "not affine": {"affine": False},
    "cumulative": {"momentum": None},
    "momentum 0": {"momentum": 0.0},
    "momentum 1": {"momentum": 1.0},
    "untracked": {"track_running_stats": False},
    "untracked, not affine": {"track_running_stats": False, "affine": False},
    "wide epsilon": {"eps": 0.5},
}


def of_kind(kind: str, gradient: Gradient) -> SpikingNetwork:
    norms = [nn.BatchNorm2d(4, **KINDS[kind]) for _ in range(2)]
    layers = [nn.Conv2d(3, 4, 3), norms[0], nn.ReLU(), nn.Conv2d(4, 4, 3), norms[1], nn.ReLU()]
    return spiking_of(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), gradient=gradient
    ).double()


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_batch_norm_is_as_without_deferring(
    kind: str, gradient: Gradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = of_kind(kind, gradient)
    assert names(snn) == {"1", "4"}
    assert_deferring_changes_nothing(snn, monkeypatch, runs=3)


@pytest.mark.parametrize("gradient", BOTH)
def test_the_state_has_the_names_and_shapes_it_had(gradient: Gradient) -> None:
    ann = network("residual")
    snn = spiking_of(ann, gradient=gradient)
    before = {path: tensor.shape for path, tensor in snn.state_dict().items()}
    snn(torch.randn(2, *SHAPE)).sum().backward()
    assert {path: tensor.shape for path, tensor in snn.state_dict().items()} == before
    assert ann.load_state_dict(snn.body.state_dict(), strict=False).missing_keys == []


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_as_without_deferring(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = of_kind(kind, "rate")
    with torch.no_grad():
        snn(torch.randn(3, *SHAPE, dtype=torch.float64))
    snn.eval()
    before = {path: buffer.clone() for path, buffer in snn.named_buffers()}
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        ours = snn.unroll(images)
        undeferred(monkeypatch)
        theirs = snn.unroll(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for path, buffer in snn.named_buffers():
        assert torch.equal(buffer, before[path])


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_in_float32_has_the_spikes_of_the_undeferred_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = spiking(name).eval()
    images = torch.randn(8, *SHAPE)
    seen: list[dict[str, Tensor]] = [{}, {}]
    with torch.no_grad():
        snn.unroll(images, observe=lambda layer, spikes: seen[0].update({layer: spikes}))
        undeferred(monkeypatch)
        snn.unroll(images, observe=lambda layer, spikes: seen[1].update({layer: spikes}))
    assert seen[0].keys() == seen[1].keys()
    for layer, spikes in seen[0].items():  # a current at the threshold may round to the other side
        assert (spikes != seen[1][layer]).double().mean() < 2e-3


@pytest.mark.parametrize("tap", ["3.bn1", "3.conv1", "1", "3"])
@pytest.mark.parametrize("gradient", BOTH)
def test_a_tap_is_as_without_deferring(tap: str, gradient: Gradient, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = spiking("residual", gradient=gradient).double()
    judge, images = copy.deepcopy(snn), torch.randn(3, *SHAPE, dtype=torch.float64)
    results = []
    for net in (snn, judge):
        if net is judge:
            undeferred(monkeypatch)
        record = net.record(images, taps=(tap,))
        (record.features[tap].square().sum() + record.logits.sum()).backward()
        results.append({"tap": record.features[tap].detach(), **gradients(net)})
    assert results[0].keys() == results[1].keys()
    for path, expected in results[1].items():
        torch.testing.assert_close(results[0][path], expected, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------ running statistics


@pytest.mark.parametrize("gradient", BOTH)
@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_are_those_of_torch_on_all_steps_as_one_batch(kind: str, gradient: Gradient) -> None:
    snn = of_kind(kind, gradient)
    judges = {path: copy.deepcopy(snn.body.get_submodule(path)) for path in ("1", "4")}
    seen: dict[str, Tensor] = {}
    for before, path in (("0", "1"), ("3", "4")):
        layer = snn.body.get_submodule(before)
        layer.register_forward_hook(lambda module, given, result, p=path: seen.update({p: result.detach().clone()}))
    for count in range(1, 4):
        snn(torch.randn(3, *SHAPE, dtype=torch.float64)).sum().backward()
        for path, judge in judges.items():
            assert len(seen[path]) == (3 if path == "1" else 3 * snn.timesteps)
            judge(seen[path])
            norm = snn.body.get_submodule(path)
            if "untracked" in kind:
                assert norm.running_mean is None
                continue
            assert norm.num_batches_tracked == count
            torch.testing.assert_close(norm.running_mean, judge.running_mean, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(norm.running_var, judge.running_var, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("switched", ["track_running_stats", "training"])
def test_statistics_that_are_not_tracked_stay(switched: str) -> None:
    norm, judge = (nn.BatchNorm2d(4).double() for _ in range(2))
    sequence = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64)
    for module in (norm, judge):
        setattr(module, switched, False)
    normalisation, mean = normalisation_of(norm, sequence)
    judge(sequence.flatten(0, 1))
    assert normalisation.of_batch is (mean is not None) is (switched == "track_running_stats")
    for got, expected in zip(norm.buffers(), judge.buffers(), strict=True):
        assert torch.equal(got, expected)


def test_what_later_steps_change_is_not_in_a_normalisation_made_before() -> None:
    norm = nn.BatchNorm2d(4).eval()
    normalisation, _ = normalisation_of(norm, torch.randn(2, 3, 4, 5, 5))
    before = normalisation.mean.clone()
    norm.train()(torch.randn(3, 4, 5, 5) + 5)
    assert torch.equal(normalisation.mean, before)


@pytest.mark.parametrize("gradient", BOTH)
def test_statistics_of_a_single_value_are_refused(gradient: Gradient) -> None:
    layers = [nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5)]
    snn = spiking_of(nn.Sequential(*layers), gradient=gradient)
    with pytest.raises(InputError, match="more than one value a channel"):
        snn(torch.randn(1, *SHAPE))
    assert snn.body.get_submodule("2").num_batches_tracked == 0
    snn(torch.randn(2, *SHAPE))
    assert snn.eval()(torch.randn(1, *SHAPE)).shape == (1, 5)


def test_an_empty_batch_leaves_the_running_statistics_finite() -> None:
    for gradient in BOTH:
        snn = spiking("residual", gradient=gradient)
        before = {path: buffer.clone() for path, buffer in snn.named_buffers()}
        assert snn(torch.randn(0, *SHAPE)).shape == (0, 5)
        for path, buffer in snn.named_buffers():
            assert path.endswith("num_batches_tracked") or torch.equal(buffer, before[path])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_normalisation_in_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    norm, sequence = nn.BatchNorm2d(4).to(dtype), torch.randn(3, 2, 4, 5, 5).to(torch.bfloat16)
    for training in (True, False):
        normalisation, _ = normalisation_of(norm.train(training), sequence)
        numbers = (normalisation.mean, normalisation.inverse_deviation, normalisation.scale, normalisation.shift)
        assert {item.dtype for item in numbers} == {torch.float32}
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.running_mean.dtype == norm.running_var.dtype == dtype
    exact = (norm.running_var.double() + norm.eps) ** -0.5
    torch.testing.assert_close(normalisation.inverse_deviation.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gradient", BOTH)
def test_a_network_in_bfloat16_trains_and_keeps_its_dtypes(gradient: Gradient) -> None:
    snn = spiking("residual", gradient=gradient).bfloat16()
    output = snn(torch.randn(3, *SHAPE).bfloat16())
    output.float().square().sum().backward()
    assert output.dtype == torch.bfloat16
    assert {item.dtype for item in gradients(snn).values()} == {torch.bfloat16}
    assert len(gradients(snn)) == len(list(snn.parameters()))


# --------------------------------------------------------------------------------------------------- two blocks


class Downsampled(nn.Module):
    """A residual block whose shortcut is normalised too, as in every ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.downsample = nn.Sequential(nn.Conv2d(4, 6, 1, 2), nn.BatchNorm2d(6))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(operator.add(self.main(x), self.downsample(x)))


@pytest.mark.parametrize("gradient", BOTH)
def test_a_block_with_a_normalised_shortcut(gradient: Gradient, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    snn = spiking_of(nn.Sequential(*stem, Downsampled(), Residual(6, 6), *tail), gradient=gradient).double()
    assert {"3.main.1", "3.downsample.1", "add"} < names(snn)
    assert_deferring_changes_nothing(snn, monkeypatch)


# ------------------------------------------------------------------------------------------------- memory written over


@pytest.mark.parametrize("between", GRAPHS)
def test_spikes_in_the_place_of_a_current_change_no_bit(
    between: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = graph(between, encoder=Poisson(scale=3.0, seed=5))
    assert_overwriting_changes_nothing(snn, monkeypatch)


@pytest.mark.parametrize("name", NETWORKS)
def test_overwriting_changes_no_bit_of_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_overwriting_changes_nothing(spiking(name, encoder=Poisson(scale=3.0, seed=5)), monkeypatch)


def assert_overwriting_changes_nothing(snn: SpikingNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, where the kernels run."""
    judge, results = copy.deepcopy(snn), []
    images = torch.randn(3, *SHAPE)
    for net in (snn, judge):
        if net is judge:
            monkeypatch.setattr("spikestill.graph.rate.has_one_reader", lambda *_: False)
        torch.manual_seed(0)
        output = net(images)
        output.square().sum().backward()
        results.append({"output": output.detach(), **gradients(net), **dict(net.named_buffers())})
    assert results[0].keys() == results[1].keys()
    for path, expected in results[1].items():
        assert torch.equal(results[0][path], expected), path
