"""How much memory a training takes at its peak."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from spikestill.recipes import DistillRecipe, Recipe
from spikestill.types import InputError

__all__ = ["forget_peak_memory", "peak_memory", "saying_what_to_lower"]

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_THE_PEAK = "5"
_MEBIBYTE = 2**20


@contextlib.contextmanager
def saying_what_to_lower(recipe: Recipe) -> Iterator[None]:
    """Turn the end of the memory into one line that says what takes less of it.

    Raises:
        InputError: when the block finds no memory left.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        ways = [f"lower --batch-size (now {recipe.batch_size})", f"raise --accumulate (now {recipe.accumulate})"]
        if isinstance(recipe, DistillRecipe):
            ways.append(f"lower --timesteps (now {recipe.timesteps})")
            if recipe.gradient == "bptt":
                ways.append("take --gradient rate")
            if not recipe.recompute:
                ways.append("take --recompute true")
        if recipe.precision == "float32":
            ways.append("take --precision bf16")
        raise InputError(f"out of memory: {', '.join(ways)}; the last good checkpoint is kept") from error


def forget_peak_memory(device: torch.device) -> None:
    """Let :func:`peak_memory` begin anew; where the system does not permit that, the old peak stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            _FORGET.write_text(_FORGET_THE_PEAK, encoding="ascii")


def peak_memory(device: torch.device) -> float:
    """The most memory in use at one time since :func:`forget_peak_memory`, in MiB.

    On CUDA that of torch's tensors on the device. On the CPU the resident memory of the whole process: Python, the
    libraries and data that are held in memory are part of it. Linux alone lets the peak be forgotten; elsewhere, and
    where ``/proc`` is closed, it is that of the process's whole life; on Windows, which has no such record, it is 0.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MEBIBYTE
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return _peak_of_life()


def _peak_of_life() -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MEBIBYTE if sys.platform == "darwin" else 1024)
