"""C++ of this package, compiled at its first use, in seconds, and kept in the user's cache folder.

A library is code, so it is loaded from a folder into which nobody else can write (``private.py``). If no compiler can
build it, or the compiler does not come to an end, plain torch operations serve, and that is said once.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from spikestill.dynamics.private import is_private, private_folder

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
_SECONDS = 240.0
"""After which a compiler is given up; it takes 5 to 15 on one idle core."""
_PROCESSOR_LINES = (
    "flags",
    "Features",
    "isa",
    "model name",
    "CPU implementer",
    "CPU part",
    "CPU variant",
    "uarch",
    "cpu",
)
"""Of /proc/cpuinfo, on x86, ARM, RISC-V and POWER: what -march=native looks at."""


@functools.cache
def library(source: str, *options: str) -> ctypes.CDLL | None:
    """A source file of this folder as a library, compiled with these options; None where it cannot be."""
    compiler = _compiler()
    if compiler is None or _given_up().is_set():
        return None
    try:
        return ctypes.CDLL(str(_built(compiler, source, options)))
    except subprocess.CalledProcessError as error:
        _log.info("%s\n%s", error, error.stderr.decode(errors="replace"))
        _say_plain(f"{compiler} cannot compile the kernels")
    except subprocess.TimeoutExpired:
        _given_up().set()
        _say_plain(f"{compiler} did not compile the kernels within {_SECONDS:g} s")
    except OSError as error:
        _log.info("%s", error)
        _say_plain("the kernels cannot be compiled or loaded")
    return None


def _built(compiler: str, source: str, options: Sequence[str]) -> Path:
    """Where a library lies; it is compiled if it is not there, not whole, or within the reach of others."""
    contents = [(_FOLDER / name).read_bytes() for name in (source, *_HEADERS)]
    key = (contents, options, _FLAGS, _MACHINE_FLAGS, compiler, _version(compiler), platform.machine(), _processor())
    name = f"{Path(source).stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.so"
    path = _cache_folder() / name
    if not (is_private(path) and _is_whole(path)):
        _compile(compiler, _FOLDER / source, options, path)
    return path


def _compile(compiler: str, source: Path, options: Sequence[str], path: Path) -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        for machine in _MACHINE_FLAGS:
            command = [compiler, *_FLAGS, *machine, *options, str(source), "-o", str(built)]
            result = _run(command)
            if result.returncode == 0:
                break
        result.check_returncode()
        content = built.read_bytes()
        built.write_bytes(content + _digest(content))
        built.chmod(0o700)  # whatever the umask: what others can write is not loaded
        built.replace(path)
    _log.info("compiled %s in %.1f s", source.name, time.perf_counter() - started)


def _run(command: Sequence[str], seconds: float | None = None) -> subprocess.CompletedProcess[bytes]:
    """As ``subprocess.run``; what does not end in time is ended together with the processes that it has started.

    Raises:
        subprocess.TimeoutExpired: when that had to be.
    """
    pipe = subprocess.PIPE
    alone = os.name == "posix"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=alone
    ) as process:
        try:
            out, said = process.communicate(timeout=seconds or _SECONDS)
        except BaseException:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL) if alone else process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, said)


@functools.cache
def _version(compiler: str) -> bytes:
    """What a compiler says of itself: after an update its libraries are built anew."""
    return _run([compiler, "--version"], 30).stdout


@functools.cache
def _given_up() -> threading.Event:
    """Set once a compiler has not come to an end: it is not asked again."""
    return threading.Event()


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
        folder = private_folder((Path(base) if base else Path.home() / ".cache") / "spikestill")
        if folder is not None:
            return folder
    except (OSError, RuntimeError):  # no home at all is a RuntimeError
        pass
    folder = Path(tempfile.mkdtemp(prefix="spikestill-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _processor() -> str:
    """What -march=native looks at: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    told = sorted({line for line in lines if line.partition(":")[0].strip() in _PROCESSOR_LINES})
    if told:
        return "\n".join(told)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # macOS
        return (
            _run(["sysctl", "machdep.cpu", "hw.optional"], 30).stdout.decode(errors="replace") or platform.processor()
        )
    return platform.processor()
