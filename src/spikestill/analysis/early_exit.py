"""Stopping early: an image is shown for as long as the network is not sure of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spikestill.analysis.answers import Answers

__all__ = ["Exit", "early_exit"]

_THRESHOLDS = 20


@dataclass(frozen=True)
class Exit:
    """What stopping at one threshold gives.

    Attributes:
        threshold: the confidence at which an image is let go; None where none ever is before the last step.
        mean_steps: the mean over the images of the time steps that they were shown.
        accuracy: of the answers at these steps, in [0, 1].
    """

    threshold: float | None
    mean_steps: float
    accuracy: float


def early_exit(answers: Answers, thresholds: Sequence[float] | None = None) -> tuple[Exit, ...]:
    """Accuracy and mean number of time steps where each image stops as soon as its confidence reaches a threshold.

    Args:
        answers: at every time step.
        thresholds: by default spread evenly over the confidences that occur (their quantiles), since these differ much
            from network to network.

    Returns:
        An entry a threshold, from low to high, and one without; entries alike in steps and accuracy once.
    """
    if thresholds is None:
        steps = torch.linspace(0, 1, _THRESHOLDS + 1, dtype=torch.float64)
        ordered = answers.confidence.flatten().double().sort().values
        thresholds = ordered[(steps * (len(ordered) - 1)).round().long()].tolist()
    found: dict[tuple[float, float], Exit] = {}
    for threshold in [*sorted(thresholds), None]:
        one = _at(answers, threshold)
        found.setdefault((one.mean_steps, one.accuracy), one)
    return tuple(found.values())


def _at(answers: Answers, threshold: float | None) -> Exit:
    sure = answers.confidence >= (float("inf") if threshold is None else threshold)
    sure[-1] = True
    stop = sure.int().argmax(0, keepdim=True)  # the first step at which an image is sure
    correct = answers.correct.gather(0, stop)
    return Exit(threshold, stop.double().mean().item() + 1, correct.double().mean().item())
