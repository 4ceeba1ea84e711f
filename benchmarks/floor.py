"""``python -m benchmarks.floor``: what a training step of ``rate`` has to compute and to move, and how near it comes.

The floor of a step is the time of its convolutions alone, each measured by itself and dense (T forward, one backward;
the first one once, under direct encoding), and of the bytes that the passes over the neurons move at the
machine's measured bandwidth (see docs/performance.md). Nothing is assumed to overlap.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.contestants import create as contestant
from benchmarks.networks import NETWORKS, create
from benchmarks.setting import PRECISIONS, Setting
from spikestill.cli.tables import print_rows
from spikestill.graph import trace

HEADER = ("network", "precision", "T", "GFLOP", "GB", "dense ms", "bytes ms", "step ms", "GFLOP/s", "GB/s", "share")


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of the network.

    Attributes:
        module: the layer.
        input_shape: ``[C, ...]`` of one image.
        output_shape: likewise.
        is_first: whether its input is the image, the same at every step.
        reads_sum: whether its output is added to another before the neurons.
        feeds_neurons: whether neurons follow it at all.
    """

    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    is_first: bool
    reads_sum: bool
    feeds_neurons: bool

    @property
    def flops(self) -> float:
        """Of one image, forward: two for a multiplication and addition."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        places = torch.Size(self.output_shape[1:]).numel()
        return 2.0 * weight.numel() * places

    def floating_point_operations(self, setting: Setting) -> float:
        """Of a step: T forward (one for the first), one backward by weight and, but for the first, by input."""
        forward, backward = (1, 1) if self.is_first else (setting.timesteps, 2)
        return setting.batch * self.flops * (forward + backward)

    def bytes_of_neurons(self, setting: Setting) -> float:
        """What moments, neuron pass, products and affine read and write, counting each operand once."""
        if not self.feeds_neurons:
            return 0.0
        size = 2 if setting.precision == "bf16" else 4
        neurons = setting.batch * torch.Size(self.output_shape).numel()
        steps = 1 if self.is_first else setting.timesteps
        sequences = 2 * steps + setting.timesteps + (setting.timesteps if self.reads_sum else 0)
        forward = neurons * (sequences * size + 2 * size + 4)  # the mean over time, the rate, the eligibility
        return forward + neurons * (3 * size + 4) + neurons * 3 * size


def layers_of(ann: nn.Module, setting: Setting) -> Iterator[Layer]:
    """The network's layers, from its graph."""
    traced = trace(ann, (3, setting.image_size, setting.image_size))
    for node in traced.graph.nodes:
        module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        source = node.args[0]
        after = next(iter(node.users))
        norm = after.op == "call_module" and isinstance(traced.get_submodule(str(after.target)), nn.BatchNorm2d)
        reader = next(iter(after.users)) if norm else after
        yield Layer(
            module,
            tuple(source.meta["shape"][1:]),
            tuple(node.meta["shape"][1:]),
            source.op == "placeholder",
            norm and reader.op == "call_function",
            norm,
        )


def seconds_of(work: Callable[[], object], least: int = 3, budget: float = 0.5) -> float:
    """The fastest of several runs."""
    work()
    best, spent, runs = float("inf"), 0.0, 0
    while runs < least or spent < budget:
        began = time.perf_counter()
        work()
        taken = time.perf_counter() - began
        best, spent, runs = min(best, taken), spent + taken, runs + 1
    return best


def seconds_of_layer(layer: Layer, setting: Setting) -> float:
    """Its forward pass over all steps and its backward pass over one, on tensors as the step has them."""
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    steps = 1 if layer.is_first else setting.timesteps
    module = layer.module.to(dtype)
    rows = torch.rand(steps * setting.batch, *layer.input_shape).to(dtype)
    rate = torch.rand(setting.batch, *layer.input_shape).to(dtype)
    if rows.dim() == 4:
        rows, rate = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (rows, rate))
    with torch.no_grad():
        forward = seconds_of(lambda: module(rows))
    output = module(rate.requires_grad_(not layer.is_first))
    delta = torch.rand_like(output)
    weight = module.weight
    assert isinstance(weight, Tensor)
    wanted = [weight] if layer.is_first else [rate, weight]
    return forward + seconds_of(lambda: torch.autograd.grad(output, wanted, delta, retain_graph=True))


def bytes_per_second() -> float:
    """The machine's bandwidth: reading and writing 128 MB."""
    source, target = torch.rand(2, 2**24).unbind()
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--timesteps", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    bandwidth = bytes_per_second()
    print(f"{threads} threads, {bandwidth / 1e9:.1f} GB/s read and written by a copy, batch {options.batch}")
    rows = []
    for network in options.networks:
        for precision in options.precisions:
            for timesteps in options.timesteps:
                setting = Setting(network, timesteps, precision, options.batch, options.width, threads=threads)
                rows.append(_row(setting, bandwidth))
    print_rows("share of the floor, training step of rate", HEADER, rows)


def _row(setting: Setting, bandwidth: float) -> list[str]:
    ann = create(setting)
    layers = list(layers_of(ann, setting))
    operations = sum(layer.floating_point_operations(setting) for layer in layers)
    moved = sum(layer.bytes_of_neurons(setting) for layer in layers)
    convolutions = sum(seconds_of_layer(layer, setting) for layer in layers)
    rate, batch = contestant("training", "spikestill-rate", create(setting), setting), setting.data()
    step = seconds_of(lambda: rate.step(*batch), budget=5.0)
    floor = convolutions + moved / bandwidth
    return [
        *(setting.network, setting.precision, str(setting.timesteps)),
        *(f"{operations / 1e9:.0f}", f"{moved / 1e9:.2f}"),
        *(f"{1e3 * seconds:.0f}" for seconds in (convolutions, moved / bandwidth, step)),
        *(f"{operations / step / 1e9:.0f}", f"{moved / step / 1e9:.1f}", f"{floor / step:.0%}"),
    ]


if __name__ == "__main__":
    main()
