"""Handwritten digits that ship with scikit-learn: 1797 real images of 8x8 pixels, no download."""

from __future__ import annotations

import torch

from spikestill.data.records import RawData
from spikestill.data.samples import ImageSet
from spikestill.data.splits import stratified_split

__all__ = ["TEST_IMAGES", "read_digits"]

# A fifth of the 1797 images, rounded up. Which ones is fixed (see read_digits): no option moves the test set.
TEST_IMAGES = 360


def read_digits() -> RawData:
    """The digits as uint8 ``[N, 1, 8, 8]``; 1437 images to learn from and 360 to test on.

    scikit-learn's copy (the test part of "Optical Recognition of Handwritten Digits", Alpaydin & Kaynak, 1998) has no
    split of its own. Ours is stratified by class and drawn once from a fixed seed of its own, so that results of
    different seeds are measured on the same images. Pixels 0..16 are scaled to 0..255.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)
    everything = ImageSet(pixels[:, None], torch.from_numpy(digits.target).to(torch.int64))
    train, test = stratified_split(everything.labels, TEST_IMAGES, "digits", "test")
    return RawData(
        train=everything.subset(train),
        test=everything.subset(test),
        class_names=tuple(str(digit) for digit in range(10)),
    )
