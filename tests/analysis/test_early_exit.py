from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from spikestill.analysis import Answers, Exit, early_exit


def by_hand() -> Answers:
    """Three images over three steps: sure at once and right; sure at step 2, wrong, right at step 3; never sure."""
    confidence = torch.tensor([[0.9, 0.3, 0.2], [0.9, 0.8, 0.3], [0.9, 0.9, 0.4]])
    predicted = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 1]])
    return Answers(predicted, confidence, torch.tensor([1, 1, 1]))


def test_every_image_stops_where_it_is_sure_or_at_the_end() -> None:
    sure, never = early_exit(by_hand(), thresholds=[0.75])
    assert sure == Exit(0.75, pytest.approx((1 + 2 + 3) / 3), pytest.approx(2 / 3))
    assert never == Exit(None, 3.0, 1.0)


def test_the_default_thresholds_go_from_the_first_step_to_the_last() -> None:
    found = early_exit(by_hand())
    assert found[0].mean_steps == 1
    assert found[0].accuracy == pytest.approx(1 / 3)
    assert found[-1] == Exit(None, 3.0, 1.0)
    assert len({(one.mean_steps, one.accuracy) for one in found}) == len(found)


@given(some.integers(1, 6), some.integers(1, 9), some.floats(0.05, 1.0), some.integers(0, 999))
def test_is_what_a_loop_over_images_gives(timesteps: int, images: int, threshold: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps = 3 * torch.randn(timesteps, images, 4, generator=generator)
    answers = Answers.of(steps, torch.randint(4, (images,), generator=generator))
    total = right = 0
    for image in range(images):
        for step in range(timesteps):
            if step == timesteps - 1 or float(answers.confidence[step, image]) >= threshold:
                total += step + 1
                right += int(answers.predicted[step, image] == answers.labels[image])
                break
    found = early_exit(answers, thresholds=[threshold])[0]
    assert (found.mean_steps, found.accuracy) == (pytest.approx(total / images), pytest.approx(right / images))
