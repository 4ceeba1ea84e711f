"""Distillation of output spikes (methods, section 9; Kushawaha et al. 2020), as a function.

It is no objective of a recipe yet: its teacher is a spiking network, and the guidance of a training runs an ANN, which
leaves no time steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikestill.types import InputError

__all__ = ["windowed_distance"]


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
