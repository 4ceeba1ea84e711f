from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikestill import models
from spikestill.graph import SpikingNetwork, record, to_spiking, trace
from spikestill.nn import LIF
from spikestill.objectives import Blockwise, create
from spikestill.objectives.blockwise import Mapping1x1
from spikestill.types import InputError, Record

SHAPE = (3, 8, 8)
LABELS = torch.tensor([0, 3, 1, 4])


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU())


class Staged(nn.Module):
    def __init__(self, width: int, size: int = 8) -> None:
        super().__init__()
        self.stage1, self.stage2 = stage(3, width, 8 // size), stage(width, 2 * width, 2)
        self.stage3 = stage(2 * width, 2 * width, 2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage3(self.stage2(self.stage1(x))))


def pair(width: int = 4, size: int = 8) -> tuple[SpikingNetwork, fx.GraphModule]:
    """A student, and a teacher as ``train`` hands it over: traced, frozen, in evaluation mode."""
    student = to_spiking(Staged(width, size), neuron=LIF(threshold=0.1), timesteps=3, input_shape=SHAPE)
    return student, trace(Staged(4), SHAPE).eval().requires_grad_(False)


def records(student: SpikingNetwork, teacher: fx.GraphModule, objective: Blockwise) -> tuple[Record, Record]:
    images = torch.randn(4, *SHAPE)
    return student.record(images, objective.student_taps), record(teacher, images)


def test_branches_at_the_ends_of_the_stages() -> None:
    student, teacher = pair()
    objective = create("blockwise", student=student, teacher=teacher, input_shape=SHAPE)
    assert isinstance(objective, Blockwise)
    assert objective.student_taps == ("stage1", "stage2", "stage3")
    assert objective.teacher_taps == ()


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_is_the_mean_over_branches_of_both_losses(weight: float) -> None:
    """Every branch by hand: the mapping's layers on the rate, then the teacher's own modules behind its point."""
    student, teacher = pair()
    objective = Blockwise.build(student, teacher, SHAPE, distillation=weight, temperature=2.0)
    ours, theirs = records(student, teacher, objective)
    own = Staged(4).eval()
    own.load_state_dict(teacher.state_dict())
    expected = []
    for index, point in enumerate(objective.student_taps):
        mapping = objective.mappings[index]
        x = mapping.convolution(ours.features[point])  # type: ignore[operator,union-attr]
        x = functional.relu(functional.batch_norm(x, None, None, training=True))
        for name in ("stage1", "stage2", "stage3", "head")[index + 1 :]:
            for layer in own.get_submodule(name).children():
                x = layer(x)
        target, given = (theirs.logits / 2).log_softmax(1), (x / 2).log_softmax(1)
        divergence = 4 * (target.exp() * (target - given)).sum(1).mean()
        expected.append(-x.log_softmax(1)[torch.arange(4), LABELS].mean() + weight * divergence)
    torch.testing.assert_close(objective(ours, theirs, LABELS), torch.stack(expected).mean())


def test_equal_widths_start_at_the_identity_and_keep_it_a_normalisation() -> None:
    mapping = Mapping1x1((4, 8, 8), (4, 8, 8)).eval()
    rate = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(mapping(rate), rate / (1 + 1e-5) ** 0.5)
    assert (mapping(rate - 0.5) >= 0).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_gradient_reaches_exactly_the_blocks_before_the_point(count: int) -> None:
    student, teacher = pair()
    objective = Blockwise.build(student, teacher, SHAPE, points=[f"stage{count}"])
    objective(*records(student, teacher, objective), LABELS).backward()
    reached = {
        name.split(".")[1]
        for name, parameter in student.named_parameters()
        if parameter.grad is not None and float(parameter.grad.abs().sum()) > 0
    }
    assert reached == {f"stage{k}" for k in range(1, count + 1)}
    weight = objective.mappings[0].convolution.weight  # type: ignore[union-attr]
    assert float(weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]


def test_the_gradient_is_that_of_the_network_through_time_too() -> None:
    student, teacher = pair()
    student.gradient = "bptt"
    objective = Blockwise.build(student, teacher, SHAPE, points=["stage2"])
    objective(*records(student, teacher, objective), LABELS).backward()
    assert float(student.body.get_submodule("stage1.0").weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]


def test_the_teacher_stays_frozen_in_evaluation_mode_and_out_of_the_state() -> None:
    student, teacher = pair()
    before = copy.deepcopy(teacher.state_dict())
    objective = Blockwise.build(student, teacher, SHAPE)
    objective.train()
    loss = objective(*records(student, teacher, objective), LABELS)
    loss.backward()
    optimiser = torch.optim.SGD([*student.parameters(), *objective.parameters()], 0.1)
    optimiser.step()
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(name.startswith("mappings.") for name in objective.state_dict())
    assert {id(item) for item in objective.parameters()}.isdisjoint(id(item) for item in teacher.parameters())


@pytest.mark.parametrize(("width", "size"), [(6, 8), (4, 4), (3, 4)])
def test_other_widths_and_sizes_are_mapped_to_the_teachers(width: int, size: int) -> None:
    student, teacher = pair(width, size)
    points = {"stage1": "stage1", "stage2": "stage2"}
    objective = Blockwise.build(student, teacher, SHAPE, points=points)
    ours, theirs = records(student, teacher, objective)
    shapes = [
        tuple(mapping(ours.features[name]).shape[1:]) for name, mapping in zip(points, objective.mappings, strict=True)
    ]
    assert shapes == [(4, 8, 8), (8, 4, 4)]
    objective(ours, theirs, LABELS).backward()
    assert float(student.body.get_submodule("stage1.0").weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]


def test_points_of_networks_with_other_numbers_of_stages_are_paired_by_depth() -> None:
    _, teacher = pair()
    shallow = nn.Sequential(stage(3, 4, 2), nn.Flatten(), nn.Linear(64, 5))
    student = to_spiking(shallow, input_shape=SHAPE)
    objective = Blockwise.build(student, teacher, SHAPE)
    assert objective.student_taps == ("0",)
    assert objective.mappings[0](torch.rand(4, 4, 4, 4)).shape == (4, 8, 2, 2)


def test_points_may_have_other_names_in_the_teacher() -> None:
    student, teacher = pair()
    objective = Blockwise.build(student, teacher, SHAPE, points={"stage1.2": "stage1", "stage3": "stage3.4"})
    assert objective.student_taps == ("stage1.2", "stage3")
    assert torch.isfinite(objective(*records(student, teacher, objective), LABELS))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["stage4"], "unknown point of the student 'stage4': did you mean 'stage"),
        ({"stage1": "stag1"}, "unknown point of the teacher 'stag1': did you mean 'stage1'?"),
        (["head.1"], "the student's feature at 'head.1' is no map"),
        ([], "points is empty"),
    ],
)
def test_points_that_do_not_fit_are_refused(points: object, message: str) -> None:
    student, teacher = pair()
    with pytest.raises(InputError, match=message):
        Blockwise.build(student, teacher, SHAPE, points=points)  # type: ignore[arg-type]


