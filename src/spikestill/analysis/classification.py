"""How often a network is right."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spikestill.analysis.operations import Reduce
from spikestill.types import InputError

__all__ = ["accuracy"]


@torch.no_grad()
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], reduced: Reduce | None = None) -> float:
    """The share of images that a network puts into their class, in [0, 1].

    Args:
        network: from images ``[B, C, H, W]`` to logits ``[B, K]``; put it into evaluation mode first.
        batches: images and labels ``[B]``.
        reduced: where several processes measure some images each: the sum of a tensor over all of them.

    Raises:
        InputError: if there are no images.
    """
    totals = torch.zeros(2, dtype=torch.int64)
    for images, labels in batches:
        totals += torch.tensor([int((network(images).argmax(dim=1) == labels).sum()), len(labels)])
    correct, count = (totals if reduced is None else reduced(totals, "sum")).tolist()
    if count == 0:
        raise InputError("there are no images to measure on")
    return float(correct / count)
