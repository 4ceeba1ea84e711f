"""Distillation of logits (methods, section 5)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from spikestill.objectives.objective import Objective
from spikestill.types import InputError, Record

__all__ = ["Logits", "checked_temperature", "distillation"]


class Logits(Objective):
    """``temperature^2 * KL(softmax(teacher / temperature) || softmax(student / temperature))``, the batch's mean.

    Args:
        temperature: softens both distributions; positive.
        each_step: compare every time step's logits with the teacher's, not their mean (needs gradient "bptt").
    """

    name: ClassVar[str] = "logits"
    teachers: ClassVar[tuple[str, ...]] = ("ann", "snn")

    def __init__(self, temperature: float = 3.0, each_step: bool = False) -> None:
        super().__init__()
        self.temperature, self.each_step = checked_temperature(self.name, temperature), each_step

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        if not self.each_step:
            return distillation(teacher.logits, student.logits, self.temperature)
        steps = self.steps_of(student)
        return distillation(teacher.logits.expand_as(steps), steps, self.temperature)


def checked_temperature(objective: str, temperature: float) -> float:
    """``temperature``, if it is one.

    Raises:
        InputError: if it is not positive and finite.
    """
    if not 0 < temperature < float("inf"):
        raise InputError(f"{objective}: temperature must be positive and finite, not {temperature}")
    return temperature


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The loss for logits ``[..., K]``; no gradient reaches the teacher's."""
    target = functional.log_softmax(teacher.detach().float() / temperature, dim=-1).flatten(0, -2)
    given = functional.log_softmax(student.float() / temperature, dim=-1).flatten(0, -2)
    return temperature**2 * functional.kl_div(given, target, reduction="batchmean", log_target=True)
