"""Cross-entropy with the labels."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from torch import Tensor, fx
from torch.nn import functional

from spikestill.graph import SpikingNetwork
from spikestill.objectives.objective import Objective
from spikestill.types import InputError, Record

__all__ = ["CrossEntropy"]


class CrossEntropy(Objective):
    """The cross-entropy of the logits with the labels.

    Args:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        scale: factor on the mean logits.
    """

    name: ClassVar[str] = "cross-entropy"
    needs_teacher: ClassVar[bool] = False

    def __init__(self, label_smoothing: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"cross-entropy: label_smoothing must lie in [0, 1), not {label_smoothing}")
        self.label_smoothing, self.scale = label_smoothing, scale

    @classmethod
    def build(  # type: ignore[override]
        cls,
        student: SpikingNetwork,
        teacher: fx.GraphModule | None,
        input_shape: tuple[int, ...],
        label_smoothing: float = 0.0,
        read_out: Literal["mean", "sum"] | float = "mean",
    ) -> Self:
        """The objective for a student.

        Args:
            student: the spiking network.
            teacher: not used.
            input_shape: not used.
            label_smoothing: as above.
            read_out: what the softmax is taken of: the mean of the read-outs over the time steps, or their sum, the
                accumulated potential of LaSNN's eq. 3 and 4, or this many times their mean: the sum over many steps of
                a converted network is far surer than its ANN.

        Raises:
            InputError: for options outside their range.
        """
        if isinstance(read_out, int | float) and not isinstance(read_out, bool) and 0 < read_out < float("inf"):
            return cls(label_smoothing, float(read_out))
        if read_out not in ("mean", "sum"):
            raise InputError(f"cross-entropy: read_out must be 'mean', 'sum' or a positive factor, not {read_out!r}")
        return cls(label_smoothing, student.timesteps if read_out == "sum" else 1.0)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        logits = student.logits.float() * self.scale
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
