"""CIFAR-10 and CIFAR-100 in their published files, as torchvision keeps them on disk."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import pickle
import sys
import tarfile
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikestill.data.records import RawData
from spikestill.data.samples import ImageSet
from spikestill.files import regular
from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["read_cifar"]

# Channel mean and standard deviation of the training pixels on the [0, 1] scale, as the field uses them.
_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_TIMEOUT = 20.0
_LARGEST = 2**28
"""Bytes of a file in the archive: the real ones have 155 million at most."""


def read_cifar(name: str, data_dir: Path) -> RawData:
    """Read ``cifar10`` or ``cifar100`` from ``data_dir``, downloading the archive when neither form of it is there.

    The files may lie unpacked (``cifar-10-batches-py/``, ``cifar-100-python/``) or in the published ``.tar.gz``, which
    is then read as it is. Names, checksums and the address are torchvision's.

    Returns:
        uint8 ``[N, 3, 32, 32]``, 50 000 images to train on and 10 000 to test on; CIFAR-100 with its fine labels.

    Raises:
        InputError: missing files that cannot be downloaded, or files whose checksum is wrong.
    """
    source = _source(name)
    checksums = dict(map(tuple, [*source.train_list, *source.test_list]))
    checksums[source.meta["filename"]] = source.meta["md5"]
    folder, archive = data_dir / source.base_folder, data_dir / source.filename
    if all((folder / file).is_file() for file in checksums):
        contents = {file: _from_folder(folder / file) for file in checksums}
        where = folder
    else:
        if not archive.is_file():
            _download(name, source, data_dir)
        contents, where = _from_archive(archive, source.base_folder, checksums), archive
    for file, checksum in checksums.items():
        if hashlib.md5(contents[file], usedforsecurity=False).hexdigest() != checksum:
            raise InputError(f"{name}: '{file}' in '{where}' is damaged (wrong checksum); delete it and get it anew")
    mean, std = _STATISTICS[name]
    return RawData(
        train=_images([contents[file] for file, _ in source.train_list]),
        test=_images([contents[file] for file, _ in source.test_list]),
        class_names=tuple(_unpickle(contents[source.meta["filename"]])[source.meta["key"]]),
        mean=mean,
        std=std,
    )


def _source(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _from_folder(file: Path) -> bytes:
    try:
        return regular(file).read_bytes()
    except OSError as error:
        raise InputError(f"'{file}' cannot be read ({error.strerror})") from error


def _from_archive(archive: Path, folder: str, files: dict[str, str]) -> dict[str, bytes]:
    """The content of ``files``; nothing is unpacked to disk, so no path in the archive can lead astray."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(regular(archive)) as opened:
            for member in opened:
                path, _, file = member.name.removeprefix("./").rpartition("/")
                stream = opened.extractfile(member) if path == folder and file in files else None
                if stream is not None:
                    if member.size > _LARGEST:
                        raise tarfile.ReadError(f"{member.name} has {member.size:,} bytes")
                    contents[file] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"'{archive}' is not a readable archive ({error}); delete it and get it anew") from error
    for file in files:
        if file not in contents:
            raise InputError(f"'{archive}' does not hold '{folder}/{file}'; delete it and get it anew")
    return contents


def _download(name: str, source: Any, data_dir: Path) -> None:
    """Fetch the archive; it appears under its name only when it is complete and its checksum right."""
    way_out = (
        f"put '{source.filename}' or its unpacked folder '{source.base_folder}' into '{data_dir}', "
        "or name another folder with --data-dir"
    )
    partial = data_dir / f"{source.filename}.{os.getpid()}.part"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        checksum = hashlib.md5(usedforsecurity=False)
        print(visible(f"{name}: not in '{data_dir}', downloading {source.filename}"), file=sys.stderr, flush=True)
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT) as stream, partial.open("wb") as file:
            while block := stream.read(1 << 20):
                checksum.update(block)
                file.write(block)
        if checksum.hexdigest() != source.tgz_md5:
            raise InputError(f"{name}: the download came with a wrong checksum; try again, or {way_out}")
        partial.replace(data_dir / source.filename)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise InputError(f"{name}: not found in '{data_dir}' and not downloaded ({reason}); {way_out}") from error
    finally:
        # Nothing to clear away where the folder itself could not be made.
        with contextlib.suppress(OSError):
            partial.unlink()


def _images(batches: list[bytes]) -> ImageSet:
    pixels, labels = [], []
    for content in batches:
        batch = _unpickle(content)
        pixels.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels += batch["labels"] if "labels" in batch else batch["fine_labels"]
    images = torch.from_numpy(np.concatenate(pixels)).contiguous(memory_format=torch.channels_last)
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and plain containers, nothing else.

    CIFAR is published as pickles, and a pickle may call any function it names. The checksums alone would do for the
    published files; this holds also where someone finds a way round an MD5 sum, which is not hard today.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a pickled array needs; they are mapped here, not looked up."""
        # The files name numpy.core, which NumPy 2 keeps only with a warning: ask an array for its maker instead.
        reconstruct = np.empty(0).__reduce__()[0]
        known: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in known:
            raise InputError(f"a CIFAR file asks for {module}.{name}, which CIFAR has no need of: not the real file")
        return known[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into the old pickle protocol; no other codec is let through."""
    if encoding != "latin1":
        raise InputError(f"a CIFAR file asks for the codec {encoding!r}, which CIFAR has no need of: not the real file")
    return text.encode("latin1")


def _unpickle(content: bytes) -> Any:
    # latin1: the files were written by Python 2, whose strings are bytes.
    return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
