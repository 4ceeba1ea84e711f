"""``python -m benchmarks.long``: peak memory and time of a training step over many time steps, without BatchNorm.

LaSNN's kind of network (VGG5, no bias, no BatchNorm, average pooling) under Poisson input: where no BatchNorm takes the
statistics of its batch, rate gradients run some time steps at a time. Each figure is that of a fresh process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import torch

import spikestill as ss
from benchmarks.comparison import ALLOCATION
from benchmarks.measure import peak_memory
from spikestill.cli.tables import print_rows

SHAPE, BATCH = (3, 32, 32), 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, one row a number of time steps."""
    parser = argparse.ArgumentParser("python -m benchmarks.long", description=__doc__)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        what, gradient, timesteps = options.one
        print(_step(what, gradient, int(timesteps)))
        return
    rows = []
    for timesteps in options.timesteps:
        cells = [str(timesteps)]
        for gradient in ("rate", "bptt"):
            memory, seconds = (_asked(what, gradient, timesteps) for what in ("memory", "time"))
            cells += [f"{memory / 2**20:.0f}", f"{1000 * seconds:.0f}"]
        rows.append(cells)
    print(f"VGG5 without BatchNorm, batch {BATCH}, float32, {torch.get_num_threads()} threads")
    print_rows("a training step", ("T", "rate MiB", "rate ms", "bptt MiB", "bptt ms"), rows)


def _asked(what: str, gradient: str, timesteps: int) -> float:
    command = [sys.executable, "-m", "benchmarks.long", "--one", what, gradient, str(timesteps)]
    environment = os.environ | ALLOCATION[what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def _step(what: str, gradient: str, timesteps: int) -> float:
    """Of the second step the bytes at its peak beyond those before, or the seconds."""
    torch.manual_seed(0)
    ann = ss.models.create("vgg5", batch_norm=False, bias=False)
    encoder = ss.Poisson(seed=0)
    net = ss.to_spiking(ann, input_shape=SHAPE, timesteps=timesteps, gradient=gradient, encoder=encoder)  # type: ignore[arg-type]
    net.train()
    images, labels = torch.rand(BATCH, *SHAPE) * 2 - 1, torch.randint(0, 10, (BATCH,))

    def step() -> None:
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()

    step()
    if what == "memory":
        return peak_memory(step, "cpu")
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
