from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.nn import LIF
from spikestill.objectives import Branches, create
from spikestill.types import InputError, Record
from tests.objectives.test_blockwise import LABELS, SHAPE, Staged
from tests.objectives.test_own_ensemble import by_hand


def student(gradient: Literal["rate", "bptt"] = "rate") -> SpikingNetwork:
    return to_spiking(Staged(4), neuron=LIF(threshold=0.1), timesteps=3, gradient=gradient, input_shape=SHAPE)


def build(network: SpikingNetwork, **options: Any) -> Branches:
    made = create("branches", student=network, teacher=None, input_shape=SHAPE, **options)
    assert isinstance(made, Branches)
    return made


def heads(objective: Branches, record: Record) -> list[Tensor]:
    """Every branch by hand: its convolutions, batch statistics, the mean of the map, the linear layer."""
    found = []
    for point, branch in zip(objective.student_taps, objective.branches, strict=True):
        x = record.features[point]
        *separable, _, _, linear = branch.children()
        for by_channel, pointwise, *_ in separable:  # type: ignore[misc]
            x = functional.conv2d(x, by_channel.weight, stride=by_channel.stride, padding=1, groups=x.shape[1])
            x = functional.conv2d(x, pointwise.weight)
            x = functional.relu(functional.batch_norm(x, None, None, training=True))
        found.append(x.mean((2, 3)) @ linear.weight.mT + linear.bias)  # type: ignore[union-attr,operator]
    return found


def test_there_is_a_light_branch_behind_every_stage() -> None:
    objective = build(student())
    assert objective.student_taps == ("stage1", "stage2", "stage3")
    assert [len(branch) - 3 for branch in objective.branches] == [2, 1, 1]  # type: ignore[arg-type]
    strides = [[layer[0].stride for layer in branch[:-3]] for branch in objective.branches]  # type: ignore[index]
    assert strides == [[(2, 2), (2, 2)], [(2, 2)], [(1, 1)]]
    weights = sum(weight.numel() for weight in objective.parameters())
    assert weights < sum(weight.numel() for weight in student().parameters()) / 2


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("distillation", [0.0, 0.3])
def test_is_the_mean_of_the_labels_and_of_the_right_heads(
    gradient: Literal["rate", "bptt"], distillation: float
) -> None:
    network = student(gradient)
    objective = build(network, distillation=distillation, temperature=2.0)
    record = network.record(torch.randn(4, *SHAPE), objective.student_taps)
    logits = heads(objective, record)
    labels = torch.stack(logits)[0].argmax(1)  # the first head is right, and others are by chance
    entropy = sum(-z.log_softmax(1)[torch.arange(4), labels].mean().item() for z in logits) / 3
    soft = by_hand(torch.stack([*logits, record.logits]).detach(), labels, 2.0)
    loss = objective(record, None, labels)
    assert soft > 0
    assert loss.item() == pytest.approx(entropy + distillation * soft, rel=1e-4)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_gradients_reach_the_first_layer_the_output_and_every_branch(gradient: Literal["rate", "bptt"]) -> None:
    network = student(gradient)
    objective = build(network)
    record = network.record(torch.randn(4, *SHAPE), objective.student_taps)
    objective(record, None, heads(objective, record)[0].argmax(1)).backward()
    for name in ("stage1.0", "stage3.0", "head.2"):
        assert float(network.body.get_submodule(name).weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in objective.parameters())


def test_a_batch_in_which_no_head_is_right_adds_the_labels_alone() -> None:
    network = student()
    objective, plain = build(network, distillation=0.3), build(network, distillation=0.0)
    plain.load_state_dict(objective.state_dict())
    record = network.record(torch.randn(4, *SHAPE), objective.student_taps)
    predictions = torch.stack([*heads(objective, record), record.logits]).argmax(-1)
    labels = torch.tensor([min(set(range(5)) - set(of_image.tolist())) for of_image in predictions.mT])
    loss = objective(record, None, labels)
    assert loss.isfinite()
    torch.testing.assert_close(loss, plain(record, None, labels))
    loss.backward()
    output = network.body.get_submodule("head.2").weight.grad  # type: ignore[union-attr]
    assert output is None or float(output.abs().sum()) == 0  # type: ignore[operator,arg-type]


def test_one_step_and_a_batch_of_one_are_finite() -> None:
    network = student()
    objective = build(network)
    loss = objective(network.record(torch.randn(1, *SHAPE), objective.student_taps, 1), None, LABELS[:1])
    loss.backward()
    assert loss.isfinite()


def test_points_can_be_named() -> None:
    assert build(student(), points=["stage1.2", "stage3"]).student_taps == ("stage1.2", "stage3")
    assert build(student(), points="stage2").student_taps == ("stage2",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": ["stage4"]}, "unknown point of the student 'stage4': did you mean 'stage"),
        ({"points": ["head.1"]}, r"branches: the student's feature at 'head.1' is no map \(C, H, W\)"),
        ({"points": []}, "branches: points is empty"),
        ({"points": {"stage1": "stage1"}}, "branches: points must be a list of the student's points"),
        ({"distillation": -1.0}, "branches: distillation must be 0 or more, and finite, not -1.0"),
        ({"temperature": 0.0}, "branches: temperature must be positive and finite, not 0.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(student(), **options)


def test_a_network_without_stages_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.raises(InputError, match="branches: found no stages to branch at; name the points"):
        build(to_spiking(flat, input_shape=SHAPE))
