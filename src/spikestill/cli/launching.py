"""Starting a command as several processes on this machine, and ending them together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

__all__ = ["follow_launcher", "launch"]

_LAUNCHER = "SPIKESTILL_LAUNCHER"
"""In the environment of a worker: the process that started it."""

_POLL = 0.05
_GRACE = 10.0
"""Seconds for which the others may still say something after one has failed, and may save when the launcher is gone."""


def launch(processes: int, words: Sequence[str]) -> None:
    """Run a command in so many processes, which find each other as those of ``torchrun`` do, and wait for them.

    A signal that asks this process to stop (SIGTERM, Ctrl-C) is passed on to all of them, once each time: they write a
    checkpoint and end. If one fails, the others are ended. If this process is killed, they end too (see
    :func:`follow_launcher`).

    Args:
        processes: how many.
        words: the command and its options.

    Raises:
        SystemExit: with the status of the process that failed first, 128 and its number for a signal.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # Kept here, so that no other program can take the port before the workers listen on it.
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    workers = [_started(rank, processes, store.port, words) for rank in range(processes)]
    try:
        with _passed_on(workers) as passed:
            failed = _first_failure(workers)
    finally:
        _end(workers)
    if failed is not None:
        raise SystemExit(_status(failed, workers, passed))


def _started(rank: int, count: int, port: int, words: Sequence[str]) -> subprocess.Popen[bytes]:
    told: dict[str, object] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "GROUP_RANK": 0,
    }
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "spikestill"}
    told |= {"TORCHELASTIC_USE_AGENT_STORE": True, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    told |= {_LAUNCHER: os.getpid()}
    # -P: the current folder is no place to import from. A session of its own: Ctrl-C reaches the launcher alone.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "spikestill.cli", *words],
        env=os.environ | {name: str(value) for name, value in told.items()},
        start_new_session=True,
    )


@contextlib.contextmanager
def _passed_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[set[int]]:
    """Pass signals that ask to stop on to the workers, in place of acting on them; those that were are yielded."""
    passed: set[int] = set()

    def pass_on(number: int, frame: object) -> None:
        passed.add(number)
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield passed
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_failure(workers: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all workers, or for one that fails; its rank. One that was killed comes before one that stumbled."""
    while True:
        ended = {rank: worker.poll() for rank, worker in enumerate(workers)}
        failed = {rank: status for rank, status in ended.items() if status}
        if failed:
            return min(failed, key=lambda rank: (failed[rank] >= 0, rank))
        if None not in ended.values():
            return None
        time.sleep(_POLL)


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Give the workers that are left a while to end by themselves, then kill them."""
    until = time.monotonic() + _GRACE
    for worker in workers:
        try:
            worker.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _status(failed: int, workers: Sequence[subprocess.Popen[bytes]], passed: set[int]) -> int:
    """The exit status, and one line about a worker that could not say itself why it ended."""
    status = workers[failed].returncode
    if -status in passed:  # it had nothing to save yet
        return 128 - int(status)
    stopped = {128 + number for number in (signal.SIGINT, signal.SIGTERM)}
    if status == 2 or status in stopped:  # wrong input, or a request to stop: it has said so
        return int(status)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed with exit status {status}"
    memory = " (the system may have run out of memory)" if status == -signal.SIGKILL else ""
    print(
        f"spikestill: process {failed} of {len(workers)} (pid {workers[failed].pid}) {how}{memory}; the others were "
        "ended; --resume continues from the last checkpoint",
        file=sys.stderr,
    )
    return 128 - status if status < 0 else int(status)


def follow_launcher() -> None:
    """Of a worker: end when the process that started it is gone, as if it had been asked to stop."""
    launcher = int(os.environ.get(_LAUNCHER, 0))
    if launcher:
        threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_POLL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
