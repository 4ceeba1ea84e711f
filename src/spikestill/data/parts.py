"""What the parts of a data set are called on disk, and how decoded parts become tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from spikestill.data.depth import to_eight_bits
from spikestill.data.records import RawData
from spikestill.data.samples import ImageSet
from spikestill.types import InputError

__all__ = ["ON_DISK", "assemble", "choose"]

# Name of a folder or file -> the part it holds.
ON_DISK = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}

Found = TypeVar("Found")


def choose(found: Mapping[str, Found], place: str) -> dict[str, Found]:
    """What was found, by part instead of by name: ``train``, ``test`` and, where there is one, ``validation``.

    Where there is no test part, the validation part is the test set (as for ImageNet): one of the two must be read at
    the end only, and model selection then gets a split of the training data.

    Args:
        found: by name on disk (see ``ON_DISK``), whatever holds the part.
        place: where it was looked for, as an error should say it.

    Raises:
        InputError: a part is missing, or is there under two names.
    """
    parts: dict[str, Found] = {}
    names: dict[str, str] = {}
    for name, holder in found.items():
        part = ON_DISK[name]
        if part in parts:
            raise InputError(f"{place} holds both '{names[part]}' and '{name}'; keep one {part} part")
        parts[part], names[part] = holder, name
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    for part, wanted in (("train", "'train'"), ("test", "'test' or 'val'")):
        if part not in parts:
            there = ", ".join(f"'{name}'" for name in found) or "nothing of the kind"
            raise InputError(f"{place} needs a part named {wanted}; found: {there}")
    # In the order in which a reader should look at them: the first fault found is then the one nearest the start.
    return {part: parts[part] for part in ("train", "validation", "test") if part in parts}


def assemble(
    decoded: Mapping[str, Sequence[np.ndarray | None]],
    labels: Mapping[str, Sequence[int]],
    class_names: tuple[str, ...],
    name_of: Callable[[str, int], str],
) -> RawData:
    """Stack every part, all in the same size and colour.

    A set in which any image has colour becomes RGB as a whole; its gray images then get three equal channels.

    Args:
        decoded: by part, images uint8 or uint16 ``[H, W, 1 or 3]``, or None for what was left out.
        labels: by part, one class index an image.
        class_names: in label order.
        name_of: what to call image ``row`` of a part in an error.

    Raises:
        InputError: when the sizes differ, with the first image that does, and when a part has no image left.
    """
    decoded, notes = to_eight_bits(decoded)
    kept = {part: [row for row, image in enumerate(images) if image is not None] for part, images in decoded.items()}
    for part, rows in kept.items():
        if not rows:
            raise InputError(f"no image of the {part} part can be read; the first is {name_of(part, 0)}")
    shown = {part: [image for image in images if image is not None] for part, images in decoded.items()}
    sets = {}
    first = shown["train"][0]
    channels = max(image.shape[2] for images in shown.values() for image in images)
    for part, images in shown.items():
        pixels = np.empty((len(images), *first.shape[:2], channels), dtype=np.uint8)
        for index, (row, image) in enumerate(zip(kept[part], images, strict=True)):
            if image.shape[:2] != first.shape[:2]:
                raise InputError(
                    f"{name_of(part, row)} is {_size(image)} pixels where {name_of('train', kept['train'][0])} is "
                    f"{_size(first)}; set image_size to bring all to one size"
                )
            pixels[index] = image
        classes = torch.tensor([labels[part][row] for row in kept[part]], dtype=torch.int64)
        sets[part] = ImageSet(_channels_first(pixels), classes)
    return RawData(sets["train"], sets["test"], class_names, validation=sets.get("validation"), notes=notes)


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
