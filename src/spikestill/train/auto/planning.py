"""The arithmetic of the budget: pure functions from measured seconds to what is done with the time that is left."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "SweepPlan",
    "TrainingPlan",
    "plan_sweep",
    "plan_training",
    "plan_trials",
    "steps_to_read",
]

_LONGEST_SWEEP = 32
_FEW_IMAGES, _LEAST_IMAGES = 500, 100
"""On fewer than the first, a shorter T is tried instead of more images; never fewer than the second."""

_SHARE_OF_SWEEP = 0.2
_SHARE_OF_TRIAL = 0.08
_SAFETY = 0.9
"""Of the time that is left, what a training may be planned to take: measured steps are not all steps."""

_LEAST_STEPS = 20
"""A training or a trial of fewer steps teaches nothing."""

_WHOLE = 0.7
"""An epoch over at least this share of the images is worth an epoch more."""


@dataclass(frozen=True)
class SweepPlan:
    """On what the conversions are measured.

    Attributes:
        images: of the validation part.
        longest: the largest T.
    """

    images: int
    longest: int


@dataclass(frozen=True)
class TrainingPlan:
    """How long is trained.

    Attributes:
        epochs: of a schedule that ends at zero.
        images: in an epoch; None for all.
        steps: of the optimiser in all.
        seconds: that they are expected to take, with the validation after every epoch.
    """

    epochs: int
    images: int | None
    steps: int
    seconds: float


def steps_to_read(longest: int, wanted: int) -> tuple[int, ...]:
    """The numbers of time steps of the table: 1, 2, 4, ... up to ``longest``, and the wanted one."""
    powers = {2**power for power in range(longest.bit_length()) if 2**power <= longest}
    return tuple(sorted(powers | {wanted}))


def plan_sweep(
    budget: float, seconds_per_image_step: float, *, candidates: int, wanted: int, images: int, more: int = 0
) -> SweepPlan:
    """How many images and time steps all conversions can be measured on within their share of the budget.

    Args:
        budget: seconds of the whole command.
        seconds_per_image_step: what one image costs in one time step.
        candidates: how many conversions there are.
        wanted: T of the student, which is always measured.
        images: how many there are at most.
        more: images at the largest T that every conversion is shown besides.
    """
    image_steps = budget * _SHARE_OF_SWEEP / (max(candidates, 1) * max(seconds_per_image_step, 1e-12))
    longest = max(_LONGEST_SWEEP, wanted)
    while longest > wanted and image_steps / longest - more < min(_FEW_IMAGES, images):
        longest = max(longest // 2, wanted)
    return SweepPlan(min(images, max(int(image_steps / longest) - more, _LEAST_IMAGES)), longest)


def plan_trials(left: float, seconds_per_step: float, *, starts: int, epoch: int) -> int:
    """How many steps each start is trained for on trial; 0 where there is nothing to choose or too little time.

    Args:
        left: seconds of the budget that are left for trials and training.
        seconds_per_step: of the slowest start.
        starts: how many there are.
        epoch: the steps of one epoch, which is the most.
    """
    steps = min(int(left * _SHARE_OF_TRIAL / seconds_per_step), epoch)
    return steps if starts > 1 and steps >= min(_LEAST_STEPS, epoch) else 0


def plan_training(
    left: float,
    *,
    seconds_per_step: float,
    seconds_per_validation: float,
    seconds_at_the_end: float,
    images: int,
    batch_size: int,
    most_epochs: int,
) -> TrainingPlan | None:
    """The longest training that the budget has time for; None where that is too short to teach anything.

    Args:
        left: seconds of the budget.
        seconds_per_step: of the training.
        seconds_per_validation: of the validation after an epoch.
        seconds_at_the_end: kept for validation and test of the chosen student.
        images: for training.
        batch_size: of a step.
        most_epochs: no more than these.
    """
    per_epoch = max(images // batch_size, 1)  # a smaller last batch is left out

    def cost(steps: int, epochs: int) -> float:
        return steps * seconds_per_step + epochs * seconds_per_validation

    available = (left - seconds_at_the_end) * _SAFETY
    if available <= 0:
        return None
    whole_epochs = available / cost(per_epoch, 1)
    if whole_epochs >= most_epochs:
        return TrainingPlan(most_epochs, None, most_epochs * per_epoch, cost(most_epochs * per_epoch, most_epochs))
    epochs = max(math.ceil(whole_epochs), 1)
    steps = _steps_within(available, seconds_per_step, seconds_per_validation, epochs)
    if epochs > 1 and steps < _WHOLE * epochs * per_epoch:
        epochs, steps = epochs - 1, (epochs - 1) * per_epoch
    steps_an_epoch = min(steps // epochs, per_epoch)
    if steps_an_epoch * epochs < min(_LEAST_STEPS, per_epoch):
        return None
    limit = None if steps_an_epoch == per_epoch else steps_an_epoch * batch_size
    return TrainingPlan(epochs, limit, steps_an_epoch * epochs, cost(steps_an_epoch * epochs, epochs))


def _steps_within(available: float, step: float, validation: float, epochs: int) -> int:
    return max(int((available - epochs * validation) / step), 0)
