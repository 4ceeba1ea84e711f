"""WebDataset shards: tar files in which an image and its label follow each other under one key.

They are read with the standard library. The package ``webdataset`` streams shards and shuffles within a buffer, so that
an epoch's order depends on how many processes read, and a stop in mid-epoch cannot be continued exactly. An index of
where each image begins gives any order, and a resume to the last bit.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spikestill.data.encoded import Shards, packed
from spikestill.data.unreadable import Unreadable
from spikestill.files import regular
from spikestill.progress import Progress
from spikestill.types import InputError

__all__ = ["read_shards"]

_MOST_CLASSES = 2**31
_IMAGES = ("jpg", "jpeg", "png", "webp")


@dataclass
class _Index:
    """Columns of the index, as they grow."""

    shard: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass
class _Sample:
    """What has been seen under one key: where its image lies, and its label."""

    name: str = ""
    offset: int = 0
    size: int = 0
    label: int = -1
    label_is_its_own: bool = False


def read_shards(files: Sequence[Path], title: str, unreadable: Unreadable) -> tuple[Shards, list[int]]:
    """Where each image lies, and its label.

    A key is a member's name up to the first dot of its last part; what follows the dot is the kind: ``jpg``, ``jpeg``,
    ``png`` or ``webp`` for the image, ``cls`` (a number as text) or ``json`` (a mapping with ``label``) for its class;
    ``cls`` counts where both are there. Other kinds are passed over.

    Args:
        files: in order.
        title: for the progress.
        unreadable: what happens to a shard that cannot be read; what comes before the damage is kept.

    Raises:
        InputError: a shard that cannot be read (damaged, or compressed: its members have no place then), an image
            without a label or the reverse, a label that is no number of 0 or more, or no image at all.
    """
    progress = Progress(title, len(files), "shards")
    index = _Index()
    for number, file in enumerate(files):
        try:
            for sample in _samples(file):
                index.shard.append(number)
                index.offsets.append(sample.offset)
                index.sizes.append(sample.size)
                index.names.append(sample.name)
                index.labels.append(sample.label)
        except (tarfile.TarError, OSError, EOFError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            unreadable.meet(InputError(f"'{file}' is not a readable uncompressed tar file ({reason})"))
        progress.show(number + 1)
    if not index.labels:
        raise InputError(f"'{files[0]}' and the shards beside it hold no image")
    offsets, sizes = (np.array(column, dtype=np.int64) for column in (index.offsets, index.sizes))
    store = Shards(tuple(files), np.array(index.shard, dtype=np.int32), offsets, packed(index.names), sizes)
    return store, index.labels


def _samples(file: Path) -> Iterator[_Sample]:
    key: str | None = None
    sample = _Sample()
    with tarfile.open(regular(file), "r:") as opened:
        for member in opened:
            if not member.isfile():
                continue
            folder, slash, last = member.name.rpartition("/")
            stem, _, kind = last.partition(".")
            if folder + slash + stem != key:
                if key is not None:
                    yield _complete(file, key, sample)
                key, sample = folder + slash + stem, _Sample()
            _add(file, opened, member, kind.lower(), sample)
        if not _ends_as_it_should(opened):
            raise tarfile.ReadError("it ends too early")
    if key is not None:
        yield _complete(file, key, sample)


def _add(file: Path, opened: tarfile.TarFile, member: tarfile.TarInfo, kind: str, sample: _Sample) -> None:
    if kind in _IMAGES:
        sample.name, sample.offset, sample.size = member.name, member.offset_data, member.size
    elif kind == "cls" or (kind == "json" and not sample.label_is_its_own):
        stream = opened.extractfile(member)
        assert stream is not None
        sample.label = _label(file, member.name, kind, stream.read())
        sample.label_is_its_own = kind == "cls"


def _ends_as_it_should(opened: tarfile.TarFile) -> bool:
    """Whether a block of zeros closes the file: the library takes half a header for the end without a word."""
    stream = opened.fileobj
    assert stream is not None
    stream.seek(opened.offset)
    return stream.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _label(file: Path, name: str, kind: str, content: bytes) -> int:
    """The number in a label's member; -1 for a ``json`` that says nothing of a label."""
    try:
        value = json.loads(content).get("label") if kind == "json" else content.decode().strip()
        label = -1 if value is None else int(value)
        if label >= _MOST_CLASSES:
            raise ValueError("no data set has so many classes")
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"'{name}' in '{file}' must hold a class as a number, not {content[:40]!r}") from error
    if value is not None and label < 0:
        raise InputError(f"'{name}' in '{file}': label {label} is negative; labels count from 0")
    return label


def _complete(file: Path, key: str, sample: _Sample) -> _Sample:
    if not sample.name:
        raise InputError(f"'{key}' in '{file}' has no image; it needs {key}.jpg")
    if sample.label < 0:
        raise InputError(f"'{key}' in '{file}' has no label; it needs {key}.cls, or {key}.json with a label")
    return sample
