"""Standard output and standard error that end no command: closed, broken, full, or of a narrow encoding."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

__all__ = ["Output", "is_broken_pipe", "tolerant_output"]


_PATIENCE = 0.01


class Output(io.RawIOBase):
    """A file descriptor that takes everything; once a write fails, it is left alone.

    Attributes:
        error: why.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:  # noqa: D102
        return True

    def fileno(self) -> int:  # noqa: D102
        return self._descriptor

    def isatty(self) -> bool:  # noqa: D102
        return os.isatty(self._descriptor)

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """How much was written, or would have been."""
        if self.error is None:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:  # whoever reads is slower than this
                time.sleep(_PATIENCE)
                return 0
            except OSError as error:
                self.error = error
        return len(content)


@contextlib.contextmanager
def tolerant_output() -> Iterator[list[Output]]:
    """Let nothing that is printed raise: what cannot be written is lost, what cannot be encoded is escaped.

    Streams that another program has put in the place of this process's own stay as they are.

    Yields:
        Standard output, if it is this process's own, to be asked afterwards whether it failed.
    """
    _fill_closed_descriptors()
    streams, found = (sys.stdout, sys.stderr), []
    if _is_own(sys.stdout, sys.__stdout__):
        sys.stdout, output = _tolerant(sys.stdout, 1)
        found.append(output)
    if _is_own(sys.stderr, sys.__stderr__):
        sys.stderr, _ = _tolerant(sys.stderr, 2)
    try:
        yield found
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):  # closed already
                stream.flush()
        sys.stdout, sys.stderr = streams


def is_broken_pipe(output: Output) -> bool:
    """Whether its reader went away, as ``head`` does when it has enough."""
    return output.error is not None and output.error.errno == errno.EPIPE


def _is_own(stream: TextIO | None, original: TextIO | None) -> bool:
    return stream is None or stream is original


def _tolerant(stream: TextIO | None, descriptor: int) -> tuple[TextIO, Output]:
    if stream is not None:
        stream.flush()
    output = Output(descriptor)
    encoding = "utf-8" if stream is None else stream.encoding
    by_line = descriptor == 2 or output.isatty()
    buffered = io.BufferedWriter(output)  # type: ignore[type-var]
    return io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=by_line), output


def _fill_closed_descriptors() -> None:
    """Open nothing in the place of what is closed: the next file would get its number, and whatever is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