def test_networks_without_stages_are_refused() -> None:
    _, teacher = pair()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.raises(InputError, match="found no stages to branch at; name the points"):
        Blockwise.build(to_spiking(flat, input_shape=SHAPE), teacher, SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation": -1.0}, "blockwise: distillation must be 0 or more, and finite, not -1.0"),
        ({"temperature": 0.0}, "blockwise: temperature must be positive and finite, not 0.0"),
        ({"curriculum": 2.0}, r"blockwise: curriculum must lie in \[0, 1\], not 2.0"),
        ({"tail": "thawed"}, "blockwise: tail must be 'frozen' or 'trained', not 'thawed'"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Blockwise.build(*pair(), SHAPE, **options)


def test_the_default_weights_are_those_that_help() -> None:
    objective = Blockwise.build(*pair(), SHAPE)
    assert (objective.distillation_weight, objective.temperature) == (0.3, 3.0)


def test_a_trained_tail_starts_as_the_teachers_and_learns_while_the_teacher_stays() -> None:
    student, teacher = pair()
    before = copy.deepcopy(teacher.state_dict())
    frozen, trained = (Blockwise.build(student, teacher, SHAPE, tail=tail) for tail in ("frozen", "trained"))
    assert not list(frozen.trained_tails.parameters())
    trained.mappings.load_state_dict(frozen.mappings.state_dict())
    ours, theirs = records(student, teacher, frozen)
    trained.mappings.train()  # the tails are in evaluation mode still, as the teacher is
    torch.testing.assert_close(trained(ours, theirs, LABELS), frozen(ours, theirs, LABELS))
    trained.train()
    optimiser = torch.optim.SGD(trained.parameters(), 0.1)
    loss = trained(ours, theirs, LABELS)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trained.parameters())
    assert float(student.body.get_submodule("stage1.0").weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]
    optimiser.step()
    assert trained(ours, theirs, LABELS) < loss
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_trained_tails_share_one_copy_of_the_blocks_behind_the_first_point() -> None:
    student, teacher = pair()
    objective = Blockwise.build(student, teacher, SHAPE, tail="trained")
    first, second, third = objective.tails
    assert first.get_submodule("head.2") is third.get_submodule("head.2")
    assert first.get_submodule("stage3.0") is second.get_submodule("stage3.0")
    behind = [weight for name, weight in teacher.named_parameters() if not name.startswith("stage1")]
    assert len(list(objective.trained_tails.parameters())) == len(behind)
    assert {id(weight) for weight in objective.parameters()}.isdisjoint(id(weight) for weight in teacher.parameters())
    again = Blockwise.build(student, teacher, SHAPE, tail="trained")
    again.load_state_dict(objective.state_dict())


def test_with_a_curriculum_the_branches_join_from_the_front_over_its_share_of_the_training() -> None:
    student, teacher = pair()
    objective = Blockwise.build(student, teacher, SHAPE, curriculum=0.6)
    joined = []
    for progress in (0.0, 0.19, 0.21, 0.41, 0.6, 1.0):
        objective.progress = progress
        joined.append(objective.active_branches)
    assert joined == [1, 1, 2, 3, 3, 3]
    objective.progress = 0.0
    objective(*records(student, teacher, objective), LABELS).backward()
    reached = {name.split(".")[1] for name, weight in student.named_parameters() if weight.grad is not None}
    assert reached == {"stage1"}


def test_without_a_curriculum_all_branches_learn_from_the_start() -> None:
    objective = Blockwise.build(*pair(), SHAPE)
    objective.progress = 0.0
    assert objective.active_branches == 3


def test_a_network_in_functional_style_is_branched_at_its_calls() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
            self.third, self.linear = nn.Conv2d(4, 4, 3, 2, 1), nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.second(functional.relu(self.first(x))))
            return self.linear(functional.relu(self.third(x)).flatten(1))

    ann = Functional()
    student = to_spiking(ann, neuron=LIF(threshold=0.1), input_shape=SHAPE)
    teacher = trace(ann, SHAPE).eval().requires_grad_(False)
    objective = Blockwise.build(student, teacher, SHAPE)
    assert objective.student_taps == ("relu_2", "relu_3")
    objective(*records(student, teacher, objective), LABELS).backward()
    assert student.body.get_submodule("first").weight.grad.abs().sum() > 0


