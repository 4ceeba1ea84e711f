"""``python -m tests.robustness.locks``: many processes that want the same runs, and are killed again and again.

Each process goes through all runs, in nearly the same order as the others. It takes a run's lock, with or without
waiting, makes the run if it is not finished, and sometimes leaves the folder empty, as a training does that is refused.
Meanwhile all of them write one shared file. Processes are killed with SIGKILL at random times, and others take their
place. Two processes in one run at a time, a run that is made twice, and a shared file that is not whole are faults.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spikestill.cli.tables import print_rows
from spikestill.files import write_atomically
from spikestill.runs import Run

__all__ = ["Tally", "main", "run_locks"]

_LONGEST_LIFE = 0.4
"""Seconds after which a process is killed at the latest."""
_APART = 4
"""How many runs two processes are apart at most, of those that none has made yet."""
_SHARED_BYTES = 100_000


@dataclass
class Tally:
    """What happened.

    Attributes:
        runs: that were made.
        kills: processes that were killed.
        faults: whatever must not happen, a line each.
    """

    runs: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)


def run_locks(runs: int, folder: Path, *, processes: int = 8, seed: int = 0) -> Tally:
    """Have ``processes`` processes make ``runs`` runs in ``folder``, killing them meanwhile.

    Args:
        runs: how many.
        folder: empty; for the runs and the records of who made them.
        processes: how many at a time.
        seed: of the moments, and of what each process does.
    """
    draw, tally = random.Random(seed), Tally()
    for name in ("witness", "runs"):
        (folder / name).mkdir()
    context = multiprocessing.get_context("fork")
    living: dict[Any, float] = {}
    while not _all_made(folder, runs):
        while len(living) < processes:
            process = context.Process(target=_work, args=(folder, runs, draw.randrange(2**32)))
            process.start()
            living[process] = time.monotonic() + draw.uniform(0.02, _LONGEST_LIFE)
        time.sleep(0.005)
        for process, end in list(living.items()):
            if process.is_alive() and time.monotonic() > end:
                process.kill()
                tally.kills += 1
            if not process.is_alive():
                process.join()
                if process.exitcode not in (0, -9):
                    tally.faults.append(f"a process ended with {process.exitcode}")
                del living[process]
    for process in living:
        process.kill()
        process.join()
    tally.faults += _faults(folder)
    tally.runs = sum((folder / "runs" / str(number) / "result.json").exists() for number in range(runs))
    return tally


def _all_made(folder: Path, runs: int) -> bool:
    return all(Run(folder / "runs" / str(number)).finished for number in range(runs))


def _faults(folder: Path) -> list[str]:
    made = Counter((folder / "made.txt").read_text().split())
    twice = [f"run {number} was made {times} times" for number, times in made.items() if times > 1]
    heard = folder / "faults.txt"
    return twice + (heard.read_text().splitlines() if heard.exists() else [])


def _work(folder: Path, runs: int, seed: int) -> None:
    """What one process does: all runs, in nearly the same order as the others."""
    draw = random.Random(seed)
    # All of them are near the same run at a time: those who wait for its lock meet those who come anew.
    for number in sorted(range(runs), key=lambda number: number + draw.uniform(0, _APART)):
        run = Run(folder / "runs" / str(number))
        if run.finished:
            continue
        with run.held(wait=draw.random() < 0.5) as free:
            if free and not run.finished:
                with _alone(folder, number):
                    _make(folder, run, draw)
        if draw.random() < 0.1:
            _write_shared(folder, draw)


def _make(folder: Path, run: Run, draw: random.Random) -> None:
    if draw.random() < 0.5:  # refused: nothing is written, the folder goes again
        return
    time.sleep(draw.uniform(0, 0.005))
    run.write_yaml("recipe.yaml", {"method": "none"})
    time.sleep(draw.uniform(0, 0.005))
    run.write_json("result.json", {"made": True})
    _note(folder / "made.txt", run.folder.name)


@contextlib.contextmanager
def _alone(folder: Path, number: int) -> Iterator[None]:
    """Hold a second lock, on a file that nobody removes: who holds the run's must get it at once.

    Of a process that is killed, Linux releases the lock on what was opened last first, and this is opened last.
    """
    witness = os.open(folder / "witness" / str(number), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _note(folder / "faults.txt", f"two processes were in run {number} at a time")
    try:
        yield
    finally:
        os.close(witness)


def _write_shared(folder: Path, draw: random.Random) -> None:
    """Write the shared file, all of one letter, and look whether it is."""
    shared = folder / "shared.txt"
    letter = bytes([draw.randrange(97, 123)])
    write_atomically(shared, letter * _SHARED_BYTES)
    found = shared.read_bytes()
    if len(found) != _SHARED_BYTES or len(set(found)) != 1:
        _note(folder / "faults.txt", f"the shared file held {len(found)} bytes of {len(set(found))} writers")


def _note(path: Path, line: str) -> None:
    """Append a line, in one write."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts; the exit status is 1 where something happened that must not."""
    parser = argparse.ArgumentParser("python -m tests.robustness.locks", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the counts")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = run_locks(options.runs, Path(folder), processes=options.processes, seed=options.seed)
    figures = asdict(tally) | {"faults": len(tally.faults)}
    print_rows("locks under SIGKILL", list(figures), [[str(value) for value in figures.values()]], texts=0)
    print("\n".join(tally.faults[:20]))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
