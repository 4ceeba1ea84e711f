"""``python -m tests.robustness.kills``: trainings that are killed again and again, and what becomes of their runs.

Each case of ``cases.py``, every recipe among them, runs once undisturbed. Then it runs again, in processes that are
killed with SIGKILL: one half after a random time, the other in the middle of a write, at a random one of its writes,
whose file is cut where it stands. Of several processes one is killed, or the launcher. After every kill the run folder
is looked at, and the training is taken up with ``--resume``. Once a run is finished it is compared with the undisturbed
one, to the last bit, and the next one begins, until there were as many kills as asked for. With ``--json`` the counts
are kept after every run, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import Any

from spikestill.cli.tables import print_rows
from spikestill.files import write_atomically
from tests.robustness.cases import CASES, SPIKING_TEACHER, Case
from tests.robustness.whole import damaged, differing, leftovers

__all__ = ["Tally", "main", "run_kills"]

_IMPORTED = ["spikestill.train", "spikestill.cli.training", "jsonargparse", "sklearn.datasets", "jinja2"]
"""What processes share, so that they begin with their work."""

_WRITES = 48
"""A kill in a write comes at one of so many first synchronisations of a process, of a file or of a folder."""


@dataclass(frozen=True)
class Doom:
    """How a process is to end.

    Attributes:
        after: seconds until it is killed from outside; None: not from outside.
        write: the write in which it kills itself, counted from 1; None: in none.
        seed: says how much of that write's file is left.
        victim: who is killed from outside: 0 the process itself, 1 and so on one of those that it has started.
    """

    after: float | None = None
    write: int | None = None
    seed: int = 0
    victim: int = 0


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: processes that were killed.
        kills_in_a_write: those of them that left a file under its temporary name.
        resumes: processes that took up what another had left.
        runs: that were finished.
        leftovers: temporary files in finished runs, which no reader looks at.
        faults: whatever must not happen, a line each.
    """

    kills: int = 0
    kills_in_a_write: int = 0
    resumes: int = 0
    runs: int = 0
    leftovers: int = 0
    faults: list[str] = field(default_factory=list)


def run_kills(case: Case, kills: int, place: Path, tally: Tally, *, epochs: int = 3, seed: int = 0) -> None:
    """Kill until there were ``kills`` kills, in ``place``, and finish every run that was begun.

    Args:
        case: what to train.
        kills: how many processes are killed at least; the last run is left to end in peace.
        place: a folder of the case's own, beside which a spiking teacher may lie.
        tally: what happened so far; it is added to after every finished run.
        epochs: of every run.
        seed: of the moments.
    """
    draw = random.Random(f"{seed} {case.name} {tally.runs}")
    place.mkdir()
    training = _Training(case, case.words(place, epochs), place / "log.txt")
    training.process(None, Doom())  # ends at once, after the imports that all others share
    if case.spiking_teacher and not (place.parent / SPIKING_TEACHER.name).exists():
        folder = place.parent / SPIKING_TEACHER.name
        folder.mkdir()
        _undisturbed(_Training(SPIKING_TEACHER, SPIKING_TEACHER.words(folder, 1), folder / "log.txt"), folder / "run")
    reference = place / "reference" / "run"
    seconds = _undisturbed(training, reference)
    while tally.kills < kills:
        folder = place / f"run-{tally.runs}" / "run"
        while tally.kills < kills and _ended(training, folder, _doom(draw, seconds, case), tally):
            pass
        if not (folder / "result.json").exists():
            _ended(training, folder, Doom(), tally)
        _compare(folder, reference, tally)
        shutil.rmtree(folder.parent, ignore_errors=True)


def _undisturbed(training: _Training, folder: Path) -> float:
    """Train without a kill; how many seconds it took."""
    began = time.monotonic()
    if status := training.process(folder, Doom()):
        raise RuntimeError(f"{training.case.name}: the undisturbed training ended with {status}: see {training.log}")
    return time.monotonic() - began


def _doom(draw: random.Random, seconds: float, case: Case) -> Doom:
    if case.devices > 1 or draw.random() < 0.5:
        return Doom(after=draw.uniform(0, seconds), victim=draw.randrange(case.devices + 1))
    return Doom(write=draw.randint(1, _WRITES), seed=draw.randrange(2**32))


