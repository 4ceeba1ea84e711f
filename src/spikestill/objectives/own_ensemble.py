"""Every step learns from the network's own right steps (methods, section 4)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from spikestill.objectives.logits import checked_temperature
from spikestill.objectives.objective import Objective
from spikestill.types import Record

__all__ = ["OwnEnsemble", "distil_correct"]


class OwnEnsemble(Objective):
    """Every time step's logits against the detached mean of those steps that are right for that image.

    The network's own ensemble in the temporal decoupling of logits (Yu et al., ICML 2025). An image that no step gets
    right adds 0.

    Args:
        temperature: softens both distributions; positive.

    Raises:
        InputError: for another temperature.
    """

    name: ClassVar[str] = "own-ensemble"
    needs_teacher: ClassVar[bool] = False
    reads_steps: ClassVar[bool] = True

    def __init__(self, temperature: float = 3.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(self.name, temperature)

    def forward(self, student: Record, teacher: Record | None, labels: Tensor) -> Tensor:  # noqa: D102
        return distil_correct(self.steps_of(student), labels, self.temperature)


def distil_correct(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Several predictions of each image, distilled from the mean of those that are right.

    ``1/(S B) sum_{s,b} [R_b > 0] temperature^2 KL(softmax(m_b / temperature) || softmax(z_sb / temperature))``, with
    ``m_b`` the detached mean of the R_b predictions whose largest logit is the label's.

    Args:
        logits: of S predictions (time steps, heads), ``[S, B, K]``.
        labels: ``[B]``.
        temperature: positive.

    Returns:
        A scalar in float32, finite for finite logits: an image without a right prediction adds 0.
    """
    logits = logits.float()
    known = logits.detach()
    is_right = (known.argmax(-1) == labels).unsqueeze(-1)
    count = is_right.sum(0)
    mean = (known * is_right).sum(0) / count.clamp(min=1)
    target = functional.log_softmax(mean / temperature, dim=-1).expand_as(logits)
    given = functional.log_softmax(logits / temperature, dim=-1)
    divergence = functional.kl_div(given, target, reduction="none", log_target=True).sum(-1)
    return temperature**2 * (divergence * (count > 0).squeeze(-1)).mean()
