"""What a network answered to every image, at every time step: all that accuracy, calibration and early exit need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from spikestill.types import InputError

__all__ = ["Answers", "Processes", "answers", "gathered"]


class Processes(Protocol):
    """Several processes that measure together, each its shard of every batch."""

    def gathered(self, value: Any) -> list[Any]:
        """What each process gave, in their order."""

    def reduced(self, values: Tensor, how: Literal["sum", "max"]) -> Tensor:
        """Sum or maximum over all processes, elementwise."""


@dataclass(frozen=True)
class Answers:
    """The answers to a set of images.

    Attributes:
        predicted: class indices ``[T, N]``, int64: the largest of the mean of the first t read-outs; T is 1 of an ANN.
        confidence: ``[T, N]``, float32: the softmax probability of that class, in (0, 1].
        labels: ``[N]``, int64.
    """

    predicted: Tensor
    confidence: Tensor
    labels: Tensor

    @classmethod
    def of(cls, steps: Tensor, labels: Tensor, read_out_from: int = 1) -> Answers:
        """The answers of one batch.

        Args:
            steps: read-outs ``[T, B, K]``, one a time step.
            labels: ``[B]``.
            read_out_from: the time step from which on read-outs are averaged; up to there, all there are.
        """
        totals = steps.float().cumsum(0)
        count = torch.arange(1, len(steps) + 1, device=steps.device).view(-1, 1, 1)
        if 1 < read_out_from <= len(steps):
            skipped = read_out_from - 1
            totals = torch.cat([totals[:skipped], totals[skipped:] - totals[skipped - 1]])
            count = torch.cat([count[:skipped], count[skipped:] - skipped])
        confidence = (totals / count).softmax(-1).amax(-1)
        # The class is not read from the softmax: where one is as good as certain, rounding can make several equal.
        return cls(totals.argmax(-1).cpu(), confidence.cpu(), labels.cpu())

    @property
    def correct(self) -> Tensor:
        """Whether each answer is right, bool ``[T, N]``."""
        return self.predicted == self.labels

    def accuracy(self, timestep: int = -1) -> float:
        """The share of images that are in their class after that many time steps; -1: after all."""
        row = timestep if timestep < 0 else timestep - 1
        return int(self.correct[row].sum()) / len(self.labels)


@torch.no_grad()
def answers(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes | None = None
) -> Answers:
    """What an ANN answers; T is 1.

    Args:
        network: from images ``[B, C, H, W]`` to logits ``[B, K]``; put it into evaluation mode first.
        batches: images and labels ``[B]``.
        processes: those that measure a shard of every batch each; all of them return the same.

    Raises:
        InputError: if there are no images.
    """
    return gathered([Answers.of(network(images).unsqueeze(0), labels) for images, labels in batches], processes)


def gathered(parts: list[Answers], processes: Processes | None = None) -> Answers:
    """The answers of all batches together, in the order of the images.

    Args:
        parts: those to each batch, or to this process's shard of it.
        processes: those that the batches were shared among.

    Raises:
        InputError: if there are none.
    """
    if processes is not None:
        # A last batch can be too small to give each of them an image.
        parts = [shard for batch in zip_longest(*processes.gathered(parts)) for shard in batch if shard is not None]
    if not sum(len(part.labels) for part in parts):
        raise InputError("there are no images to measure on")
    return Answers(
        torch.cat([part.predicted for part in parts], 1),
        torch.cat([part.confidence for part in parts], 1),
        torch.cat([part.labels for part in parts]),
    )
