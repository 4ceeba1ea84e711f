"""``python -m benchmarks.events``: convolutions by events against dense ones, by how many of the inputs are spikes.

Forward, and the gradient by the weights; the dense ones are torch's (oneDNN). Inputs are drawn at random, times are
medians of runs that take turns. The limit above which torch does it anyhow (``_MOST_SPIKES``) is lifted.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import interleaved
from spikestill.cli.tables import print_rows
from spikestill.dynamics import Moves, convolve_spikes, spike_convolution, spikes_weight_gradient

LAYERS = ((64, 32), (128, 16), (256, 8), (512, 4))
"""Channels, in and out, and height and width, as in ResNet-18."""
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
_PADDED = Moves(padding=(1, 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each precision: how many times as fast as the dense convolution."""
    parser = argparse.ArgumentParser("python -m benchmarks.events", description=__doc__)
    parser.add_argument("--densities", type=float, nargs="+", default=[0.02, 0.07, 0.15, 0.25, 0.35, 0.5])
    parser.add_argument("--images", type=int, default=64, help="B times T")
    parser.add_argument("--seconds", type=float, default=0.6, help="for each pair")
    options = parser.parse_args(arguments)
    spike_convolution._MOST_SPIKES = dict.fromkeys(_DTYPES.values(), 1.0)
    print(f"{torch.get_num_threads()} threads, {options.images} images, kernels 3 x 3")
    header = ("channels, size", "dense ms", *(f"{density:.0%}" for density in options.densities))
    for name, dtype in _DTYPES.items():
        for title, pair in (("forward", forward), ("gradient by the weights", gradient)):
            rows = []
            for channels, size in LAYERS:
                cells = [f"{channels}, {size} x {size}", ""]
                for density in options.densities:
                    dense, events = pair((options.images, channels, size, size), density, dtype)
                    work = {"dense": dense, "events": events}
                    times = interleaved(work, "cpu", seconds=options.seconds, least=5, most=100)
                    seconds = {which: statistics.median(taken) for which, taken in times.items()}
                    cells[1] = f"{1e3 * seconds['dense']:.1f}"
                    cells.append(f"{seconds['dense'] / seconds['events']:.2f}")
                rows.append(cells)
            print_rows(
                f"{title}, {name}: times as fast as dense, by the part of the inputs that are spikes", header, rows
            )


def forward(
    shape: tuple[int, int, int, int], density: float, dtype: torch.dtype
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A dense convolution and one by events."""
    spikes, weight = _drawn(shape, density, dtype)
    return lambda: functional.conv2d(spikes, weight, padding=1), lambda: convolve_spikes(spikes, weight, None, _PADDED)


def gradient(
    shape: tuple[int, int, int, int], density: float, dtype: torch.dtype
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A dense gradient by the weights and one by events."""
    spikes, weight = _drawn(shape, density, dtype)
    by_output = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
    numbers = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])

    def dense() -> object:
        return torch.ops.aten.convolution_backward(by_output, spikes, weight, None, *numbers)

    return dense, lambda: spikes_weight_gradient(spikes, by_output, weight, _PADDED)


def _drawn(shape: tuple[int, int, int, int], density: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    spikes = (torch.rand(shape) < density).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape[1], shape[1], 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    return spikes, weight


if __name__ == "__main__":
    with torch.no_grad():
        main()
