"""Which images belong to which part: stratified, seeded, the same under every version of every library."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spikestill.data.seeds import random_state
from spikestill.types import InputError

__all__ = ["balanced_subset", "share_to_count", "stratified_split"]


def share_to_count(share: int | float, total: int, option: str) -> int:
    """How many of ``total`` images ``share`` means.

    An int is a count (1 is one image), a float a fraction (1.0 is everything); a fraction above 0 is at least one
    image, a count above ``total`` is ``total``.

    Raises:
        InputError: a negative or infinite number, a fraction above 1, or something that is no number.
    """
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise InputError(f"{option} must be a fraction (float) or a count (int), not {share!r}")
    if isinstance(share, int):
        if share < 0:
            raise InputError(f"{option}={share} is negative; give a count of images or a fraction")
        return min(share, total)
    if not 0 <= share <= 1:
        raise InputError(f"{option}={share} must lie between 0 and 1 as a fraction; write an integer for a count")
    if share == 0:
        return 0
    return min(total, max(1, round(share * total)))


def stratified_split(labels: Tensor, count: int, *parts: int | str) -> tuple[Tensor, Tensor]:
    """Take ``count`` images out, from each class in proportion to its size; every class keeps at least one.

    Args:
        labels: class indices, int64 ``[N]``.
        count: how many images to take.
        parts: what the random choice depends on, e.g. a seed and a purpose.

    Returns:
        The rows that stay and the rows that were taken, both int64 and ascending.

    Raises:
        InputError: when fewer than ``count`` images can be taken with every class keeping one.
    """
    classes = _shuffled_classes(labels, *parts)
    room = sum(len(rows) - 1 for rows in classes)
    if count > room:
        raise InputError(
            f"cannot take {count} of {len(labels)} images out of the training data: every one of its {len(classes)} "
            f"classes must keep one, so {room} is the most"
        )
    ideal = np.array([count * len(rows) / max(1, len(labels)) for rows in classes])
    limits = np.array([len(rows) - 1 for rows in classes])
    taken = np.minimum(np.floor(ideal).astype(int), limits)
    # Largest remainder first, then class by class as long as there is room.
    for index in np.argsort(-(ideal - taken), kind="stable"):
        if taken.sum() < count and taken[index] < limits[index]:
            taken[index] += 1
    while taken.sum() < count:
        taken[int(np.argmax(limits - taken))] += 1
    out = [rows[:number] for rows, number in zip(classes, taken, strict=True)]
    stay = [rows[number:] for rows, number in zip(classes, taken, strict=True)]
    return _ascending(stay), _ascending(out)


def balanced_subset(labels: Tensor, count: int, *parts: int | str) -> Tensor:
    """Rows (int64, ascending) of ``count`` images, from each class as equally many as its size allows.

    A smaller subset of the same seed lies within every larger one.

    Args:
        labels: class indices, int64 ``[N]``.
        count: how many images to keep, at most N.
        parts: what the random choice depends on, e.g. a seed and a purpose.
    """
    classes = _shuffled_classes(labels, *parts)
    # Round by round, each class gives its next image; within a round the order of the classes is random but fixed.
    turn = random_state(*parts, "turn").permutation(len(classes))
    queue = [
        (place, int(turn[index]), int(row)) for index, rows in enumerate(classes) for place, row in enumerate(rows)
    ]
    queue.sort()
    return torch.tensor(sorted(row for _, _, row in queue[:count]), dtype=torch.int64)


def _shuffled_classes(labels: Tensor, *parts: int | str) -> list[np.ndarray]:
    """The rows of every class that occurs, each in its own random order."""
    array = labels.cpu().numpy()
    return [random_state(*parts, int(value)).permutation(np.flatnonzero(array == value)) for value in np.unique(array)]


def _ascending(rows: list[np.ndarray]) -> Tensor:
    merged = np.sort(np.concatenate(rows)) if rows else np.empty(0)
    return torch.from_numpy(merged.astype(np.int64))
