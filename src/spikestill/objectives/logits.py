"""Distillation of logits (methods, section 5)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from spikestill.objectives.objective import Objective
from spikestill.types import InputError, Record

__all__ = ["Logits", "distillation"]


class Logits(Objective):
    """``temperature^2 * KL(softmax(teacher / temperature) || softmax(student / temperature))``, the batch's mean.

    Args:
        temperature: softens both distributions; positive.
        each_step: compare every time step's logits with the teacher's, not their mean (needs gradient "bptt").
    """

    name: ClassVar[str] = "logits"
    teachers: ClassVar[tuple[str, ...]] = ("ann", "snn")

    def __init__(self, temperature: float = 4.0, each_step: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"logits: temperature must be positive, not {temperature}")
        self.temperature, self.each_step = temperature, each_step

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        if not self.each_step:
            return distillation(teacher.logits, student.logits, self.temperature)
        if student.steps is None:
            raise InputError("logits: each_step needs --gradient bptt: under rate gradients none reaches a single step")
        return distillation(teacher.logits.expand_as(student.steps), student.steps, self.temperature)


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The loss for logits ``[..., K]``; no gradient reaches the teacher's."""
    target = functional.log_softmax(teacher.detach().float() / temperature, dim=-1).flatten(0, -2)
    given = functional.log_softmax(student.float() / temperature, dim=-1).flatten(0, -2)
    return temperature**2 * functional.kl_div(given, target, reduction="batchmean", log_target=True)
