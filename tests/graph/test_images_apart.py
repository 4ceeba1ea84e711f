from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph import check, to_spiking, trace
from spikestill.graph.images_apart import calls_that_mix_images
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, network

SHAPE = (3, 6, 6)


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.relu, self.inner, self.function = nn.Conv2d(3, 3, 1), nn.ReLU(), inner, function

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(self.relu(self.conv(x)))
        return (x if self.inner is None else self.inner(x)).flatten(1)


MIXING: dict[str, tuple[Callable[[Tensor], Tensor], list[str], str]] = {
    "a difference from the batch's mean": (lambda x: x - x.mean(0, keepdim=True), ["mean"], "one entry an image"),
    "a flattened batch": (lambda x: x.flatten().unsqueeze(0), ["flatten"], "one entry an image"),
    "a batch laid out anew": (lambda x: x.reshape(2, -1), ["reshape"], "one entry an image"),
    "images and channels exchanged, which are as many": (lambda x: x.transpose(0, 1), ["transpose"], "reaches across"),
    "neighbours": (lambda x: torch.cat([x[1:], x[:1]]), ["getitem", "getitem"], "one entry an image"),
    "a batch size that is written down": (lambda x: x.reshape(2, 3, 6, 6), ["reshape"], "one size of the batch alone"),
    "a padded batch": (lambda x: functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)), ["pad"], "one entry an image"),
    "the batch as the rows of a map": (
        lambda x: functional.avg_pool2d(x.permute(1, 2, 0, 3), (3, 1), 1, (1, 0)).permute(2, 0, 1, 3),
        ["permute"],
        "reaches across",
    ),
}


@pytest.mark.parametrize("kind", MIXING)
def test_what_reaches_across_images_is_refused_where_it_begins(kind: str) -> None:
    function, operations, reason = MIXING[kind]
    model = Apply(function)
    refused = check(model, SHAPE).refused
    assert [finding.operation for finding in refused] == operations
    assert all(reason in finding.remark and "flatten from axis 1" in finding.remark for finding in refused)
    with pytest.raises(InputError, match=r"Apply cannot become spiking: \(model\)"):
        to_spiking(model, input_shape=SHAPE)


def test_a_module_is_named_by_its_path() -> None:
    (finding,) = check(Apply(lambda x: x, nn.Flatten(0, 1)), SHAPE).refused
    assert (finding.name, finding.operation) == ("inner", "Flatten")


def test_what_is_refused_for_itself_keeps_its_reason() -> None:
    (finding,) = check(Apply(lambda x: functional.softmax(x, 0)), SHAPE).refused
    assert "end the network at its logits" in finding.remark


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_keep_images_apart_are_left_alone(name: str) -> None:
    for training in (True, False):
        assert not calls_that_mix_images(trace(network(name).train(training), (3, 8, 8)))


def test_a_normalisation_by_the_batch_and_a_functional_dropout_are_no_mixing() -> None:
    batch = nn.BatchNorm2d(3, track_running_stats=False)
    model = Apply(lambda x: functional.dropout(x, 0.5, True), batch)
    assert not check(model, SHAPE).refused


def test_looking_changes_neither_statistics_nor_random_numbers() -> None:
    model = network("residual")
    traced = trace(model, (3, 8, 8))
    before = {name: value.clone() for name, value in traced.state_dict().items()}
    random = torch.random.get_rng_state()
    calls_that_mix_images(traced)
    assert all(torch.equal(value, before[name]) for name, value in traced.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert traced.training
