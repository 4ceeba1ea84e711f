"""``python -m benchmarks.long``: peak memory and time of many time steps, in a training step and in evaluation.

LaSNN's kind of network (VGG5, no bias, no BatchNorm) under Poisson input: where no BatchNorm takes the statistics of
its batch, rate gradients run some time steps at a time, as evaluation always does. Each figure is that of a fresh
process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import spikestill as ss
from benchmarks.comparison import ALLOCATION
from benchmarks.measure import interleaved, peak_memory
from spikestill.analysis import evaluate
from spikestill.cli.tables import print_rows
from spikestill.graph import SpikingNetwork
from spikestill.graph.network import Gradient

SHAPE, BATCH = (3, 32, 32), 16
_REPETITIONS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, one row a number of time steps."""
    parser = argparse.ArgumentParser("python -m benchmarks.long", description=__doc__)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--evaluation", type=int, nargs="+", default=[25, 2500], help="numbers of time steps")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        what, gradient, timesteps = options.one
        print(_evaluation(int(timesteps)) if gradient == "none" else _step(what, gradient, int(timesteps)))
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
    rows = [[str(steps), f"{_asked('memory', 'none', steps) / 2**20:.0f}"] for steps in options.evaluation]
    print_rows("evaluation, spikes and operations counted", ("T", "MiB"), rows)


def _asked(what: str, gradient: str, timesteps: int) -> float:
    command = [sys.executable, "-m", "benchmarks.long", "--one", what, gradient, str(timesteps)]
    environment = os.environ | ALLOCATION[what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def _network(timesteps: int, gradient: Gradient) -> tuple[SpikingNetwork, Tensor, Tensor]:
    """The network, and a batch of images ``[B, C, H, W]`` and labels ``[B]``."""
    torch.manual_seed(0)
    ann = ss.models.create("vgg5", batch_norm=False, bias=False)
    encoder = ss.Poisson(seed=0)
    net = ss.to_spiking(ann, input_shape=SHAPE, timesteps=timesteps, gradient=gradient, encoder=encoder)
    return net, torch.rand(BATCH, *SHAPE) * 2 - 1, torch.randint(0, 10, (BATCH,))


def _evaluation(timesteps: int) -> float:
    """The bytes at the peak of an evaluation beyond those before it; another one, of few steps, comes first."""
    net, images, labels = _network(timesteps, "rate")
    evaluate(net, [(images, labels)], timesteps=(16,))
    return peak_memory(lambda: evaluate(net, [(images, labels)]), "cpu")


def _step(what: str, gradient: Gradient, timesteps: int) -> float:
    """Of one step the bytes at its peak beyond those before, or the seconds, the median of several; one comes first."""
    net, images, labels = _network(timesteps, gradient)
    net.train()

    def step() -> None:
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()

    step()
    if what == "memory":
        return peak_memory(step, "cpu")
    times = interleaved({"step": step}, "cpu", seconds=0, least=_REPETITIONS, most=_REPETITIONS)
    return statistics.median(times["step"])


if __name__ == "__main__":
    main()
