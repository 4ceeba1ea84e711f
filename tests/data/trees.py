"""Data sets in their true on-disk layouts, of a few small files; tests of ``train`` and ``recipes`` use them too."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB", colour: int | None = None) -> bytes:
    """A small photograph: a smooth random picture, or one of a given brightness with some noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    if colour is not None:
        coarse = np.clip(colour + generator.integers(-20, 20, (4, 4, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(stream, format="JPEG")
    return stream.getvalue()


def write_tiny_imagenet(place: Path, classes: int = 200, train: int = 2, val: int = 1) -> Path:
    """``tiny-imagenet-200/`` as its archive unpacks; the test images are there, without labels."""
    root = place / "tiny-imagenet-200"
    wnids = [f"n{1443537 + 7 * index:08d}" for index in range(classes)]
    # The published file is in no order either.
    shuffled = [wnids[index] for index in np.random.default_rng(0).permutation(classes)]
    (root / "val" / "images").mkdir(parents=True)
    (root / "test" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in shuffled))
    words = [f"{wnid}\tthing {index}, entity\n" for index, wnid in enumerate(wnids)]
    (root / "words.txt").write_text("".join(["n00001740\tentity\n", *words]))
    annotations = []
    for label, wnid in enumerate(wnids):
        folder = root / "train" / wnid
        (folder / "images").mkdir(parents=True)
        names = [f"{wnid}_{index}.JPEG" for index in range(train)]
        for index, name in enumerate(names):
            (folder / "images" / name).write_bytes(jpeg(100 * label + index, colour=label))
        (folder / f"{wnid}_boxes.txt").write_text("".join(f"{name}\t0\t10\t63\t58\n" for name in names))
    for number, label in enumerate(list(range(classes)) * val):
        content = jpeg(10**6 + number, colour=label, mode="L" if number % 7 == 6 else "RGB")
        (root / "val" / "images" / f"val_{number}.JPEG").write_bytes(content)
        annotations.append(f"val_{number}.JPEG\t{wnids[label]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "test" / "images" / "test_0.JPEG").write_bytes(jpeg(5))
    return root


def wnids(classes: int) -> list[str]:
    """Ids of classes, in the order of their labels."""
    return [f"n{1440764 + 13 * index:08d}" for index in range(classes)]


def photograph(label: int, number: int) -> bytes:
    """Image ``number`` of a class of ImageNet: a shade, in one of several sizes, every fifth one gray."""
    size = ((80, 60), (64, 64), (50, 90))[number % 3]
    return jpeg(1000 * label + number, size, "L" if number % 5 == 4 else "RGB", colour=40 + 60 * label)


def write_imagenet(place: Path, classes: int = 3, train: int = 6, val: int = 3) -> Path:
    """``imagenet/train/<wnid>/*.JPEG`` and ``imagenet/val/<wnid>/*.JPEG``."""
    root = place / "imagenet"
    for label, wnid in enumerate(wnids(classes)):
        for part, first, count in (("train", 0, train), ("val", train, val)):
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for number in range(first, first + count):
                name = f"{wnid}_{number}" if part == "train" else f"ILSVRC2012_val_{1000 * label + number:08d}"
                (folder / f"{name}.JPEG").write_bytes(photograph(label, number))
    return root


def write_shard(file: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """An uncompressed tar file with these members."""
    with tarfile.open(file, "w") as opened:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))


def write_imagenet_shards(place: Path, classes: int = 3, train: int = 6, val: int = 3) -> Path:
    """``imagenet/imagenet-train-000000.tar``, ...: the images of ``write_imagenet``, shuffled, two shards a part."""
    root = place / "imagenet"
    root.mkdir(parents=True)
    for part, first, count in (("train", 0, train), ("val", train, val)):
        images = [(label, number) for label in range(classes) for number in range(first, first + count)]
        images = [images[index] for index in np.random.default_rng(1).permutation(len(images))]
        for shard, some in enumerate((images[: len(images) // 2], images[len(images) // 2 :])):
            members: list[tuple[str, bytes]] = []
            for label, number in some:
                key = f"{wnids(classes)[label]}_{number}"
                said = json.dumps({"label": label, "width": 64, "filename": f"{key}.JPEG"}).encode()
                # Some writers add the number alone, some a mapping, some both.
                kinds = (("cls", str(label).encode()),) if number % 2 else (("json", said),)
                members += [
                    (f"{key}.jpg", photograph(label, number)),
                    *((f"{key}.{kind}", text) for kind, text in kinds),
                ]
            write_shard(root / f"imagenet-{part}-{shard:06d}.tar", members)
    return root


def spoil(root: Path, name: str) -> None:
    """Overwrite an image, wherever it lies."""
    files = list(root.glob(f"train/*/{name}.JPEG"))
    if files:
        files[0].write_bytes(b"nothing" * 10)
        return
    for shard in root.glob("imagenet-train-*.tar"):
        with tarfile.open(shard) as opened:
            found = [entry for entry in opened if entry.name == f"{name}.jpg"]
        if found:
            content = bytearray(shard.read_bytes())
            content[found[0].offset_data : found[0].offset_data + found[0].size] = bytes(found[0].size)
            shard.write_bytes(content)
