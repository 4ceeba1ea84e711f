"""How often a network is right, what it takes for what, and whether it knows how sure it may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikestill.analysis.answers import Processes, answers

__all__ = ["Bin", "Calibration", "accuracy", "calibration", "confusion_matrix"]

_BINS = 15
"""As in Guo et al. 2017."""


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes | None = None) -> float:
    """The share of images that a network puts into their class, in [0, 1].

    Args:
        network: from images ``[B, C, H, W]`` to logits ``[B, K]``; put it into evaluation mode first.
        batches: images and labels ``[B]``.
        processes: those that measure a shard of every batch each; all of them return the same.

    Raises:
        InputError: if there are no images.
    """
    return answers(network, batches, processes).accuracy()


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How many images of each class (row) were taken for each class (column): int64 ``[K, K]``.

    Args:
        predicted: class indices ``[N]``.
        labels: ``[N]``.
        num_classes: K.
    """
    counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one interval.

    Attributes:
        confidence: its mean.
        accuracy: the share of them that is right.
        images: how many.
    """

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class Calibration:
    """Confidence beside accuracy (Guo et al. 2017).

    Attributes:
        error: the expected calibration error: the mean over all images of the distance between the accuracy and the
            mean confidence of their bin, in [0, 1].
        bins: those that hold an image, from low to high confidence.
    """

    error: float
    bins: tuple[Bin, ...]


def calibration(confidence: Tensor, correct: Tensor, bins: int = _BINS) -> Calibration:
    """The calibration of a network's answers, in intervals of equal width, closed above.

    Args:
        confidence: ``[N]``, in (0, 1].
        correct: bool ``[N]``.
        bins: how many intervals.
    """
    places = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    found = []
    for place in places.unique().tolist():
        inside = places == place
        mean, share = confidence[inside].double().mean().item(), correct[inside].double().mean().item()
        found.append(Bin(mean, share, int(inside.sum())))
    error = sum(one.images * abs(one.accuracy - one.confidence) for one in found) / max(len(correct), 1)
    return Calibration(error, tuple(found))
