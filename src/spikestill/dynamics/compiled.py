"""C++ of this package, compiled at its first use, in seconds, and kept in the user's cache folder.

Where there is no compiler that can, plain torch operations serve, and that is said once.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["library"]

_log = logging.getLogger("spikestill")

_FOLDER = Path(__file__).parent
_HEADERS = ("floats.h", "spikes.h")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_MACHINE_FLAGS = (
    ("-march=native", "-mprefer-vector-width=512", "-fopenmp"),
    ("-march=native", "-fopenmp"),
    ("-march=native",),
    (),
)
"""Tried in turn: not every compiler knows this processor, or OpenMP."""


@functools.cache
def library(source: str, *options: str) -> ctypes.CDLL | None:
    """A source file of this folder as a library, compiled with these options; None where it cannot be."""
    compiler = _compiler()
    if compiler is None:
        return None
    contents = [(_FOLDER / name).read_bytes() for name in (source, *_HEADERS)]
    key = (contents, options, _FLAGS, compiler, platform.machine(), _processor())
    name = f"{Path(source).stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.so"
    try:
        path = _cache_folder() / name
        if not _is_whole(path):
            _compile(compiler, _FOLDER / source, options, path)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        _log.info("%s\n%s", error, error.stderr.decode(errors="replace"))
        _say_plain(f"{compiler} cannot compile the kernels")
    except OSError as error:
        _log.info("%s", error)
        _say_plain("the kernels cannot be compiled or loaded")
    return None


def _compile(compiler: str, source: Path, options: Sequence[str], path: Path) -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        for machine in _MACHINE_FLAGS:
            command = [compiler, *_FLAGS, *machine, *options, str(source), "-o", str(built)]
            result = subprocess.run(command, capture_output=True, check=False)
            if result.returncode == 0:
                break
        result.check_returncode()
        content = built.read_bytes()
        built.write_bytes(content + _digest(content))
        built.replace(path)
    _log.info("compiled %s in %.1f s", source.name, time.perf_counter() - started)


def _is_whole(path: Path) -> bool:
    """Whether a library ends in the digest of the rest: loading a damaged one may end the process."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    size = len(_digest(b""))
    return content[-size:] == _digest(content[:-size])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@functools.cache
def _compiler() -> str | None:
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if compiler is None:
        _say_plain("no C++ compiler found")
    return compiler


@functools.cache
def _say_plain(reason: str) -> None:
    _log.warning("%s: neurons run on plain torch operations, several times slower (install g++)", reason)


@functools.cache
def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "spikestill"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home at all is a RuntimeError
        pass
    folder = Path(tempfile.mkdtemp(prefix="spikestill-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _processor() -> str:
    """What -march=native looks at: a home folder may be shared by machines that differ."""
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return platform.processor()
