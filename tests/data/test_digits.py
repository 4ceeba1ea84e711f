from __future__ import annotations

import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits

from spikestill.data.digits import TEST_IMAGES, read_digits


def test_pixels_are_scikit_learns() -> None:
    raw = read_digits()
    ours = torch.cat([raw.train.images, raw.test.images])
    assert ours.shape == (1797, 1, 8, 8)
    assert int(ours.min()) == 0
    assert int(ours.max()) == 255
    original = load_digits().images
    rows = {tuple(np.rint(image * 255 / 16).astype(int).ravel()) for image in original}
    assert {tuple(image.flatten().tolist()) for image in ours} == rows


def test_the_test_set_is_fixed_and_stratified() -> None:
    raw = read_digits()
    assert len(raw.test) == TEST_IMAGES == 360
    assert set(raw.test.labels.bincount().tolist()) <= {35, 36, 37}
    assert set(raw.train.labels.tolist()) == set(range(10))
    content = raw.test.images.contiguous().numpy().tobytes()
    assert hashlib.sha256(content).hexdigest() == "30f64434f687a4000c6e8fcb19c7b1260a2432c549e80fffc9405916beb5caa0"
