"""Distillation of output spikes (methods, section 9; Kushawaha et al. 2020)."""

from __future__ import annotations

from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from spikestill.graph import SpikingNetwork
from spikestill.nn import IF
from spikestill.objectives.objective import Guide, Objective
from spikestill.types import InputError, Record

__all__ = ["Spikes", "windowed_distance"]


class Spikes(Objective):
    """The distance of the output spikes from those of a spiking teacher, window by window.

    Our read-outs do not spike: here they drive one more layer of neurons, without leak and with soft reset, and its
    spikes are compared (ours). Under rate gradients no gradient reaches a single step: the student's output neurons are
    then driven by the mean of its read-outs at every step, and the one window is all T. A student that runs fewer steps
    than its teacher (train_timesteps: anytime) is compared over these, in windows that are no longer than they.

    Args:
        window: length of a window in time steps, from 1 to T.
        threshold: of the output neurons, in the unit of the logits.
    """

    name: ClassVar[str] = "spikes"
    teachers: ClassVar[tuple[str, ...]] = ("snn",)

    def __init__(self, window: int = 5, threshold: float = 1.0) -> None:
        super().__init__()
        self.window, self.threshold, self.output = window, threshold, IF(1.0)

    @classmethod
    def build(  # type: ignore[override]
        cls,
        student: SpikingNetwork,
        teacher: Guide | None,
        input_shape: tuple[int, ...],
        window: int = 5,
        threshold: float = 1.0,
    ) -> Self:
        """The objective for a pair of spiking networks.

        Args:
            student: the spiking network.
            teacher: of as many time steps.
            input_shape: not used.
            window: as above.
            threshold: as above.

        Raises:
            InputError: for other numbers of time steps, and options outside their range.
        """
        assert isinstance(teacher, SpikingNetwork)
        if teacher.timesteps != student.timesteps:
            raise InputError(
                f"objective spikes needs a teacher of as many time steps as the student, {student.timesteps}, "
                f"not {teacher.timesteps}"
            )
        if not 0 < threshold < float("inf"):
            raise InputError(f"objective spikes: threshold must be positive and finite, not {threshold}")
        if not 1 <= window <= student.timesteps:
            raise InputError(f"objective spikes: window must lie in 1 to {student.timesteps}, not {window}")
        return cls(window, threshold)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        assert teacher.steps is not None
        theirs = teacher.steps[: student.timesteps]
        if student.steps is None:
            read_outs, window = student.logits.expand_as(theirs), len(theirs)
        else:
            read_outs, window = student.steps, min(self.window, len(theirs))
        return windowed_distance(self._spikes(theirs), self._spikes(read_outs), window)

    def _spikes(self, read_outs: Tensor) -> Tensor:
        # In units of the threshold, so that the surrogate gradient is as wide as the threshold is high.
        return cast(Tensor, self.output(read_outs.float() / self.threshold))


def windowed_distance(teacher: Tensor, student: Tensor, window: int) -> Tensor:
    """``mean_w || sum_{t in w} (S_teacher - S_student) ||^2`` over the windows w that slide over time.

    A window forgives spikes that come early or late within it: a window of one step compares step by step, one of all T
    the spike counts. The mean over the batch is taken.

    Args:
        teacher: spikes of the output neurons ``[T, B, K]``; no gradient reaches them.
        student: the same of the student.
        window: length of a window in time steps, from 1 to T.

    Returns:
        A scalar, in float32 at least.

    Raises:
        InputError: for shapes that differ, and for a window outside its range.
    """
    if teacher.shape != student.shape:
        raise InputError(
            f"spikes of teacher and student must agree in time steps, batch and classes: "
            f"{tuple(teacher.shape)} and {tuple(student.shape)}"
        )
    if not 1 <= window <= len(student):
        raise InputError(f"window must lie in 1 to {len(student)}, the number of time steps, not {window}")
    dtype = torch.promote_types(student.dtype, torch.float32)
    difference = teacher.detach().to(dtype) - student.to(dtype)
    return difference.unfold(0, window, 1).sum(-1).square().sum(-1).mean()
