from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from spikestill import models
from spikestill.graph import cut, cut_points, levels, named_points, stage_points, to_spiking, trace
from spikestill.graph.sequence import SequenceRun
from spikestill.types import InputError
from tests.graph.networks import NETWORKS, SHAPE, network, spiking


@pytest.mark.parametrize("name", NETWORKS)
def test_head_and_tail_are_the_whole_at_every_point(name: str) -> None:
    traced = trace(network(name).eval(), SHAPE)
    images = torch.randn(3, *SHAPE)
    whole = traced(images)
    points = cut_points(traced)
    assert len(points) >= 3
    for point in points:
        for alias in point.names:
            head, tail = cut(traced, alias)
            feature = head(images)
            assert feature.shape == (3, *point.shape)
            assert torch.equal(tail(feature), whole)


@pytest.mark.parametrize("name", NETWORKS)
def test_head_and_tail_of_a_spiking_network_are_the_whole(name: str) -> None:
    body = spiking(name).eval().body
    frames = torch.randn(4, 3, *SHAPE)
    whole = SequenceRun(body, 4).sequence(frames)
    for point in cut_points(body):
        head, tail = cut(body, point.name)
        assert torch.equal(SequenceRun(tail, 4).sequence(SequenceRun(head, 4).sequence(frames)), whole)


def test_head_and_tail_share_the_modules() -> None:
    traced = trace(network("residual"), SHAPE)
    head, tail = cut(traced, "3")
    assert head.get_submodule("3.conv1") is traced.get_submodule("3.conv1")
    assert tail.get_submodule("4.conv1") is traced.get_submodule("4.conv1")
    assert not any(name.startswith("4") for name, _ in head.named_parameters())


def test_points_are_named_by_every_module_that_ends_there() -> None:
    points = {point.name: point for point in cut_points(trace(network("residual"), SHAPE))}
    assert points["3"].names == ("3", "3.relu")
    assert points["3"].shape == (6, 8, 8)
    assert "3.bn1" not in points
    assert "7" not in points, "the last value is no point"


def test_a_tail_can_be_cut_again() -> None:
    traced = trace(network("residual").eval(), SHAPE)
    images = torch.randn(2, *SHAPE)
    head, tail = cut(traced, "3")
    middle, end = cut(tail, "4")
    assert torch.equal(end(middle(head(images))), traced(images))


def test_a_place_where_two_tensors_are_alive_is_refused() -> None:
    with pytest.raises(InputError, match="cannot cut at '3.conv1': more than one tensor is alive"):
        cut(trace(network("residual"), SHAPE), "3.conv1")


def test_an_unknown_point_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="unknown point '3.convv2': did you mean '3.conv2'?"):
        cut(trace(network("residual"), SHAPE), "3.convv2")


@pytest.mark.parametrize("name", ["resnet12", "resnet20", "resnet18", "vgg5", "vgg11", "conv3", "densenet121"])
def test_stages_of_the_built_in_models(name: str) -> None:
    traced = trace(models.create(name, width=0.125), (3, 32, 32))
    points = {alias: point for point in cut_points(traced) for alias in point.names}
    stages = stage_points(traced)
    assert 1 <= len(stages) <= 5
    sizes = [points[stage].shape[1] for stage in stages]
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(size > 1 for size in sizes)


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 9), ("resnet18", 8)])
def test_a_residual_network_can_be_cut_after_every_block(name: str, blocks: int) -> None:
    model = models.create(name, width=0.125)
    traced = trace(model, (3, 32, 32))
    ends = {alias for point in cut_points(traced) for alias in point.names}
    found = {path for path, _ in model.named_modules() if re.fullmatch(r"layer\d+\.block\d+", path)}
    assert len(found) == blocks
    assert found <= ends
    assert stage_points(traced) == sorted({path.split(".")[0] for path in found})


def test_a_stem_of_one_layer_is_no_stage() -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU())
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), block, nn.Flatten(), nn.Linear(64, 5))
    assert stage_points(trace(model, SHAPE)) == ["2"]


def test_levels_count_neuron_layers_up_to_every_change_of_resolution() -> None:
    """VGG9: one convolution, then two, two, two, each behind a pooling, and a hidden linear layer."""
    ann = models.create("vgg9", width=0.125)
    for traced in (trace(ann, (3, 32, 32)), to_spiking(ann, input_shape=(3, 32, 32)).body):
        found = levels(traced)
        assert [level.name for level in found] == ["layer1", "layer2", "layer3", "layer4"]
        assert [level.layers for level in found] == [1, 3, 5, 7]
        assert [level.depth for level in found] == [1 / 8, 3 / 8, 5 / 8, 7 / 8]
        assert [level.shape[1] for level in found] == [32, 16, 8, 4]


def test_named_points_say_what_is_there() -> None:
    points = named_points(to_spiking(models.create("vgg5", width=0.125), input_shape=(3, 32, 32)).body)
    assert points["layer1"] == points["layer1.relu1"]
    assert points["layer1"].is_activation
    assert points["layer1"].shape[1:] == (32, 32)
    assert not points["layer1.conv1"].is_activation
    assert len(points["head.relu1"].shape) == 1


def test_activations_side_by_side_end_a_stage_as_one_does() -> None:
    """As an inception block does: every branch is activated, and their concatenation is the only tensor alive."""

    class Branches(nn.Module):
        def __init__(self, activated: bool) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU())
            self.two = nn.Sequential(nn.Conv2d(4, 5, 1), nn.ReLU() if activated else nn.Identity())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.one(x), self.two(x)], 1)

    def found(activated: bool) -> list[tuple[str, tuple[int, ...], int]]:
        stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
        model = nn.Sequential(stem, Branches(activated), nn.Flatten(), nn.Linear(8 * 16, 5))
        return [(level.name, level.shape, level.layers) for level in levels(trace(model, SHAPE))]

    assert found(True) == [("1", (8, 4, 4), 3)]
    assert found(False) == [("0", (4, 4, 4), 1)]
