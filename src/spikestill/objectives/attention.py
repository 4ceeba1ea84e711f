"""Activation attention (methods, section 9): LaSNN's first scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from spikestill.graph import SpikingNetwork
from spikestill.objectives.maps import checked_resize, distance, in_full, resized, unit
from spikestill.objectives.objective import Objective
from spikestill.objectives.points import map_pairs
from spikestill.types import InputError, Record

__all__ = ["ActivationAttention", "activation_map"]


class ActivationAttention(Objective):
    """``sum_pairs || F(A_teacher) - F(A_student) ||_2``, F the mean over channels of ``|A|^2`` (LaSNN, eq. 5-8).

    Readings: the map is spatial, ``[H, W]``, as eq. 5 types it; the student's A is its firing rate; the norm is per
    sample, not squared, and the batch's mean is taken; the teacher's map is brought to the student's size.

    Args:
        pairs: the student's points, and the teacher's point that each is compared with.
        normalise: divide each map by its L2 norm first (attention transfer, Zagoruyko & Komodakis 2017).
        scalar: eq. 6 as printed: the mean over height and width as well, one number an image.
        resize: "pool" (adaptive average) or "bilinear".
    """

    name: ClassVar[str] = "activation-attention"

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        normalise: bool = False,
        scalar: bool = False,
        resize: str = "pool",
    ) -> None:
        super().__init__()
        if normalise and scalar:
            raise InputError(f"{self.name}: a scalar has no map to normalise; choose one of normalise and scalar")
        self.pairs = tuple(pairs)
        self.student_taps, self.teacher_taps = (tuple(names) for names in zip(*pairs, strict=True))
        self.normalise, self.scalar, self.resize = normalise, scalar, checked_resize(self.name, resize)

    @classmethod
    def build(  # type: ignore[override]
        cls,
        student: SpikingNetwork,
        teacher: fx.GraphModule | None,
        input_shape: tuple[int, ...],
        points: Sequence[str] | Mapping[str, str] | None = None,
        normalise: bool = False,
        scalar: bool = False,
        resize: str = "pool",
    ) -> Self:
        """The objective for a pair of networks.

        Args:
            student: the spiking network.
            teacher: the traced teacher.
            input_shape: of one image.
            points: where to compare: names that both networks have, or the teacher's name for each of the student's; by
                default three levels, low, middle and high (:func:`~spikestill.objectives.points.map_pairs`).
            normalise: divide each map by its L2 norm first.
            scalar: eq. 6 as printed, one number an image.
            resize: how the teacher's map comes to the student's size, "pool" or "bilinear".

        Raises:
            InputError: for a point that is none or holds no map ``[C, H, W]``, and for an option out of its range.
        """
        assert teacher is not None
        return cls(map_pairs(cls.name, student.body, teacher, points), normalise, scalar, resize)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        losses = []
        for own, other in self.pairs:
            here, there = activation_map(student.features[own]), activation_map(teacher.features[other].detach())
            if self.scalar:
                here, there = here.mean((1, 2), keepdim=True), there.mean((1, 2), keepdim=True)
            there = resized(there, (here.shape[1], here.shape[2]), self.resize)
            losses.append(distance(unit(there), unit(here)) if self.normalise else distance(there, here))
        return torch.stack(losses).sum()


def activation_map(feature: Tensor) -> Tensor:
    """``[B, H, W]``, the mean over channels of ``|A|^2``, of a feature ``[B, C, H, W]`` (LaSNN, eq. 6)."""
    return in_full(feature).square().mean(1)
