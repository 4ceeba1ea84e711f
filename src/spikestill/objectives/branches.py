"""Self-distillation with light ANN branches (methods, section 4): no teacher is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikestill.graph import SpikingNetwork, named_points, output_shape, stage_points
from spikestill.objectives.logits import checked_temperature
from spikestill.objectives.objective import Guide, Objective
from spikestill.objectives.own_ensemble import distil_correct
from spikestill.objectives.points import named_pairs, point_named
from spikestill.types import InputError, Record

__all__ = ["Branches", "light_branch"]


class Branches(Objective):
    """Heads of the firing rates at several depths that learn the labels and from each other (Zhao et al. 2025, ESD).

    ``mean_k CE(z_k, y) + a * mean_h KD(m, z_h)``: k runs over the branches, h over the branches and the student's own
    output, and m is the detached mean of the heads that are right for an image
    (:func:`~spikestill.objectives.own_ensemble.distil_correct`). An image that no head gets right adds 0 to the second
    term. The student's own cross-entropy is the objective ``cross-entropy``.

    Args:
        branches: by the student's point, the branch on its firing rates; trained with the student, dropped afterwards.
        distillation: a, the weight of the second term.
        temperature: of the distillation; positive.

    Raises:
        InputError: for options outside their range.
    """

    name: ClassVar[str] = "branches"
    needs_teacher: ClassVar[bool] = False

    def __init__(self, branches: Mapping[str, nn.Module], distillation: float = 0.3, temperature: float = 3.0) -> None:
        super().__init__()
        if not 0 <= distillation < float("inf"):
            raise InputError(f"branches: distillation must be 0 or more, and finite, not {distillation}")
        self.student_taps = tuple(branches)
        self.branches = nn.ModuleList(branches.values())
        self.distillation, self.temperature = distillation, checked_temperature(self.name, temperature)

    @classmethod
    def build(  # type: ignore[override]
        cls,
        student: SpikingNetwork,
        teacher: Guide | None,
        input_shape: tuple[int, ...],
        points: Sequence[str] | None = None,
        distillation: float = 0.3,
        temperature: float = 3.0,
    ) -> Self:
        """The branches of a student.

        Args:
            student: the spiking network.
            teacher: not used.
            input_shape: not used.
            points: where to branch, front to back; by default the ends of the main stages (``graph.stages``).
            distillation: as above.
            temperature: as above.

        Raises:
            InputError: for a point that is none, for one at which the feature is no map ``[C, H, W]``, and for options
                outside their range.
        """
        shapes = _shapes(student.body, points)
        (classes,) = output_shape(student.body)
        after = list(shapes.values())
        branches = {name: light_branch(after[index:], classes) for index, name in enumerate(shapes)}
        return cls(branches, distillation, temperature)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        heads = [
            branch(student.features[point]).float()
            for point, branch in zip(self.student_taps, self.branches, strict=True)
        ]
        loss = torch.stack([functional.cross_entropy(logits, labels) for logits in heads]).mean()
        if not self.distillation:
            return loss
        heads.append(student.logits.float())
        return loss + self.distillation * distil_correct(torch.stack(heads), labels, self.temperature)


def light_branch(shapes: Sequence[tuple[int, ...]], classes: int) -> nn.Sequential:
    """From a rate feature to logits: for each later stage one separable convolution, then average and linear layer.

    A separable convolution (3x3 by channel, 1x1, BatchNorm, ReLU) brings width and size to the next stage's; behind the
    last stage one keeps both. That it has this form is a reading: ESD's code has two of them and a shortcut a stage.

    Args:
        shapes: ``(C, H, W)`` of the feature, and of those of all later points.
        classes: K.
    """
    steps = list(pairwise(shapes)) or [(shapes[0], shapes[0])]
    convolutions = [_separable(here, there) for here, there in steps]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(steps[-1][1][0], classes))


def _separable(here: tuple[int, ...], there: tuple[int, ...]) -> nn.Sequential:
    down, across = (max(1, round(before / after)) for before, after in zip(here[1:], there[1:], strict=True))
    return nn.Sequential(
        nn.Conv2d(here[0], here[0], 3, (down, across), 1, groups=here[0], bias=False),
        nn.Conv2d(here[0], there[0], 1, bias=False),
        nn.BatchNorm2d(there[0]),
        nn.ReLU(),
    )


def _shapes(body: fx.GraphModule, points: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The shape of the feature at every point, front to back."""
    if isinstance(points, Mapping):
        raise InputError("branches: points must be a list of the student's points")
    found = stage_points(body) if points is None else [own for own, _ in named_pairs(Branches.name, points)]
    if not found:
        raise InputError("branches: found no stages to branch at; name the points")
    known = named_points(body)
    return {name: point_named(name, known, "student", Branches.name).shape for name in found}
