"""What a student is trained to do: one file per objective; a recipe weighs them in a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spikestill.graph import SpikingNetwork
from spikestill.objectives.attention import ActivationAttention
from spikestill.objectives.blockwise import Blockwise
from spikestill.objectives.cross_entropy import CrossEntropy
from spikestill.objectives.gradient_attention import GradientAttention
from spikestill.objectives.logits import Logits
from spikestill.objectives.objective import Guide, Objective
from spikestill.objectives.spikes import Spikes, windowed_distance
from spikestill.types import unknown_name

__all__ = [
    "ActivationAttention",
    "Blockwise",
    "CrossEntropy",
    "GradientAttention",
    "Guide",
    "Logits",
    "Objective",
    "Spikes",
    "create",
    "names",
    "windowed_distance",
]

_OBJECTIVES: tuple[type[Objective], ...] = (
    ActivationAttention,
    Blockwise,
    CrossEntropy,
    GradientAttention,
    Logits,
    Spikes,
)


def names() -> list[str]:
    """The names that a recipe may use."""
    return sorted(objective.name for objective in _OBJECTIVES)


def create(
    name: str,
    *,
    student: SpikingNetwork,
    teacher: Guide | None,
    input_shape: Sequence[int],
    **options: Any,
) -> Objective:
    """The objective of that name for this pair of networks.

    Args:
        name: one of :func:`names`.
        student: the spiking network that is trained.
        teacher: the traced ANN or the spiking network, frozen and in evaluation mode; None where there is none.
        input_shape: of one image, ``(C, H, W)``.
        **options: the objective's own.

    Raises:
        InputError: for an unknown name or option, and where the objective does not fit the networks.
    """
    known = {objective.name: objective for objective in _OBJECTIVES}
    if name not in known:
        raise unknown_name("objective", name, known)
    kind = known[name]
    for option in options:
        if option not in kind.options():
            raise unknown_name(f"option of objective {name}", option, kind.options())
    kind.refuse_teacher(teacher)
    return kind.build(student, teacher, tuple(input_shape), **options)