def families() -> tuple[SpikingNetwork, fx.GraphModule]:
    """A VGG as the student of torchvision's ResNet, which halves its maps twice before its first stage."""
    shape = (3, 32, 32)
    vgg = models.create("vgg11", width=0.125, num_classes=5)
    resnet = models.create("torchvision:resnet18", num_classes=5)
    student = to_spiking(vgg, neuron=LIF(threshold=0.1), timesteps=2, input_shape=shape)
    return student, trace(resnet, shape).eval().requires_grad_(False)


def test_families_are_paired_by_relative_depth_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """VGG-11 ends its stages after 1, 2, 4, 6 and 8 of 10 activations, the ResNet after 5, 9 and 13 of 17."""
    student, teacher = families()
    with caplog.at_level(logging.INFO, "spikestill"):
        objective = Blockwise.build(student, teacher, (3, 32, 32))
    (said,) = caplog.messages
    assert "layer2 (20%) with layer1 (29%), layer4 (60%) with layer2 (53%), layer5 (80%) with layer3 (76%)" in said
    assert objective.student_taps == ("layer2", "layer4", "layer5")
    images = torch.randn(4, 3, 32, 32)
    ours, theirs = student.record(images, objective.student_taps), record(teacher, images)
    shapes = [
        (tuple(ours.features[point].shape[1:]), tuple(mapping(ours.features[point]).shape[1:]))
        for point, mapping in zip(objective.student_taps, objective.mappings, strict=True)
    ]
    assert shapes == [((16, 16, 16), (64, 8, 8)), ((64, 4, 4), (128, 4, 4)), ((64, 2, 2), (256, 2, 2))]
    objective(ours, theirs, LABELS).backward()
    weight = student.body.get_submodule("layer1.conv1").weight
    assert float(weight.grad.abs().sum()) > 0  # type: ignore[union-attr,operator]


def test_named_pairs_of_two_families_may_differ_in_space(caplog: pytest.LogCaptureFixture) -> None:
    student, teacher = families()
    with caplog.at_level(logging.INFO, "spikestill"):
        objective = Blockwise.build(student, teacher, (3, 32, 32), points={"layer1": "layer1", "layer5": "layer2.0"})
    assert not caplog.messages
    images = torch.randn(4, 3, 32, 32)
    ours = student.record(images, objective.student_taps)
    mapped = [mapping(ours.features[p]).shape[1:] for p, mapping in zip(objective.student_taps, objective.mappings)]  # noqa: B905
    assert [tuple(ours.features[point].shape[2:]) for point in objective.student_taps] == [(32, 32), (2, 2)]
    assert mapped == [(64, 8, 8), (128, 4, 4)]
    assert torch.isfinite(objective(ours, record(teacher, images), LABELS))


def test_networks_of_one_family_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "spikestill"):
        Blockwise.build(*pair(), SHAPE)
    assert not caplog.messages
