from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikestill.train.auto.planning import TrainingPlan, plan_sweep, plan_training, plan_trials, steps_to_read

ONE: dict[str, Any] = {
    "seconds_per_step": 1.0,
    "seconds_per_validation": 10.0,
    "seconds_at_the_end": 20.0,
    "images": 12_800,
    "batch_size": 128,
    "most_epochs": 30,
}
"""100 steps and 10 seconds of validation an epoch: 110 seconds."""


def left_for(seconds: float) -> float:
    """The budget of which that much is planned: nine tenths of what the end leaves."""
    return seconds / 0.9 + 20.0


def test_steps_are_powers_of_two_and_the_wanted_one() -> None:
    assert steps_to_read(32, 4) == (1, 2, 4, 8, 16, 32)
    assert steps_to_read(6, 6) == (1, 2, 4, 6)
    assert steps_to_read(1, 1) == (1,)


def test_a_generous_budget_trains_the_most_epochs_on_all_images() -> None:
    assert plan_training(left_for(30 * 110 + 1), **ONE) == TrainingPlan(30, None, 3000, 3300.0)


def test_whole_epochs_that_just_fit_are_taken_on_all_images() -> None:
    assert plan_training(left_for(221), **ONE) == TrainingPlan(2, None, 200, 220.0)


def test_an_epoch_more_on_most_of_the_images_uses_the_budget_better() -> None:
    # Of 300 s three validations leave 270 steps: 90 in each of three epochs.
    assert plan_training(left_for(300.5), **ONE) == TrainingPlan(3, 90 * 128, 270, 300.0)


def test_a_budget_just_over_one_epoch_is_one_epoch() -> None:
    assert plan_training(left_for(121), **ONE) == TrainingPlan(1, None, 100, 110.0)


def test_a_budget_below_one_epoch_takes_fewer_images() -> None:
    assert plan_training(left_for(60.5), **ONE) == TrainingPlan(1, 50 * 128, 50, 60.0)


@pytest.mark.parametrize("left", [-5.0, 0.0, 19.0, 30.0, left_for(29)])
def test_too_little_time_plans_nothing(left: float) -> None:
    assert plan_training(left, **ONE) is None


@given(
    left=st.floats(1, 1e5),
    step=st.floats(1e-3, 10),
    validation=st.floats(0, 100),
    end=st.floats(0, 100),
    images=st.integers(1, 60_000),
    batch=st.integers(1, 512),
)
def test_a_plan_fits_into_the_budget_and_the_data(
    left: float, step: float, validation: float, end: float, images: int, batch: int
) -> None:
    plan = plan_training(
        left,
        seconds_per_step=step,
        seconds_per_validation=validation,
        seconds_at_the_end=end,
        images=images,
        batch_size=batch,
        most_epochs=100,
    )
    if plan is None:
        return
    assert 1 <= plan.epochs <= 100
    assert plan.seconds <= 0.9 * (left - end) * (1 + 1e-9)
    assert plan.seconds == pytest.approx(plan.steps * step + plan.epochs * validation)
    per_epoch = max((plan.images or images) // batch, 1)
    assert plan.steps == plan.epochs * per_epoch
    assert plan.images is None or plan.images < images


def test_a_sweep_that_is_cheap_sees_all_images_and_32_steps() -> None:
    plan = plan_sweep(1800, 1e-4, candidates=6, wanted=4, images=2000)
    assert (plan.images, plan.longest) == (2000, 32)


def test_a_sweep_gives_up_steps_before_images() -> None:
    # 360 s for 6 candidates at 5 ms an image and step: 12 000 of these, 500 images at 24 steps, so at 16.
    plan = plan_sweep(1800, 5e-3, candidates=6, wanted=4, images=2000)
    assert (plan.images, plan.longest) == (750, 16)
    # At 40 ms 1500 of these: 500 images do not fit at any T, so as many as do at the wanted one.
    plan = plan_sweep(1800, 4e-2, candidates=6, wanted=4, images=2000)
    assert (plan.images, plan.longest) == (375, 4)
    plan = plan_sweep(1800, 4e-2, candidates=6, wanted=4, images=2000, more=75)
    assert (plan.images, plan.longest) == (300, 4)
    assert plan_sweep(1, 1.0, candidates=6, wanted=4, images=2000).images == 100
    assert plan_sweep(1800, 1e-4, candidates=6, wanted=100, images=50).longest == 100


def test_trials_take_a_share_of_what_is_left() -> None:
    assert plan_trials(1000, 1.0, starts=2, epoch=400) == 80
    assert plan_trials(1000, 0.01, starts=2, epoch=400) == 400
    assert plan_trials(1000, 1.0, starts=1, epoch=400) == 0
    assert plan_trials(200, 1.0, starts=2, epoch=400) == 0
    assert plan_trials(1000, 1.0, starts=2, epoch=10) == 10
