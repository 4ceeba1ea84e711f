"""How often a network is right."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spikestill.types import InputError

__all__ = ["accuracy"]


@torch.no_grad()
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of images that a network puts into their class, in [0, 1].

    Args:
        network: from images ``[B, C, H, W]`` to logits ``[B, K]``; put it into evaluation mode first.
        batches: images and labels ``[B]``.

    Raises:
        InputError: if there are no images.
    """
    correct = count = 0
    for images, labels in batches:
        correct += int((network(images).argmax(dim=1) == labels).sum())
        count += len(labels)
    if count == 0:
        raise InputError("there are no images to measure on")
    return correct / count
