"""Many files read in parallel and in order; those that cannot be read are met one by one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from spikestill.data.unreadable import Unreadable
from spikestill.progress import Progress
from spikestill.types import InputError

__all__ = ["read_all"]

# Files a worker takes at a time: enough to hide the pool's own cost for images of 32x32 pixels.
_CHUNK = 64
# A file read in less than this (seconds) counts as small.
_SMALL = 5e-4

Item = TypeVar("Item")
Arrays = list[np.ndarray | InputError]


def read_all(
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    total: int,
    *,
    title: str,
    unit: str = "images",
    unreadable: Unreadable | None = None,
) -> list[np.ndarray | None]:
    """What ``read`` makes of every item, in order; None in the place of one that was left out.

    Args:
        items: what to read.
        read: raises ``InputError`` for an item that cannot be read.
        total: how many there are, for the progress.
        title: what is being done, for the progress on standard error.
        unit: what is counted there.
        unreadable: what happens to items that cannot be read; None refuses them.

    Raises:
        InputError: an item that cannot be read and may not be left out.
    """
    arrays: list[np.ndarray | None] = []
    progress = Progress(title, total, unit)

    def take(chunk: Arrays) -> None:
        for array in chunk:
            if isinstance(array, InputError):
                if unreadable is None:
                    raise array
                unreadable.meet(array)
            arrays.append(None if isinstance(array, InputError) else array)
        progress.show(len(arrays))

    def work(chunk: list[Item]) -> Arrays:
        return [_result_or_error(read, item) for item in chunk]

    items = iter(items)
    started = time.monotonic()
    take(work(list(islice(items, _CHUNK))))
    # Small files are mostly Python's work, over which several threads would only quarrel (CIFAR-10: 8 s instead of 6 s
    # with two); large ones are the codec's, which runs beside Python.
    small = time.monotonic() - started < _SMALL * len(arrays)
    workers = 1 if small else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for chunk in _map_ahead(pool, work, _chunks(items), 2 * workers):
            take(chunk)
    return arrays


def _result_or_error(read: Callable[[Item], np.ndarray], item: Item) -> np.ndarray | InputError:
    try:
        return read(item)
    except InputError as error:
        return error


def _chunks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _map_ahead(
    pool: ThreadPoolExecutor, work: Callable[[list[Item]], Arrays], chunks: Iterator[list[Item]], ahead: int
) -> Iterator[Arrays]:
    """Like ``pool.map``, which would read all encoded content into memory at once: this keeps ``ahead`` chunks."""
    waiting = [pool.submit(work, chunk) for chunk in islice(chunks, ahead)]
    try:
        while waiting:
            yield waiting.pop(0).result()
            waiting.extend(pool.submit(work, chunk) for chunk in islice(chunks, 1))
    finally:
        for future in waiting:
            future.cancel()
