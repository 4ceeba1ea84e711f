"""``python -m tests.robustness.fuzz``: damaged files of every format, and what their readers make of them.

A valid file is damaged in a seeded way and read as a command reads it. Allowed are a result, and ``InputError``: a line
for the user. Anything else is a fault: another exception, too much time or memory, the end of the process, and a file
that appears, goes or changes. The readers run in a process of their own, which a case that ends it does not outlive.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NoReturn

from spikestill.cli.tables import print_rows
from spikestill.types import InputError
from tests.robustness.mutations import mutated
from tests.robustness.readers import FORMATS

__all__ = ["Counts", "main", "run_fuzz"]

_SECONDS = 10
"""Of processor time a case may take."""
_SILENCE = 180
"""Seconds without a word after which a process counts as hanging where no signal reaches it."""
_MEMORY = 2 * 2**30
"""Bytes that a case may take beside what the process had."""
_LONGEST_LINE = 4100


class _TooLongError(BaseException):
    """The time of a case is over; no reader's ``except Exception`` takes it for its own."""


@dataclass
class Counts:
    """Of one format.

    Attributes:
        cases: files that were read.
        accepted: those that gave a result.
        refused: those that gave one line.
        faults: by what happened, the numbers of the cases.
    """

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    faults: dict[str, list[int]] = field(default_factory=dict)

    def add(self, case: int, outcome: str) -> None:
        """Count one case."""
        self.cases += 1
        if outcome in ("accepted", "refused"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            self.faults.setdefault(outcome, []).append(case)


def run_fuzz(names: Iterable[str], mutations: int, place: Path, *, seed: int = 0, first: int = 0) -> dict[str, Counts]:
    """Read ``mutations`` damaged files of each of the named formats.

    Args:
        names: of ``FORMATS``.
        mutations: how many of each.
        place: an empty folder.
        seed: of the damages; with a format's name and a case's number it gives the same file again.
        first: the number of the first case.
    """
    found = {}
    for name in names:
        counts, case = Counts(), first
        while case < first + mutations:
            case = _some(name, seed, range(case, first + mutations), place, counts)
        found[name] = counts
    return found


def _some(name: str, seed: int, cases: range, place: Path, counts: Counts) -> int:
    """Cases in one process until they are through or it ends; the number of the next one."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.robustness.readers", "spikestill.train", "jsonargparse"])
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=_read_all, args=(name, seed, cases, place, sender))
    process.start()
    sender.close()
    case = cases.start
    try:
        while case < cases.stop and receiver.poll(_SILENCE):
            counts.add(case, receiver.recv())
            case += 1
    except EOFError:
        process.join()
        counts.add(case, f"the process ended with {process.exitcode}")
        case += 1
    else:
        if case < cases.stop:
            counts.add(case, "hangs")
            case += 1
    process.kill()
    process.join()
    return case


def _read_all(name: str, seed: int, cases: range, place: Path, sender: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    kind = FORMATS[name]
    folder = place / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)  # an earlier process may have ended in it
    folder.mkdir()
    file = kind.write(folder)
    valid = file.read_bytes()
    kind.read(file)  # what a first call imports and compiles belongs to no case
    # Relative paths in a file lead into the folder, where a file that appears is noticed.
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGPROF, _end)
    used = 4096 * int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
    for case in cases:
        file.write_bytes(mutated(valid, kind.kind, random.Random(f"{seed} {name} {case}")))
        before = _listed(place)
        outcome = _outcome(name, file)
        if outcome in ("accepted", "refused") and _listed(place) != before:
            outcome = "a file appeared, went or changed"
        sender.send(outcome)


def _outcome(name: str, file: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        FORMATS[name].read(file)
    except InputError as error:
        line = str(error)
        good = line and "\n" not in line and len(line) <= _LONGEST_LINE
        return "refused" if good else f"refused by {len(line)} characters in {line.count(chr(10)) + 1} lines"
    except _TooLongError as error:
        return f"more than {_SECONDS} s: {_where(error)}"
    except BaseException as error:  # a panic of a Rust library is no Exception
        return f"{type(error).__name__}: {_where(error)}: {' '.join(str(error).split())[:60]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "accepted"


def _where(error: BaseException) -> str:
    """The last lines of ours that it came through."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "spikestill" in frame.filename]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-2:])


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise _TooLongError


def _listed(place: Path) -> set[tuple[str, int, int]]:
    """Every file under a folder, with its length and when it was written."""
    return {(str(path), (said := path.stat()).st_size, said.st_mtime_ns) for path in place.rglob("*") if path.is_file()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts by format; the exit status is 1 where there is a fault."""
    parser = argparse.ArgumentParser("python -m tests.robustness.fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000, help="of each format")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutation, to see one again")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    options = parser.parse_args(arguments)
    found: dict[str, Counts] = {}
    for name in options.formats:
        with tempfile.TemporaryDirectory() as place:
            found |= run_fuzz([name], options.mutations, Path(place), seed=options.seed, first=options.first)
        print(f"{name}: {_figures(found[name])}", flush=True)
        for what, cases in sorted(found[name].faults.items(), key=lambda fault: -len(fault[1])):
            print(f"  {len(cases)} times, first {cases[0]}: {what}", flush=True)
    rows = [[name, *(str(figure) for figure in _figures(counts).values())] for name, counts in found.items()]
    print_rows("damaged files", ["format", *_figures(Counts())], rows)
    text = json.dumps({name: _figures(counts) for name, counts in found.items()})
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 1 if any(counts.faults for counts in found.values()) else 0


def _figures(counts: Counts) -> dict[str, int]:
    faults = sum(map(len, counts.faults.values()))
    return {"cases": counts.cases, "accepted": counts.accepted, "refused": counts.refused, "faults": faults}


if __name__ == "__main__":
    sys.exit(main())
