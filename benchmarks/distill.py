"""``python -m benchmarks.distill --data NAME --teacher RUN``: images per second of ``spikestill distill``.

Block-wise replacement of a ResNet-20 at T = 4 in bf16, for two epochs; the second one, validation on 256 images
included, is timed. ``--source`` names the ``src`` folder of another checkout to compare with: the two take turns.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

RECIPE = "blockwise --student resnet20 --timesteps 4 --gradient rate --precision bf16 --teacher-precision bf16"
LENGTH = "--channels-last true --validation 256 --epochs 2"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the median of some runs for every checkout."""
    parser = argparse.ArgumentParser("python -m benchmarks.distill", description=__doc__)
    parser.add_argument("--data", required=True, help="as for spikestill distill")
    parser.add_argument("--teacher", required=True, help="run folder of an ANN")
    parser.add_argument("--images", type=int, default=5120, help="training images (default: 5120)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default: 2)")
    parser.add_argument("--source", type=Path, action="append", default=[], help="src folder of another checkout")
    options = parser.parse_args(arguments)
    sources = [Path(__file__).resolve().parents[1] / "src", *options.source]
    words = [*RECIPE.split(), *LENGTH.split(), "--data", options.data, "--teacher", options.teacher]
    words += ["--limit-train", str(options.images)]
    rates: dict[Path, list[float]] = {source: [] for source in sources}
    for _ in range(options.rounds):
        for source in sources:
            rates[source].append(options.images / _seconds(source, words))
    for source, found in rates.items():
        print(f"{source}: {statistics.median(found):.0f} images/s ({', '.join(f'{rate:.0f}' for rate in found)})")


def _seconds(source: Path, words: Sequence[str]) -> float:
    """Of the second epoch."""
    program = "from spikestill.cli import main; raise SystemExit(main())"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, "distill", *words, "--out", str(Path(folder) / "run")]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(source)}, check=True, stdout=subprocess.DEVNULL)
        with (Path(folder) / "run" / "metrics.csv").open(newline="") as table:
            first, second = (float(row["seconds"]) for row in csv.DictReader(table))
    return second - first


if __name__ == "__main__":
    main()
