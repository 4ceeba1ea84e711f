"""``python -m benchmarks.gpu``: what is to be measured on a GPU, in one call of eight minutes.

It needs a checkout and torch; packages that are missing may lie as wheels in a folder (``--wheels DIR``). The parts run
by importance, each in a process of its own, so a part that crashes or hangs stops no other; each gets its share of the
time that is left. ``results.json`` and ``results.md`` are written after every measurement, so a cut leaves what was
measured. What fails is recorded with its reason.

``--toy`` runs all of it on the CPU, at a size at which the numbers say nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_record import Record

PARTS = {
    "kernels": 1.0,
    "training": 2.5,
    "memory": 0.7,
    "graphs": 0.8,
    "inference": 0.7,
    "resnet18": 2.5,
    "fastest": 1.8,
    "tests": 1.0,
}
"""The parts, by importance, with their shares of the time."""

_GRACE = 20.0
"""Seconds that a part may take longer than its share, to end what it has begun."""
_NEEDED = ("torch", "numpy", "yaml", "triton", "pyarrow", "PIL", "spikingjelly", "loguru", "pytest", "hypothesis")
"""Packages that some part imports; those that are missing are recorded at the start."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that the command line asks for."""
    options = _parsed(arguments)
    if options.part is not None:
        from benchmarks import gpu_parts

        gpu_parts.run(options.part, options, Record.open(options.out))
        return
    end = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    record = Record.begin(options.out, [sys.executable, *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(options, Path(folder), record)
        for number, name in enumerate(options.parts):
            shares = [PARTS[later] for later in options.parts[number:]]
            seconds = (end - time.monotonic()) * shares[0] / sum(shares)
            if seconds < 1:
                record.fail(name, name, "no time was left")
                continue
            _run(name, options, seconds, min(seconds + _GRACE, end - time.monotonic()), environment)
    print(f"results.json and results.md are in {options.out}")


def _run(name: str, options: argparse.Namespace, seconds: float, most: float, environment: dict[str, str]) -> None:
    """One part, in a process that is ended after ``most`` seconds; it is asked to begin nothing after ``seconds``."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--seconds", f"{seconds:.1f}"]
    command += [
        "--out",
        str(options.out),
        "--device",
        options.device,
        "--data",
        options.data,
        "--batch",
        str(options.batch),
    ]
    command += ["--toy"] * options.toy
    began = time.monotonic()
    with (options.out / "log.txt").open("ab") as log:
        log.write(f"--- {name}\n".encode())
        log.flush()
        try:
            code = subprocess.run(
                command, env=environment, stdout=log, stderr=log, check=False, timeout=most
            ).returncode
            reason = f"its process ended with status {code}: see log.txt" if code else ""
        except subprocess.TimeoutExpired:
            reason = f"cut off after {most:.0f} seconds"
    record = Record.open(options.out)  # what the part has written
    if reason:
        record.fail(name, name, reason)
    record.spent(name, time.monotonic() - began)
    print(f"{name}: {time.monotonic() - began:.0f} s{', ' + reason if reason else ''}", flush=True)


def _environment(options: argparse.Namespace, folder: Path, record: Record) -> dict[str, str]:
    """Of the parts' processes: this checkout, the wheels, and whatever else was there."""
    root = Path(__file__).resolve().parents[1]
    paths = [str(root / "src"), str(root)]
    if options.wheels is not None:
        wheels = sorted(map(str, options.wheels.glob("*.whl")))
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-index",
            "--no-deps",
            "--target",
            str(folder),
            *wheels,
        ]
        done = subprocess.run(install, capture_output=True, text=True, check=False) if wheels else None
        if done is None or done.returncode:
            record.fail("wheels", str(options.wheels), done.stderr.strip()[-300:] if done else "no wheel in it")
        paths.append(str(folder))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    asked = f"from importlib.util import find_spec; print(*[n for n in {_NEEDED} if find_spec(n) is None])"
    missing = subprocess.run(
        [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=False
    )
    if missing.stdout.strip():
        record.fail("packages", missing.stdout.strip(), "not installed, and not among the wheels")
    return environment


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="all parts together (default: 8)")
    add("--parts", type=lambda text: text.split(","), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    add("--data", default="digits", help="what ResNet-18 is trained on, e.g. parquet:PATH (default: digits)")
    add("--wheels", type=Path, help="folder of wheels that are put on the path first")
    add("--out", type=Path, default=Path("runs/gpu"), help="folder of the results (default: runs/gpu)")
    add("--batch", type=int, default=128, help="images a batch in what is timed (default: 128)")
    add("--device", choices=("cuda", "cpu"), default=None, help="default: cuda, with --toy cpu")
    add("--toy", action="store_true", help="tiny, to see that all runs: no results")
    add("--part", help=argparse.SUPPRESS)
    add("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in [*options.parts, *([options.part] if options.part else [])]:
        if name not in PARTS:
            parser.error(f"'{name}' is none of {', '.join(PARTS)}")
    options.device = options.device or ("cpu" if options.toy else "cuda")
    return options


if __name__ == "__main__":
    main()
