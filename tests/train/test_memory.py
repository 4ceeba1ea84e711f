from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from spikestill.train import memory
from spikestill.train.memory import forget_peak_memory, peak_memory

CPU = torch.device("cpu")


def take(mebibytes: int) -> None:
    """Use new memory of that size for a while, every page of it, straight from the system."""
    with mmap.mmap(-1, mebibytes * 2**20) as memory_of_the_system:
        for start in range(0, len(memory_of_the_system), 4096):
            memory_of_the_system[start] = 1


def test_what_was_taken_for_a_while_shows_in_the_peak() -> None:
    forget_peak_memory(CPU)
    before = peak_memory(CPU)
    assert before > 10
    take(200)
    assert peak_memory(CPU) - before > 150


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_a_peak_is_forgotten() -> None:
    forget_peak_memory(CPU)
    take(300)
    high = peak_memory(CPU)
    forget_peak_memory(CPU)
    assert peak_memory(CPU) < high - 150


def test_where_proc_is_closed_the_peak_is_that_of_the_process_s_life(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forget_peak_memory(CPU)
    usual = peak_memory(CPU)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent" / "status")
    monkeypatch.setattr(memory, "_FORGET", tmp_path / "absent" / "clear_refs")
    forget_peak_memory(CPU)
    assert peak_memory(CPU) > 0.5 * usual
