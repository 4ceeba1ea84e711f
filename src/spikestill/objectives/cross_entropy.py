"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from spikestill.objectives.objective import Objective
from spikestill.types import InputError, Record

__all__ = ["CrossEntropy"]


class CrossEntropy(Objective):
    """The cross-entropy of the mean logits with the labels.

    Args:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
    """

    name: ClassVar[str] = "cross-entropy"
    needs_teacher: ClassVar[bool] = False

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"cross-entropy: label_smoothing must lie in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        return functional.cross_entropy(student.logits.float(), labels, label_smoothing=self.label_smoothing)