def _ended(training: _Training, folder: Path, doom: Doom, tally: Tally) -> bool:
    """Run one process; whether it was killed. What it leaves is looked at."""
    tally.resumes += any(folder.parent.glob("*/recipe.yaml"))  # of the run, or of a stage
    before = set(leftovers(folder.parent))
    status = training.process(folder, doom)
    killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    tally.kills += killed
    tally.kills_in_a_write += killed and bool(set(leftovers(folder.parent)) - before)
    if not killed and status:
        tally.faults.append(f"{training.case.name}: a resume ended with {status} in place of going on")
        shutil.rmtree(folder.parent)
    if folder.parent.exists():
        tally.faults += [f"{training.case.name}: {line}" for line in damaged(folder.parent)]
    return killed


def _compare(folder: Path, reference: Path, tally: Tally) -> None:
    name = f"{folder.parents[1].name} {folder.parent.name}"
    tally.runs += 1
    if (folder / "result.json").exists():
        tally.leftovers += len(leftovers(folder))
        tally.faults += [f"{name}: {file} is not the undisturbed run's" for file in differing(folder, reference)]
    else:
        tally.faults.append(f"{name} could not be finished")


@dataclass(frozen=True)
class _Training:
    """A command that trains or resumes, in processes of their own.

    Attributes:
        case: which.
        words: the command without ``--out``.
        log: where its output goes.
    """

    case: Case
    words: Sequence[str]
    log: Path

    def process(self, folder: Path | None, doom: Doom) -> int | None:
        """Run it once; the exit status, negative for a signal. Without a folder it ends at once."""
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(_IMPORTED)
        words = ["--version"] if folder is None else [*self.words, f"--out={folder}", "--resume"]
        process = processes.Process(target=_train, args=(words, self.log, doom))
        process.start()
        process.join(doom.after)
        if process.is_alive():
            assert process.pid is not None
            workers = _children(process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill([process.pid, *workers][min(doom.victim, len(workers))], signal.SIGKILL)
            process.join()
            while any(map(_is_alive, workers)):
                time.sleep(0.05)
        return process.exitcode


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _train(words: Sequence[str], output: Path, doom: Doom) -> None:
    import torch

    from spikestill.cli import main as command

    torch.set_num_threads(1)
    if doom.write is not None:
        _die_in_write(doom.write, random.Random(doom.seed))
    log = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(command(words))


def _die_in_write(number: int, draw: random.Random) -> None:
    """Have this process kill itself when a file is synchronised for the so many-th time, cut at a random place."""
    synchronise, writes = os.fsync, count(1)

    def die(fd: Any) -> None:
        if next(writes) == number:
            with contextlib.suppress(OSError):  # a folder has no length
                os.ftruncate(fd, int(draw.random() * os.fstat(fd).st_size))
            os.kill(os.getpid(), signal.SIGKILL)
        synchronise(fd)

    os.fsync = die


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts; the exit status is 1 where something happened that must not."""
    parser = argparse.ArgumentParser("python -m tests.robustness.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, shared out among the cases")
    parser.add_argument("--epochs", type=int, default=3, help="of every run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--cases", help="names of cases, separated by semicolons; by default all")
    parser.add_argument("--json", type=Path, help="where the counts are kept after every run, and gone on from")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if options.cases is None or case.name in options.cases.split(";")]
    kept = json.loads(options.json.read_text())["cases"] if options.json and options.json.exists() else {}
    tallies = {name: Tally(**known) for name, known in kept.items()}
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(chosen):
            tally = tallies.setdefault(case.name, Tally())
            share = options.kills * (number + 1) // len(chosen) - options.kills * number // len(chosen)
            while tally.kills < share:
                folder = Path(place) / f"{case.name} {tally.runs}"
                run_kills(case, min(tally.kills + 10, share), folder, tally, epochs=options.epochs, seed=options.seed)
                _keep(options.json, tallies)
            print(f"{case.name}: {tally.kills} kills, {len(tally.faults)} faults", flush=True)
    return _print(tallies)


def _sum(tallies: Mapping[str, Tally]) -> dict[str, int]:
    """The counts of all cases together."""
    found = {}
    for one in fields(Tally):
        values = [getattr(tally, one.name) for tally in tallies.values()]
        found[one.name] = sum(len(value) if isinstance(value, list) else value for value in values)
    return found


def _keep(path: Path | None, tallies: Mapping[str, Tally]) -> None:
    if path is not None:
        cases = {name: asdict(tally) for name, tally in tallies.items()}
        write_atomically(path, (json.dumps({"sum": _sum(tallies), "cases": cases}, indent=1) + "\n").encode())


def _print(tallies: Mapping[str, Tally]) -> int:
    rows = [[name, *map(str, _sum({name: tally}).values())] for name, tally in tallies.items()]
    rows.append(["sum", *map(str, _sum(tallies).values())])
    header = ["case", *(one.name.replace("_", " ") for one in fields(Tally))]
    print_rows("trainings under SIGKILL", header, rows)
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
