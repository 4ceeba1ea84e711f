"""``python -m reliability.kills``: a training that is killed again and again, and what becomes of its run.

A short training of a spiking student runs once undisturbed. Then it runs again, in processes that are killed with
SIGKILL: one half after a random time, the other in the middle of a write, at a random one of its writes, whose file is
cut where it stands. After every kill the run folder is looked at, and the training is taken up with
``--resume``. Once a run is finished it is compared with the undisturbed one, to the last bit, and the next one begins,
until there were as many kills as asked for.
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from reliability.whole import damaged, differing, leftovers
from spikestill.cli.tables import print_rows

__all__ = ["Tally", "main", "run_kills"]

_RECIPE = (
    *("distill", "labels-only", "--data=digits", "--student=vgg5", "--width=0.25", "--limit-train=96"),
    *("--batch-size=32", "--timesteps=2", "--encoder.name=poisson", "--ema=0.9", "--device=cpu", "--logger=none"),
    "--checkpoint-minutes=1e-9",  # after every step
)
_IMPORTED = ["spikestill.train", "spikestill.cli.training", "jsonargparse", "sklearn.datasets", "jinja2"]
"""What processes share, so that they begin with their work."""

_WRITES = 24
"""A kill in a write comes at one of so many first synchronisations of a process, of a file or of a folder."""


@dataclass(frozen=True)
class Doom:
    """How a process is to end.

    Attributes:
        after: seconds until it is killed from outside; None: not from outside.
        write: the write in which it kills itself, counted from 1; None: in none.
        seed: says how much of that write's file is left.
    """

    after: float | None = None
    write: int | None = None
    seed: int = 0


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


def run_kills(kills: int, place: Path, *, epochs: int = 4, seed: int = 0) -> Tally:
    """Kill ``kills`` times, in ``place``, and finish every run that was begun.

    Args:
        kills: how many processes are killed at least; the last run is left to end in peace.
        place: a folder for the runs.
        epochs: of every run.
        seed: of the moments.
    """
    draw, tally = random.Random(seed), Tally()
    reference = place / "reference"
    _process(place / "imports", 0, Doom())  # ends at once, after the imports that all others share
    seconds = time.monotonic()
    if status := _process(reference, epochs, Doom()):
        raise RuntimeError(f"the undisturbed training ended with {status}: see {place / 'log.txt'}")
    seconds = time.monotonic() - seconds
    while tally.kills < kills:
        folder = place / f"run-{tally.runs}"
        while tally.kills < kills and _ended(folder, epochs, _doom(draw, seconds), tally):
            pass
        if not (folder / "result.json").exists():
            _ended(folder, epochs, Doom(), tally)
        _compare(folder, reference, tally)
    return tally


def _doom(draw: random.Random, seconds: float) -> Doom:
    if draw.random() < 0.5:
        return Doom(after=draw.uniform(0, seconds))
    return Doom(write=draw.randint(1, _WRITES), seed=draw.randrange(2**32))


def _ended(folder: Path, epochs: int, doom: Doom, tally: Tally) -> bool:
    """Run one process; whether it was killed. What it leaves is looked at."""
    tally.resumes += (folder / "recipe.yaml").exists()
    before = set(leftovers(folder))
    status = _process(folder, epochs, doom)
    killed = status == -signal.SIGKILL
    tally.kills += killed
    tally.kills_in_a_write += killed and bool(set(leftovers(folder)) - before)
    if not killed and status:
        tally.faults.append(f"a resume ended with {status} in place of going on")
        shutil.rmtree(folder)
    tally.faults += damaged(folder) if folder.exists() else []
    return killed


def _compare(folder: Path, reference: Path, tally: Tally) -> None:
    tally.runs += 1
    if (folder / "result.json").exists():
        tally.leftovers += len(leftovers(folder))
        tally.faults += [f"{folder.name}: {name} is not the undisturbed run's" for name in differing(folder, reference)]
    else:
        tally.faults.append(f"{folder.name} could not be finished")


def _process(folder: Path, epochs: int, doom: Doom) -> int | None:
    """Train or resume in a process of its own; its exit status, negative for a signal."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(_IMPORTED)
    process = processes.Process(target=_train, args=(folder, epochs, doom))
    process.start()
    process.join(doom.after)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def _train(folder: Path, epochs: int, doom: Doom) -> None:
    import torch

    from spikestill.cli import main as command

    torch.set_num_threads(1)
    if doom.write is not None:
        _die_in_write(doom.write, random.Random(doom.seed))
    log = os.open(folder.parent / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(command([*_RECIPE, f"--epochs={epochs}", f"--out={folder}", "--resume"]))


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
    parser = argparse.ArgumentParser("python -m reliability.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=4, help="of every run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        tally = run_kills(options.kills, Path(place), epochs=options.epochs, seed=options.seed)
    figures = asdict(tally) | {"faults": len(tally.faults)}
    print_rows(
        "a training under SIGKILL",
        [name.replace("_", " ") for name in figures],
        [[str(value) for value in figures.values()]],
        texts=0,
    )
    for fault in tally.faults:
        print(fault)
    text = json.dumps(figures)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
