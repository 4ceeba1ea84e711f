"""What ``auto`` is asked for, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from spikestill.types import InputError, unknown_name

__all__ = ["Settings", "parse_budget"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_BUDGET = re.compile(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?")
_LONGEST = 1000 * 3600.0
_MOST_TIMESTEPS = 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``auto`` is asked for.

    Attributes:
        ann: a run folder, a file of weights, a model's name, or ``custom:CLASS`` for a module in hand.
        data: a data set's name; None for that of the run.
        data_dir: where named data sets lie; None for where the run's do, or the default.
        model: the architecture of a file of weights.
        weights: of a model's name: a file, or pretrained.
        width: factor on the channels of a built-in model.
        model_options: further options of the model.
        student: the architecture of the student; None for the ANN's.
        mean: channel means that the ANN's inputs were normalised with, on the [0, 1] scale; None for the run's or the
            data's.
        std: channel standard deviations, likewise.
        image_size: bring the images to this height and width.
        timesteps: T.
        tolerance: how many percentage points below the ANN are good enough.
        budget: seconds of the whole command, over all its continuations.
        anytime: whether the training is good after every time step too (see ``train_timesteps`` of a recipe).
        images: the most validation images that anything is measured on.
        epochs: the most epochs of the training.
        batch_size: of the training.
        precision: float32, bf16, or auto for what measures faster.
        seed: of all that is drawn.
        device: cpu, cuda or auto.
    """

    ann: str
    data: str | None = None
    data_dir: str | None = None
    model: str | None = None
    weights: str | None = None
    width: float = 1.0
    model_options: dict[str, Any] = field(default_factory=dict)
    student: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    timesteps: int = 4
    tolerance: float = 1.0
    budget: float = 1800.0
    anytime: bool = True
    images: int = 2000
    epochs: int = 100
    batch_size: int = 128
    precision: Literal["auto", "float32", "bf16"] = "auto"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: naming every problem at once.
        """
        problems = list(self._problems())
        if problems:
            raise InputError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if not 1 <= self.timesteps <= _MOST_TIMESTEPS:
            yield f"timesteps must lie in [1, {_MOST_TIMESTEPS}], not {self.timesteps}"
        if not 0 <= self.tolerance <= 100:
            yield f"tolerance must lie in [0, 100] percentage points, not {self.tolerance}"
        for name in ("images", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
        if not 0 < self.width < math.inf:
            yield f"width must be positive, not {self.width}"
        if self.precision not in ("auto", "float32", "bf16"):
            yield str(unknown_name("precision", self.precision, ("auto", "float32", "bf16")))
        if (self.mean is None) != (self.std is None):
            yield "mean and std belong together: give both or neither"
        elif self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or not all(map(math.isfinite, (*self.mean, *self.std))):
                yield "mean and std must have one finite number a channel each"
            elif min(self.std) <= 0:
                yield f"std must be positive, not {min(self.std)}"

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """The names of what ``stored`` says otherwise and what changes the outcome."""
        own = self.as_json()
        return [name for name, value in own.items() if name != "device" and stored.get(name, value) != value]


def parse_budget(text: str | float) -> float:
    """Seconds from ``90s``, ``30m``, ``2h`` or ``1h30m``; a number alone means minutes.

    Raises:
        InputError: for anything else, and for what is not positive or longer than 1000 hours.
    """
    wrong = InputError(
        f"the budget must be a time such as 90s, 30m, 2h or 1h30m (a number alone: minutes), not '{text}'"
    )
    if isinstance(text, bool):
        raise wrong
    word = str(text).strip().lower()
    try:
        if re.fullmatch(r"[0-9]*\.?[0-9]+", word):
            seconds = 60 * float(word)
        elif word and (match := _BUDGET.fullmatch(word)):
            seconds = sum(
                float(part) * unit for part, unit in zip(match.groups(), _UNITS.values(), strict=True) if part
            )
        else:
            raise wrong
    except ValueError:
        raise wrong from None
    if not 0 < seconds <= _LONGEST:
        raise wrong
    return seconds
