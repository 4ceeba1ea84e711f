"""Gray images of more than 8 bits: what their levels mean, all of a data set say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["to_eight_bits", "upper_bits"]

_LEAST, _MOST = 8, 16


def upper_bits(pixels: np.ndarray, bits: int = _MOST) -> np.ndarray:
    """``pixels`` as uint8: of uint16, the upper 8 of so many bits; uint8 as it is."""
    return (pixels >> (bits - _LEAST)).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def to_eight_bits(
    parts: Mapping[str, Sequence[np.ndarray | None]],
) -> tuple[dict[str, list[np.ndarray | None]], tuple[str, ...]]:
    """Every image as uint8, and what was done, a phrase each.

    A file of 16 bits a pixel often holds 10 or 12, and does not say how many: they are counted from the largest level
    of all images together (at least 8 bits), so that such images do not become black.

    Args:
        parts: by part, images uint8 or uint16 ``[H, W, 1 or 3]``; None for one that was left out.
    """
    deep = [image for images in parts.values() for image in images if image is not None and image.dtype == np.uint16]
    if not deep:
        return {part: list(images) for part, images in parts.items()}, ()
    largest = max(int(image.max(initial=0)) for image in deep)
    bits = min(max(largest.bit_length(), _LEAST), _MOST)
    scaled = {
        part: [None if image is None else upper_bits(image, bits) for image in images] for part, images in parts.items()
    }
    kept = "all" if bits == _LEAST else f"the upper {_LEAST}"
    note = f"{len(deep)} gray images of 16 bits have levels up to {largest}: they are taken as {bits}-bit, {kept} kept"
    return scaled, (note,)
