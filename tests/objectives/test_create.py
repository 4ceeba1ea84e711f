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
        "cross-entropy",
        "gradient-attention",
        "logits",
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


@pytest.mark.parametrize("name", ["logits", "blockwise", "activation-attention", "gradient-attention"])
def test_what_needs_a_teacher_says_so(name: str) -> None:
    with pytest.raises(InputError, match=f"objective {name} needs a teacher"):
        create(name, with_teacher=False)


def test_cross_entropy_needs_none() -> None:
    assert create("cross-entropy", with_teacher=False).teacher_taps == ()
