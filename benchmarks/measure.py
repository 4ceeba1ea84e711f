"""Time, interleaved: A B A B ...; and the memory that one step takes beyond what was there before it."""

from __future__ import annotations

import contextlib
import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

__all__ = ["interleaved", "peak_memory", "spread"]


def interleaved(
    work: Mapping[str, Callable[[], object]], device: str, *, seconds: float, least: int, most: int
) -> dict[str, list[float]]:
    """The seconds that each piece of work took, all of them once a round.

    Args:
        work: by name; each has run before.
        device: "cpu" or "cuda".
        seconds: no further round begins when these are over.
        least: rounds, however long they take.
        most: rounds, however short they are.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    end = time.perf_counter() + seconds
    for done in range(most):
        if done >= least and time.perf_counter() > end:
            break
        for name, one in work.items():
            gc.collect()
            times[name].append(_seconds(one, device))
    return times


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of some times, and how many they are."""
    lower, upper = times[0], times[0]
    if len(times) > 1:
        lower, _, upper = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": statistics.median(times), "lower": lower, "upper": upper, "rounds": len(times)}


def peak_memory(work: Callable[[], object], device: str) -> int:
    """The bytes that a piece of work took at its peak, beyond those in use before it.

    On CUDA by the allocator. On the CPU by the resident size of this process, which should be a fresh one that does
    nothing else; the kernel's record of the peak is cleared first where it can be (Linux), since it covers the whole
    life of the process, compilers included.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _forget_peak()
    before = _resident("VmRSS")
    work()
    return max(0, _resident("VmHWM") - before)


def _seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    start_time = time.perf_counter()
    work()
    return time.perf_counter() - start_time


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident(field: str) -> int:
    """VmRSS, the resident bytes, or VmHWM, their peak; where there is no /proc, the peak for both."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
