from __future__ import annotations

import pytest
import torch
from torch import nn

from spikestill.analysis import accuracy
from spikestill.types import InputError


def test_is_the_share_of_images_put_into_their_class() -> None:
    images = torch.tensor([[3.0, 1, 2], [1, 3, 2], [1, 2, 3], [3, 1, 2], [3, 2, 1]])
    labels = torch.tensor([0, 1, 2, 2, 1])
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    assert accuracy(nn.Identity(), batches) == pytest.approx(3 / 5)


def test_shares_of_several_processes_are_added_up() -> None:
    batches = [(torch.eye(2), torch.tensor([0, 0]))]
    others = torch.tensor([4, 6])
    assert accuracy(nn.Identity(), batches, lambda values, how: values + others) == pytest.approx(5 / 8)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images to measure on"):
        accuracy(nn.Identity(), [])
