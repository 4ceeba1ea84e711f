"""Gradient attention (methods, section 9): LaSNN's second scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from spikestill.graph import SpikingNetwork, named_points
from spikestill.objectives.maps import checked_resize, distance, in_full, resized, unit
from spikestill.objectives.objective import Objective
from spikestill.objectives.points import map_pairs
from spikestill.types import InputError, Record

__all__ = ["GradientAttention", "expected_spike_activation_map", "spike_activation_map"]


class GradientAttention(Objective):
    """``sum_pairs || G_teacher - G_student ||_2`` of maps of unit length (LaSNN, eq. 10-13).

    The teacher's map is the mean over channels of ``|dCE/dA|``, the student's the mean over time of its spike
    activation map (:func:`spike_activation_map`). Readings: the teacher's gradient is taken per layer, of each image's
    own cross-entropy; both maps are divided by their L2 norms, as their units differ.

    Through time the student's gradient runs through every spike. Under rate gradients there is none at a single step;
    the student's map is then the one expected of independent spikes at its rates
    (:func:`expected_spike_activation_map`; a reading of ours). Its factor drops out with the length, so that the map is
    that of activation attention, compared with where the teacher's loss is sensitive.

    Args:
        pairs: the student's points, and the teacher's point that each is compared with.
        timesteps: T of the student, at least 2: a first spike has none before it.
        resize: how the teacher's map comes to the student's size, "pool" (adaptive average) or "bilinear".
    """

    name: ClassVar[str] = "gradient-attention"
    min_timesteps: ClassVar[int] = 2

    def __init__(self, pairs: Sequence[tuple[str, str]], timesteps: int, resize: str = "pool") -> None:
        super().__init__()
        if timesteps < self.min_timesteps:
            raise InputError(f"{self.name} needs at least 2 time steps: it weighs spikes by those before them")
        self.pairs, self.timesteps, self.resize = tuple(pairs), timesteps, checked_resize(self.name, resize)
        self.student_taps, self.teacher_gradients = (tuple(names) for names in zip(*pairs, strict=True))

    @classmethod
    def build(  # type: ignore[override]
        cls,
        student: SpikingNetwork,
        teacher: fx.GraphModule | None,
        input_shape: tuple[int, ...],
        points: Sequence[str] | Mapping[str, str] | None = None,
        resize: str = "pool",
    ) -> Self:
        """The objective for a pair of networks.

        Args:
            student: the spiking network.
            teacher: the traced teacher.
            input_shape: of one image.
            points: where to compare: names that both networks have, or the teacher's name for each of the student's; by
                default three levels, low, middle and high (:func:`~spikestill.objectives.points.map_pairs`).
            resize: how the teacher's map comes to the student's size, "pool" or "bilinear".

        Raises:
            InputError: for a point that is none or holds no map ``[C, H, W]``, for a point of the student that is no
                neuron layer, for a student of one time step, and for an unknown ``resize``.
        """
        assert teacher is not None
        pairs = map_pairs(cls.name, student.body, teacher, points)
        known = named_points(student.body)
        for own, _ in pairs:
            if not known[own].is_activation:
                raise InputError(f"{cls.name}: the student's '{own}' is no neuron layer, and has no spikes to weigh")
        return cls(pairs, student.timesteps, resize)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        losses = []
        for own, other in self.pairs:
            if own in student.spikes:
                here = spike_activation_map(student.spikes[own])
            else:
                here = expected_spike_activation_map(student.features[own], self.timesteps)
            there = in_full(teacher.gradients[other].detach()).abs().mean(1)
            there = resized(there, (here.shape[1], here.shape[2]), self.resize)
            losses.append(distance(unit(there), unit(here)))
        return torch.stack(losses).sum()


def spike_activation_map(spikes: Tensor) -> Tensor:
    """The mean over time of ``M_t = sum_C s_t sum_{t' < t} e^-(t - t') s_t'`` (LaSNN, eq. 11), in one pass.

    The inner sum is the trace ``a_t = e^-1 (a_{t-1} + s_{t-1})``, so the cost is linear in T. It is differentiable
    through every spike.

    Args:
        spikes: ``[T, B, C, H, W]``.

    Returns:
        ``[B, H, W]``, in float32 at least.
    """
    trace: Tensor | None = None
    total = in_full(spikes.new_zeros(())).expand(spikes.shape[1], *spikes.shape[3:])
    for now in in_full(spikes):
        if trace is not None:
            total = total + (trace * now).sum(1)
        trace = math.exp(-1) * (now if trace is None else trace + now)
    return total / len(spikes)


def expected_spike_activation_map(rate: Tensor, timesteps: int) -> Tensor:
    """What :func:`spike_activation_map` is on average for spikes that are drawn independently at the rates r.

    ``(1/T) sum_{k=1}^{T-1} (T - k) e^-k * sum_C r^2``: of the T steps, T - k have one k steps before them, and both of
    two independent spikes fall with probability r^2.

    Args:
        rate: ``[B, C, H, W]``.
        timesteps: T.

    Returns:
        ``[B, H, W]``, in float32 at least.
    """
    pairs = sum((timesteps - lag) * math.exp(-lag) for lag in range(1, timesteps))
    return pairs / timesteps * in_full(rate).square().sum(1)
