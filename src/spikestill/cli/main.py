"""The entry point: find the command, run it, and turn wrong input into one line and exit status 2."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from spikestill import trust
from spikestill.cli.launching import follow_launcher
from spikestill.cli.terminal import is_broken_pipe, tolerant_output
from spikestill.text import visible
from spikestill.types import InputError, Interrupted, unknown_name

__all__ = ["COMMANDS", "main"]

_INTERRUPTED = 130
_LONGEST_NAME = 100

COMMANDS = {
    "demo": "embedded data, end to end, a few minutes on two cores",
    "auto": "the best spiking network of a trained ANN within a budget, and why",
    "train": "train an ANN: a teacher, or what is converted afterwards",
    "distill": "train a spiking student, guided by an ANN or alone",
    "convert": "turn a run's ANN into a spiking network without training it",
    "evaluate": "measure a run's network: accuracy per time step, spikes",
    "verify": "hold a run's result against its files, its data and a new measurement",
    "compare": "one table over several runs, mean and spread over their seeds",
    "export": "write a run's network as NIR or ONNX, read it back and replay it",
    "report": "one HTML page of a run, or of several side by side",
    "check": "what in a model becomes spiking, what is rewritten, what is refused",
    "list": "names of methods, models, data sets, objectives, encoders, neurons",
}


_TRUST_CODE = """  --trust-code  with any command: run the python: functions that runs, experiments and recipes name;
                those that you type yourself need no consent"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the program's name; those of this process by default.

    Returns:
        The exit status: 0, 2 for wrong input, 130 after Ctrl-C, 143 after SIGTERM. A fault of spikestill's own raises.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with tolerant_output() as outputs:
        status = _main(words)
        for output in outputs:
            sys.stdout.flush()
            if output.error is not None and not is_broken_pipe(output):
                _complain(InputError(f"cannot write to standard output: {output.error.strerror}"))
                status = status or 2
    return status


def _main(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    _show_remarks()
    _keep_freed_memory()
    follow_launcher()
    if _rank() == 0:
        return _run(words)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        return _run(words)


def _run(words: Sequence[str]) -> int:
    try:
        if words[0] == "--version":
            from spikestill import __version__

            print(__version__)
            return 0
        if words[0] not in COMMANDS:
            raise unknown_name("command", words[0], COMMANDS)
        _check_encoding(words)
        words, trust_code = _trust_code(words)
        with trust.consent(trust.names_in_argv(words), trust_code=trust_code):
            import_module(f"spikestill.cli.{words[0]}_command").run(words[1:])
    except InputError as error:
        _complain(error)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        _complain(InputError(f"'{str(error.filename)[:_LONGEST_NAME]}...' cannot be used: {error.strerror}"))
        return 2
    except KeyboardInterrupt as stop:
        way_on = "the same command" if words[0] in ("auto", "compare") else "--resume"
        if _rank() == 0:
            print(f"spikestill: stopped; {way_on} continues from the last checkpoint", file=sys.stderr)
        return stop.status if isinstance(stop, Interrupted) else _INTERRUPTED
    return 0


def _check_encoding(words: Sequence[str]) -> None:
    """Refuse what is no text: it would become a name in files that are text, after the work was done."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{word!a} is not valid UTF-8: rename it") from error


def _trust_code(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without ``--trust-code``, which every command takes, and whether it was there."""
    kept = [word for word in words if word not in ("--trust-code", "--trust_code")]
    return kept, len(kept) < len(words)


def _complain(error: InputError) -> None:
    """One line, from the first of several processes; from another only where it alone met the error."""
    rank = _rank()
    if rank > 0:
        from spikestill.train.processes import is_shared

        if is_shared(error):
            return
    who = f" process {rank}:" if rank else ""
    print(visible(f"spikestill:{who} {' '.join(str(error).split())}"), file=sys.stderr)


def _rank() -> int:
    """This process's number among those that torchrun or SLURM started together."""
    if "RANK" not in os.environ and "SLURM_PROCID" not in os.environ:
        return 0
    from spikestill.train.processes import own_rank

    return own_rank()


class _Formatter(logging.Formatter):
    """A message may quote a file."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), lines=True)


def _show_remarks() -> None:
    """What the library has to say once, such as that it compiles something, goes to the terminal."""
    log = logging.getLogger("spikestill")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("spikestill: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _keep_freed_memory() -> None:
    """Have the allocator keep what large tensors leave behind, for the next ones, in place of giving it back.

    A training step allocates the same tensors again and again. Given back to the system and mapped in again, they can
    cost more time than what is computed on them (docs/performance.md). Only glibc is known to do so.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if allocator is not None:
        map_no_block, never_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX, M_TRIM_THRESHOLD
        allocator(*map_no_block)
        allocator(*never_trim)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    closing = [_TRUST_CODE, "", "spikestill COMMAND --help says more."]
    return "\n".join(["usage: spikestill COMMAND [options]", "", *lines, "", *closing])
