from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spikestill.nn.batch_norm import SynchronisedBatchNorm, synchronise, unsynchronise
from spikestill.types import InputError
from tests.processes import group_of_one


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    with group_of_one(tmp_path):
        yield


KINDS = [
    (nn.BatchNorm1d, (6, 3)),
    (nn.BatchNorm1d, (4, 3, 5)),
    (nn.BatchNorm2d, (4, 3, 5, 2)),
    (nn.BatchNorm3d, (2, 3, 2, 2, 3)),
]


@pytest.mark.parametrize(("kind", "shape"), KINDS, ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_of_one_process_it_is_the_batch_norm_that_it_stands_for(
    alone: None, kind: type[nn.Module], shape: tuple[int, ...], affine: bool, momentum: float | None
) -> None:
    judge = nn.Sequential(kind(3, affine=affine, momentum=momentum)).double()
    if affine:
        nn.init.normal_(judge[0].weight)
        nn.init.normal_(judge[0].bias)
    ours = copy.deepcopy(judge)
    synchronise(ours)
    for count in (1, 2, 3):
        values = (3 * torch.randn(shape, dtype=torch.float64) + 2).requires_grad_()
        delta = torch.randn(shape, dtype=torch.float64)
        results = [network(values) for network in (ours, judge)]
        torch.testing.assert_close(*results)
        inputs = [[values, *network.parameters()] for network in (ours, judge)]
        gradients = [torch.autograd.grad(result, wanted, delta) for result, wanted in zip(results, inputs, strict=True)]
        for got, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(got, expected)
        for (name, got), (_, expected) in zip(ours.named_buffers(), judge.named_buffers(), strict=True):
            torch.testing.assert_close(got, expected, msg=name)
        assert judge[0].num_batches_tracked == count
    values = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours.eval()(values), judge.eval()(values))


def test_derivatives_are_those_of_finite_differences(alone: None) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)).double()
    synchronise(norm)
    weight, bias = torch.randn(2, 2, dtype=torch.float64).unbind()

    def normalised(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(norm, {"0.weight": weight, "0.bias": bias}, values)
        return result

    values = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        normalised, (values.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    )


def test_a_network_is_itself_again_afterwards() -> None:
    shared = nn.BatchNorm1d(3)
    network = nn.Sequential(nn.Linear(3, 3), shared, nn.ReLU(), nn.Sequential(shared), nn.BatchNorm1d(3).eval())
    names, state = [name for name, _ in network.named_modules()], network.state_dict()
    parameters = list(network.parameters())
    synchronise(network)
    assert [name for name, _ in network.named_modules()] == names
    assert isinstance(network[1], SynchronisedBatchNorm)
    assert network[1] is network[3][0]
    assert [module.training for module in (network[1], network[4])] == [True, False]
    assert list(network.state_dict()) == list(state)
    assert all(got is expected for got, expected in zip(network.parameters(), parameters, strict=True))
    network.to(torch.float64)
    unsynchronise(network)
    assert network[1] is network[3][0] is shared
    assert {buffer.dtype for buffer in shared.buffers() if buffer.is_floating_point()} == {torch.float64}


def test_in_evaluation_nothing_is_shared() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    synchronise(network)
    assert network.eval()(torch.randn(2, 3)).shape == (2, 3)  # there is no process group here


def test_a_batch_norm_that_may_do_more_is_refused_where_it_is_trained() -> None:
    class Own(nn.BatchNorm2d):
        pass

    network = nn.Sequential(nn.Conv2d(1, 2, 1), Own(2))
    with pytest.raises(InputError, match=r"'1' \(Own\) cannot be synchronised between processes: train this network"):
        synchronise(network)
    synchronise(network.eval())
    assert type(network[1]) is Own
