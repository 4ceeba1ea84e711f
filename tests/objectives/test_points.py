"""Which points belong together, across architectures."""

from __future__ import annotations

import pytest
from torch import fx, nn

from spikestill import models
from spikestill.graph import to_spiking, trace
from spikestill.objectives.points import map_pairs, named_pairs
from spikestill.types import InputError

SHAPE = (3, 32, 32)


def traced(name: str) -> fx.GraphModule:
    return trace(models.create(name, width=0.125), SHAPE)


def spiking(name: str) -> fx.GraphModule:
    return to_spiking(models.create(name, width=0.125), input_shape=SHAPE).body


@pytest.mark.parametrize(
    ("teacher", "student", "pairs"),
    [
        # Depths in neuron layers: VGG5 1 and 3 of 4; DenseNet121 14, 39, 88 and 121 of 121.
        ("densenet121", "vgg5", [("layer1", "layer2"), ("layer2", "layer3")]),
        ("resnet20", "vgg9", [("layer1", "layer1"), ("layer2", "layer2"), ("layer4", "layer3")]),
        ("vgg16", "resnet12", [("stem", "layer2"), ("layer2", "layer4"), ("layer4", "layer5")]),
        ("resnet20", "resnet20", [("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3")]),
    ],
)
def test_three_levels_are_matched_by_relative_depth(teacher: str, student: str, pairs: list[tuple[str, str]]) -> None:
    assert map_pairs("attention", spiking(student), traced(teacher), None) == pairs


def test_named_points_may_lie_where_the_graph_cannot_be_cut() -> None:
    inside = "layer1.block1.branch.relu"
    assert map_pairs("attention", spiking("resnet20"), traced("resnet20"), [inside]) == [(inside, inside)]


def test_one_name_is_a_list_of_one() -> None:
    assert named_pairs("attention", "layer1") == [("layer1", "layer1")]
    assert named_pairs("attention", {"layer1": "layer2"}) == [("layer1", "layer2")]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["layer9"], "unknown point of the student 'layer9': did you mean 'layer"),
        ({"layer1": "layr1"}, "unknown point of the teacher 'layr1': did you mean 'layer1'?"),
        (["head.relu1"], "attention: the student's feature at 'head.relu1' is no map"),
        ({"layer1": "head.relu1"}, "attention: the teacher's feature at 'head.relu1' is no map"),
        ([], "attention: points is empty"),
    ],
)
def test_points_that_do_not_fit_are_refused(points: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_pairs("attention", spiking("vgg5"), traced("vgg5"), points)  # type: ignore[arg-type]


def test_networks_without_maps_are_refused() -> None:
    flat = trace(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.ReLU(), nn.Linear(4, 5)), SHAPE)
    with pytest.raises(InputError, match="attention: found no maps to compare; name the points"):
        map_pairs("attention", flat, traced("vgg5"), None)
