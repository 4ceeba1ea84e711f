"""SeAl-KD: distillation that is selective about classes and about time steps (methods, section 4)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from spikestill.objectives.logits import checked_temperature, distillation
from spikestill.objectives.objective import Objective
from spikestill.types import InputError, Record

__all__ = ["Selective", "align_wrong_classes", "temporal_target"]


class Selective(Objective):
    """Selective alignment (SeAl-KD, Sun et al. 2026): ``mean_t KD(z^A*, z_t*) + temporal * mean_t KD(m_t, z_t)``.

    The first term aligns every step with the teacher; at a step that is wrong, the wrong class and the true one are
    evened out first (:func:`align_wrong_classes`). The second aligns every step with the others, by their confidence
    and likeness (:func:`temporal_target`); it is 0 for one time step.

    Args:
        temperature: of both distillations; positive.
        temporal: the weight of the second term beside the first; 0 leaves it out.

    Raises:
        InputError: for options outside their range.
    """

    name: ClassVar[str] = "selective"
    teachers: ClassVar[tuple[str, ...]] = ("ann", "snn")
    reads_steps: ClassVar[bool] = True

    def __init__(self, temperature: float = 3.0, temporal: float = 0.25) -> None:
        super().__init__()
        if not 0 <= temporal < float("inf"):
            raise InputError(f"selective: temporal must be 0 or more, and finite, not {temporal}")
        self.temperature, self.temporal = checked_temperature(self.name, temperature), temporal

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        assert teacher is not None
        steps = self.steps_of(student)
        loss = distillation(*align_wrong_classes(teacher.logits.float(), steps, labels), self.temperature)
        if self.temporal and len(steps) > 1:
            loss = loss + self.temporal * distillation(temporal_target(steps), steps, self.temperature)
        return loss


def align_wrong_classes(teacher: Tensor, steps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the teacher and of every step, evened out where a step is wrong ("error-aware logit alignment").

    At a step that takes class w for the label y, the student's logit of w becomes that of y, and both of the teacher's
    become the smaller of the two: what is left to learn there is how the other classes stand to the true one.

    Args:
        teacher: ``[B, K]``.
        steps: ``[T, B, K]``.
        labels: ``[B]``.

    Returns:
        Both as ``[T, B, K]``, the teacher's first. No gradient reaches the teacher's.
    """
    teacher = teacher.detach().expand_as(steps)
    true = labels.expand(steps.shape[:2]).unsqueeze(-1)
    taken = steps.detach().argmax(-1, keepdim=True)
    # At a right step both are one class, and nothing changes.
    lower = torch.minimum(teacher.gather(-1, true), teacher.gather(-1, taken))
    return (
        teacher.scatter(-1, true, lower).scatter(-1, taken, lower),
        steps.scatter(-1, taken, steps.gather(-1, true)),
    )


def temporal_target(steps: Tensor) -> Tensor:
    """For every step the mean of the others' logits, by their confidence and likeness ("selective temporal alignment").

    ``m_t = sum_{u != t} w_tu z_u`` with ``w_tu = softmax_{u != t}(c_u cos(z_t, z_u))`` and the confidence
    ``c_u = 1 - H(softmax(z_u)) / log K``.

    Args:
        steps: logits ``[T, B, K]``, T and K at least 2.

    Returns:
        ``[T, B, K]``, detached.
    """
    known = steps.detach()
    with torch.autocast(known.device.type, enabled=False):  # products in bfloat16 would round the logits
        logarithms = functional.log_softmax(known, dim=-1)
        confidence = 1 + (logarithms.exp() * logarithms).sum(-1) / math.log(known.shape[-1])
        unit = functional.normalize(known, dim=-1)
        scores = confidence.unsqueeze(0) * torch.einsum("tbk,ubk->tub", unit, unit)
        own = torch.eye(len(known), dtype=torch.bool, device=known.device).unsqueeze(-1)
        weights = scores.masked_fill(own, -math.inf).softmax(dim=1)
        return torch.einsum("tub,ubk->tbk", weights, known)
