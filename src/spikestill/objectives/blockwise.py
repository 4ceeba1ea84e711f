"""Hybrid block-wise replacement (Yang et al., CVPR 2025; methods, section 7)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikestill.graph import SpikingNetwork, cut, cut_points, stages
from spikestill.objectives.logits import checked_temperature, distillation
from spikestill.objectives.objective import Objective
from spikestill.objectives.points import named_pairs, nearest_in_depth
from spikestill.types import InputError, Record, unknown_name

__all__ = ["Blockwise", "Mapping1x1"]

_log = logging.getLogger("spikestill.objectives")


class Blockwise(Objective):
    """The student's first blocks, on top of them the teacher's remaining ones: ``mean_k [CE(y_k) + a KD(y_A, y_k)]``.

    For every point k, the student's firing rates there are mapped to the teacher's feature (:class:`Mapping1x1`) and
    go through the rest of the teacher, once, without a factor T. Gradients reach the student's first k blocks through
    that rest.

    Args:
        branches: for every point k, the student's point, the mapping, and the teacher's rest behind its own point.
        distillation_weight: a, the weight of the distillation beside the cross-entropy in every branch.
        temperature: of the distillation.
        curriculum: the share of the training over which the branches join one by one, front to back; 0 has all of them
            from the start.
        tail: "frozen": the rests are the teacher's own, which stay as they are; "trained": they are copies, which are
            trained with the student and dropped afterwards.

    Raises:
        InputError: for options outside their range.
    """

    name: ClassVar[str] = "blockwise"

    def __init__(
        self,
        branches: Sequence[tuple[str, Mapping1x1, fx.GraphModule]],
        distillation_weight: float = 0.3,
        temperature: float = 3.0,
        curriculum: float = 0.0,
        tail: Literal["frozen", "trained"] = "frozen",
    ) -> None:
        super().__init__()
        if not 0 <= distillation_weight < float("inf"):
            raise InputError(f"blockwise: distillation must be 0 or more, and finite, not {distillation_weight}")
        if not 0 <= curriculum <= 1:
            raise InputError(f"blockwise: curriculum must lie in [0, 1], not {curriculum}")
        if tail not in ("frozen", "trained"):
            raise InputError(f"blockwise: tail must be 'frozen' or 'trained', not {tail!r}")
        self.student_taps = tuple(point for point, _, _ in branches)
        self.mappings = nn.ModuleList(mapping for _, mapping, _ in branches)
        rests = [rest for _, _, rest in branches]
        self.trained_tails = nn.ModuleList(rests if tail == "trained" else ())
        # Not submodules: the teacher stays frozen, in evaluation mode, and out of checkpoints.
        self._frozen_tails = tuple(rests if tail == "frozen" else ())
        self.distillation_weight, self.curriculum = distillation_weight, curriculum
        self.temperature = checked_temperature(self.name, temperature)

    @classmethod
    def build(  # type: ignore[override]
        cls,
        student: SpikingNetwork,
        teacher: fx.GraphModule | None,
        input_shape: tuple[int, ...],
        points: Sequence[str] | Mapping[str, str] | None = None,
        distillation: float = 0.3,
        temperature: float = 3.0,
        curriculum: float = 0.0,
        tail: Literal["frozen", "trained"] = "frozen",
    ) -> Self:
        """The branches of a pair of networks.

        Args:
            student: the spiking network.
            teacher: the traced teacher.
            input_shape: of one image.
            points: where to branch: names that both networks have, or the teacher's name for each of the student's; by
                default the ends of the main stages (``graph.stages``), paired in order; of the network that has more,
                those whose relative depths (shares of the neuron layers) come nearest to the other's.
            distillation: a, the weight of the distillation beside the cross-entropy in every branch.
            temperature: of the distillation.
            curriculum: the share of the training over which the branches join, front to back.
            tail: whether the teacher's rest stays "frozen", or a copy of it is "trained" with the student: one copy,
                whose blocks all branches share; its BatchNorm then takes the statistics of the batch.

        Raises:
            InputError: for a point that is none, for one at which the feature is no map ``[C, H, W]``, and for options
                outside their range.
        """
        assert teacher is not None
        whole = copy.deepcopy(teacher).requires_grad_() if tail == "trained" else teacher
        pairs = _pairs(student.body, teacher, points)
        shapes = _shapes_of_points(student.body, "student"), _shapes_of_points(teacher, "teacher")
        branches = []
        for own, other in pairs:
            here, there = (_shape_at(name, known, who) for name, (known, who) in zip((own, other), shapes, strict=True))
            branches.append((own, Mapping1x1(here, there), cut(whole, other)[1]))
        return cls(branches, distillation, temperature, curriculum, tail)

    @property
    def tails(self) -> tuple[fx.GraphModule, ...]:
        """For every point, the rest of the teacher behind it."""
        return self._frozen_tails or tuple(cast(fx.GraphModule, tail) for tail in self.trained_tails)

    @property
    def active_branches(self) -> int:
        """How many branches, counted from the front, learn at this point of the training."""
        count = len(self.student_taps)
        return count if self.progress >= self.curriculum else 1 + int(count * self.progress / self.curriculum)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        losses = []
        branches = list(zip(self.student_taps, self.mappings, self.tails, strict=True))
        for point, mapping, tail in branches[: self.active_branches]:
            logits = tail(mapping(student.features[point])).float()
            loss = functional.cross_entropy(logits, labels)
            losses.append(loss + self.distillation_weight * distillation(teacher.logits, logits, self.temperature))
        return torch.stack(losses).mean()


class Mapping1x1(nn.Module):
    """The mapping of a rate feature to the teacher's: 1x1 convolution, BatchNorm, ReLU; resized where sizes differ.

    That it has this form is a reading of the paper, which says "learnable module". Where the widths agree, it starts as
    the identity before its BatchNorm (ours).

    Args:
        student: shape ``(C, H, W)`` of the rate feature.
        teacher: shape of the teacher's feature, which has passed a ReLU.
    """

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.size = tuple(teacher[1:]) if teacher[1:] != student[1:] else None
        self.convolution = nn.Conv2d(student[0], teacher[0], 1, bias=False)
        self.normalisation = nn.BatchNorm2d(teacher[0])
        if student[0] == teacher[0]:
            nn.init.dirac_(self.convolution.weight)

    def forward(self, rate: Tensor) -> Tensor:
        """The rate feature ``[B, C, H, W]`` as the teacher's ``[B, C', H', W']``."""
        mapped = self.convolution(rate)
        if self.size is not None:
            mapped = functional.interpolate(mapped, size=self.size, mode="bilinear", align_corners=False)
        return torch.relu(self.normalisation(mapped))


def _pairs(
    student: fx.GraphModule, teacher: fx.GraphModule, points: Sequence[str] | Mapping[str, str] | None
) -> list[tuple[str, str]]:
    if points is not None:
        return named_pairs("blockwise", points)
    own, other = stages(student), stages(teacher)
    if not own or not other:
        raise InputError("blockwise: found no stages to branch at; name the points")
    if len(own) > len(other):
        own = list(nearest_in_depth(other, own))
    else:
        other = list(nearest_in_depth(own, other))
    pairs = [(here.name, there.name) for here, there in zip(own, other, strict=True)]
    if any(here != there for here, there in pairs):
        _log.info(
            "blockwise: student and teacher are paired by depth, "
            + ", ".join(
                f"{here.name} ({here.depth:.0%}) with {there.name} ({there.depth:.0%})"
                for here, there in zip(own, other, strict=True)
            )
            + "; name other points with the objective's option points"
        )
    return pairs


def _shapes_of_points(traced: fx.GraphModule, who: str) -> tuple[dict[str, tuple[int, ...]], str]:
    return {name: point.shape for point in cut_points(traced) for name in point.names}, who


def _shape_at(name: str, known: dict[str, tuple[int, ...]], who: str) -> tuple[int, ...]:
    if name not in known:
        raise unknown_name(f"point of the {who}", name, known)
    if len(known[name]) != 3:
        raise InputError(f"blockwise: the {who}'s feature at '{name}' is no map (C, H, W)")
    return known[name]
