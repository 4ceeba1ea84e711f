from __future__ import annotations

import copy
import operator

import pytest
import torch
from torch import Tensor, fx, nn

from spikestill.graph import cut_points, trace
from spikestill.graph.trace import calls, module_of, scope_of, shape_of
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, SHAPE, Careful, network


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "dropout"])
def test_the_graph_computes_what_the_model_does(name: str, training: bool) -> None:
    ann = network(name).train(training)
    twin = copy.deepcopy(ann)
    images = torch.randn(3, *SHAPE)
    assert torch.equal(trace(ann, SHAPE)(images), twin(images))


def test_the_graph_shares_the_parameters_and_leaves_the_model_as_it_was() -> None:
    ann = network("residual")
    ann[1].eval()  # type: ignore[index]
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    modes = [module.training for module in ann.modules()]
    traced = trace(ann, SHAPE)
    assert [module.training for module in ann.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in ann.state_dict().items())
    assert dict(traced.named_parameters()).keys() == dict(ann.named_parameters()).keys()
    assert all(traced.get_parameter(name) is parameter for name, parameter in ann.named_parameters())


def test_nodes_know_module_scope_and_shape() -> None:
    ann = network("residual")
    traced = trace(ann, SHAPE)
    node = next(node for node in calls(traced.graph) if node.target == "3.conv1")
    assert module_of(traced, node) is ann.get_submodule("3.conv1")
    assert scope_of(node)[-2:] == ["3", "3.conv1"]
    assert shape_of(node) == (6, 8, 8)
    total = next(node for node in calls(traced.graph) if node.target is operator.add)
    assert module_of(traced, total) is None
    assert scope_of(total)[-1] == "3"


def test_a_batch_size_that_was_asked_for_does_not_stay_alive() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.linear = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Linear(256, 5)

        def forward(self, x: Tensor) -> Tensor:
            batch = x.size(0)
            return self.linear(self.relu(self.conv(x)).view(batch, -1))

    ann = Sized()
    traced = trace(ann, SHAPE)
    assert [point.name for point in cut_points(traced)] == ["conv", "relu", "view"]
    images = torch.randn(3, *SHAPE)
    assert torch.equal(traced(images), ann(images))


@pytest.mark.parametrize(
    ("model", "where"), [(Branching(), ""), (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(Branching())), "1.0")]
)
def test_a_model_that_cannot_be_traced_is_refused_by_module(model: nn.Module, where: str) -> None:
    with pytest.raises(InputError, match=f"cannot trace '{where or 'the model'}' of .*control flow") as refusal:
        trace(model, SHAPE)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 0, 8)])
def test_a_shape_on_which_the_model_does_not_run_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="does not run on images of " + "x".join(map(str, shape))) as refusal:
        trace(network("linear"), shape)
    assert "\n" not in str(refusal.value)


def test_modes_are_put_back_where_the_shape_is_wrong() -> None:
    ann = network("normalised").train()
    with pytest.raises(InputError):
        trace(ann, (7, 8, 8))
    assert all(module.training for module in ann.modules())


def test_a_traced_model_may_be_traced_again_and_stays_as_it_is() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(torch.relu(x.view(x.size(0), -1)))

    given = fx.symbolic_trace(Flat())
    code, weight = given.code, given.linear.weight
    again = trace(given, (3, 2, 2))
    assert given.code == code
    assert again.get_submodule("linear").weight is weight
    images = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(again(images), given(images), rtol=0, atol=0)


def test_a_flat_view_becomes_one_that_takes_channels_last_maps_too() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 1), nn.Linear(256, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(torch.relu(self.conv(x)).view(x.shape[0], 256))

    ann = Viewing()
    images = torch.randn(2, *SHAPE)
    expected = ann(images)
    spread = trace(ann, SHAPE)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-6)


def test_an_image_that_does_not_fit_gives_its_message_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"does not run on images of 1x8x8: .*expected input\[2, 1, 8, 8\]"):
        trace(network("plain"), (1, 8, 8))

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.relu(x) + y

    with pytest.raises(InputError, match="takes 2 inputs"):
        trace(Two(), SHAPE)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(3, 8, 8), (3, 5, 5)])
def test_control_flow_by_sizes_and_switches_is_decided(size: tuple[int, ...], training: bool) -> None:
    ann = Careful().train(training)
    twin = copy.deepcopy(ann)
    traced = trace(ann, size)
    assert [node.name for node in traced.graph.nodes if node.op == "placeholder"] == ["x"]
    assert all(torch.equal(value, traced.state_dict()[name]) for name, value in twin.state_dict().items())
    assert ann.training is training
    for batch in (1, 5) if not training else (5,):
        images = torch.randn(batch, *size)
        assert torch.equal(traced(images), twin(images))
    pooled = any(node.target is torch.nn.functional.avg_pool2d for node in traced.graph.nodes)
    assert pooled is (size[1] == 8)


def test_the_size_of_the_batch_decides_nothing() -> None:
    class ByBatch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x).flatten(1) if x.shape[0] > 1 else x.flatten(1)

    with pytest.raises(InputError, match="cannot trace 'the model' of ByBatch: .*control flow.*size of the batch"):
        trace(ByBatch(), SHAPE)


class Returning(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.conv, self.what = nn.Conv2d(3, 3, 1), what

    def forward(self, x: Tensor) -> object:
        y = torch.relu(self.conv(x)).flatten(1)
        return {"dict": {"logits": y}, "tuple": (y, x), "None": None, "something": y.shape[0]}[self.what]


@pytest.mark.parametrize("what", ["dict", "tuple", "None", "something"])
def test_what_returns_more_than_logits_is_refused(what: str) -> None:
    with pytest.raises(
        InputError, match=rf"Returning returns (a )?{what}.*wrap it in a module that returns the logits"
    ):
        trace(Returning(what), SHAPE)


def test_writing_into_a_tensor_is_named() -> None:
    class Writing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(x)
            x[:, 0] = 0
            return x.flatten(1)

    with pytest.raises(InputError, match=r"it writes into a part of a tensor \(x\[...\] = value\)"):
        trace(nn.Sequential(nn.Conv2d(3, 3, 1), Writing()), SHAPE)


def test_an_assertion_of_the_model_is_its_message() -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1] == 7, "seven channels, please"
            return torch.relu(x)

    with pytest.raises(InputError, match="cannot trace 'the model' of Strict: seven channels, please"):
        trace(Strict(), SHAPE)
