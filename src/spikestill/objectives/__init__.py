"""What a student is trained to do: one file per objective; a recipe weighs them in a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from spikestill.graph import SpikingNetwork
from spikestill.objectives.attention import ActivationAttention
from spikestill.objectives.blockwise import Blockwise
from spikestill.objectives.branches import Branches
from spikestill.objectives.cross_entropy import CrossEntropy
from spikestill.objectives.gradient_attention import GradientAttention
from spikestill.objectives.logits import Logits
from spikestill.objectives.objective import Guide, Objective
from spikestill.objectives.own_ensemble import OwnEnsemble
from spikestill.objectives.selective import Selective
from spikestill.objectives.spikes import Spikes, windowed_distance
from spikestill.types import InputError, unknown_name

__all__ = [
    "ActivationAttention",
    "Blockwise",
    "Branches",
    "CrossEntropy",
    "GradientAttention",
    "Guide",
    "Logits",
    "Objective",
    "OwnEnsemble",
    "Selective",
    "Spikes",
    "create",
    "names",
    "windowed_distance",
]

_OBJECTIVES: tuple[type[Objective], ...] = (
    ActivationAttention,
    Blockwise,
    Branches,
    CrossEntropy,
    GradientAttention,
    Logits,
    OwnEnsemble,
    Selective,
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
        InputError: for an unknown name or option, an option of another type, and where the objective does not fit the
            networks.
    """
    known = {objective.name: objective for objective in _OBJECTIVES}
    if name not in known:
        raise unknown_name("objective", name, known)
    kind = known[name]
    for option in options:
        if option not in kind.options():
            raise unknown_name(f"option of objective {name}", option, kind.options())
    _check_types(name, kind.option_types(), options)
    kind.refuse_teacher(teacher)
    return kind.build(student, teacher, tuple(input_shape), **options)


def _check_types(name: str, types: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """See that switches are switches and numbers are numbers, whatever YAML made of them."""
    for option, value in options.items():
        wanted = types[option]
        if get_origin(wanted) is Literal and value not in get_args(wanted):
            raise InputError(f"{name}: {option} must be {' or '.join(map(repr, get_args(wanted)))}, not {value!r}")
        if wanted not in (bool, int, float):
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = isinstance(value, bool) if wanted is bool else is_number and (wanted is float or isinstance(value, int))
        if not fits:
            kinds = {bool: "true or false", int: "a whole number", float: "a number"}
            raise InputError(f"{name}: {option} must be {kinds[wanted]}, not {value!r}")
