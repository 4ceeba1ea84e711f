"""Functions of tests, run by several processes that find each other as those of ``torchrun`` do."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

__all__ = ["group_of_one", "run_together", "start"]


@contextlib.contextmanager
def group_of_one(folder: Path) -> Iterator[None]:
    """This process as the only one of a group, so that what is shared runs, and is that of this process."""
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def start(count: int, function: Callable[..., None], *arguments: Any) -> Any:
    """Start ``function(*arguments)`` in so many new processes; what is returned has their ``processes``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _child, (count, port, function, arguments), nprocs=count, join=False, start_method="spawn"
    )


def run_together(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run ``function(*arguments)`` in so many new processes; a failure of one is raised here."""
    context = start(count, function, *arguments)
    while not context.join():
        pass


def _child(rank: int, count: int, port: int, function: Callable[..., None], arguments: Any) -> None:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {name: str(value) for name, value in told.items()}
    torch.set_num_threads(1)
    function(*arguments)
