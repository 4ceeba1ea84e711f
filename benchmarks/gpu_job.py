"""What a part of ``benchmarks.gpu`` is given: its conditions, its time, and where it writes."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu_record import Record
from benchmarks.setting import Setting

__all__ = ["Job"]

_TIMING = {"seconds": 3.0, "least": 5, "most": 30}
_TOY_TIMING = {"seconds": 0.0, "least": 1, "most": 1}


@dataclass
class Job:
    """What a part is given.

    Attributes:
        part: its name.
        record: where it writes.
        device: cuda or cpu.
        toy: whether it only has to run.
        batch: images a batch.
        data: what ResNet-18 is trained on.
        end: of its time, by ``time.monotonic``.
    """

    part: str
    record: Record
    device: str
    toy: bool
    batch: int
    data: str
    end: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    @property
    def timing(self) -> dict[str, Any]:
        """Of ``interleaved``."""
        return _TOY_TIMING if self.toy else _TIMING

    def setting(self, network: str, timesteps: int) -> Setting:
        """A comparison's conditions: bf16."""
        size = {"batch": 4, "width": 1 / 16, "image_size": 8} if self.toy else {"batch": self.batch}
        return Setting(network, timesteps, "bf16", device=self.device, **size)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Something that may fail, which is then written down; what it held in memory is let go."""
        try:
            yield
        except Exception as error:
            said = str(error).strip().splitlines()
            self.record.fail(self.part, name, f"{type(error).__name__}: {said[0] if said else ''}")
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def has_time(self, name: str, seconds: float = 0.0) -> bool:
        """Whether so many seconds are left; if not, that is written down."""
        if self.left > (0.0 if self.toy else seconds):
            return True
        self.record.fail(self.part, name, "no time was left")
        return False
