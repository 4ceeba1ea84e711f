"""Images of more than 8 bits, and what their levels mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikestill import data
from spikestill.data.depth import to_eight_bits, upper_bits


@pytest.mark.parametrize(
    ("largest", "bits"), [(1, 8), (255, 8), (256, 9), (1023, 10), (4095, 12), (4096, 13), (65535, 16)]
)
def test_the_largest_level_says_how_many_bits_there_are(largest: int, bits: int) -> None:
    levels = np.array([[[0], [largest]]], dtype=np.uint16)
    parts, notes = to_eight_bits({"train": [levels, None], "test": [levels // 2]})
    train, absent = parts["train"]
    assert absent is None
    assert train is not None
    assert train.dtype == np.uint8
    assert train[:, :, 0].tolist() == [[0, largest >> (bits - 8)]]
    assert f"levels up to {largest}: they are taken as {bits}-bit" in notes[0]
    assert notes[0].startswith("2 gray images")


def test_all_parts_share_one_scale() -> None:
    low, high = (np.full((1, 1, 1), level, dtype=np.uint16) for level in (1000, 4000))
    parts, _ = to_eight_bits({"train": [low], "test": [high]})
    assert [int(images[0].item()) for images in parts.values() if images[0] is not None] == [1000 >> 4, 4000 >> 4]


def test_eight_bits_stay_as_they_are() -> None:
    image = np.full((2, 2, 3), 7, dtype=np.uint8)
    parts, notes = to_eight_bits({"train": [image]})
    assert parts["train"][0] is image
    assert notes == ()
    assert upper_bits(image) is image


def test_a_folder_of_twelve_bits_is_not_black_and_says_so(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                levels = source.integers(0, 4096, (8, 8), dtype=np.uint16)
                Image.fromarray(levels).save(tmp_path / part / name / f"{number}.png")
    found = data.load(f"folder:{tmp_path}", validation=1)
    assert int(found.train.images.max()) > 240  # type: ignore[attr-defined]
    assert any("12 gray images of 16 bits" in note and "taken as 12-bit" in note for note in found.notes)
