from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from spikestill import objectives
from spikestill.graph import SpikingNetwork, to_spiking, trace
from spikestill.types import InputError

SHAPE = (3, 4, 4)


def ann() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )


def student() -> SpikingNetwork:
    return to_spiking(ann(), input_shape=SHAPE)


def create(name: str, with_teacher: bool = True, **options: Any) -> objectives.Objective:
    teacher = trace(ann().eval(), SHAPE) if with_teacher else None
    return objectives.create(name, student=student(), teacher=teacher, input_shape=SHAPE, **options)


def test_every_name_gives_its_objective() -> None:
    assert objectives.names() == [
        "activation-attention",
        "blockwise",
        "branches",
        "cross-entropy",
        "gradient-attention",
        "logits",
        "own-ensemble",
        "selective",
        "spikes",
    ]
    for name in set(objectives.names()) - {"spikes"}:
        assert create(name).name == name
    spiking = to_spiking(ann(), input_shape=SHAPE, gradient="bptt", timesteps=5)
    made = objectives.create("spikes", student=spiking, teacher=spiking, input_shape=SHAPE)
    assert made.name == "spikes"


def test_options_reach_the_objective() -> None:
    assert create("cross-entropy", label_smoothing=0.2).label_smoothing == 0.2
    assert create("logits", temperature=2.0).temperature == 2.0
    assert create("blockwise", temperature=3.0, distillation=0.5).distillation_weight == 0.5


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown objective 'crossentropy': did you mean 'cross-entropy'?"):
        create("crossentropy")


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [
        ("cross-entropy", "smoothing", "label_smoothing"),
        ("logits", "temperatur", "temperature"),
        ("blockwise", "point", "points"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(name: str, option: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown option of objective {name} '{option}': did you mean '{nearest}'?"):
        create(name, **{option: 1})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("logits", {"temperature": "hot"}, "logits: temperature must be a number, not 'hot'"),
        ("logits", {"temperature": True}, "logits: temperature must be a number, not True"),
        ("logits", {"each_step": "no"}, "logits: each_step must be true or false, not 'no'"),
        ("cross-entropy", {"mse_weight": None}, "cross-entropy: mse_weight must be a number, not None"),
        ("blockwise", {"tail": "thawed"}, "blockwise: tail must be 'frozen' or 'trained', not 'thawed'"),
        ("blockwise", {"tail": ["frozen"]}, r"blockwise: tail must be 'frozen' or 'trained', not \['frozen'\]"),
        ("branches", {"distillation": [1]}, r"branches: distillation must be a number, not \[1\]"),
    ],
)
def test_an_option_of_another_type_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(name, **options)


def test_a_whole_number_is_a_number() -> None:
    assert create("logits", temperature=2).temperature == 2


@pytest.mark.parametrize("name", ["logits", "blockwise", "selective", "activation-attention", "gradient-attention"])
def test_what_needs_a_teacher_says_so(name: str) -> None:
    with pytest.raises(InputError, match=f"objective {name} needs a teacher"):
        create(name, with_teacher=False)


@pytest.mark.parametrize("name", ["cross-entropy", "own-ensemble", "branches"])
def test_others_need_none(name: str) -> None:
    assert create(name, with_teacher=False).teacher_taps == ()
