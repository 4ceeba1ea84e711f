"""Cross-entropy with the labels (methods, section 4)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from spikestill.objectives.objective import Objective
from spikestill.types import InputError, Record

__all__ = ["CrossEntropy"]


class CrossEntropy(Objective):
    """The cross-entropy of the logits with the labels.

    With ``each_step`` that of every time step's logits, the mean over the steps, and, if ``mse_weight`` is not 0, the
    regulariser of temporal efficient training: ``(1 - mse_weight) * mean_t CE(z_t, y) + mse_weight * mean_t
    MSE(z_t, mse_target)`` (Deng et al., ICLR 2022).

    Args:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        read_out: what the softmax is taken of: the mean of the read-outs over the time steps, or their sum, the
            accumulated potential of LaSNN's eq. 3 and 4, or this many times their mean: the sum over many steps of a
            converted network is far surer than its ANN. With each_step, a factor on every step's logits, or the mean.
        each_step: every time step learns the labels, not the mean over the steps (needs gradient "bptt").
        mse_weight: lambda, the weight of the regulariser, in [0, 1); needs each_step.
        mse_target: phi, the constant that the regulariser draws all logits to.

    Raises:
        InputError: for options outside their range.
    """

    name: ClassVar[str] = "cross-entropy"
    needs_teacher: ClassVar[bool] = False

    def __init__(
        self,
        label_smoothing: float = 0.0,
        read_out: Literal["mean", "sum"] | float = "mean",
        each_step: bool = False,
        mse_weight: float = 0.0,
        mse_target: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"cross-entropy: label_smoothing must lie in [0, 1), not {label_smoothing}")
        is_factor = isinstance(read_out, int | float) and not isinstance(read_out, bool)
        if not (0 < read_out < float("inf") if is_factor else read_out in ("mean", "sum")):  # type: ignore[operator]
            raise InputError(f"cross-entropy: read_out must be 'mean', 'sum' or a positive factor, not {read_out!r}")
        if each_step and read_out == "sum":
            raise InputError("cross-entropy: read_out: sum adds up the steps that each_step keeps apart: leave one out")
        if not 0 <= mse_weight < 1:
            raise InputError(f"cross-entropy: mse_weight must lie in [0, 1), not {mse_weight}")
        if mse_weight and not each_step:
            raise InputError("cross-entropy: mse_weight is for single steps: set each_step: true, or leave it out")
        if not abs(mse_target) < float("inf"):
            raise InputError(f"cross-entropy: mse_target must be finite, not {mse_target}")
        self.label_smoothing, self.read_out, self.each_step = label_smoothing, read_out, each_step
        self.mse_weight, self.mse_target = mse_weight, mse_target

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        factor = 1.0 if self.read_out == "mean" else student.timesteps if self.read_out == "sum" else self.read_out
        assert isinstance(factor, int | float)
        if not self.each_step:
            return self._entropy(student.logits.float() * factor, labels)
        steps = self.steps_of(student) * factor
        entropy = self._entropy(steps.flatten(0, 1), labels.repeat(len(steps)))
        if not self.mse_weight:
            return entropy
        error = (steps - self.mse_target).square().mean()
        return (1 - self.mse_weight) * entropy + self.mse_weight * error

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        entropy: Tensor = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return entropy
