"""``python -m benchmarks.scaling``: what a training step of several GPUs sends and keeps, worked out, not timed.

Sizes come from the network's graph; what is kept for the backward pass is counted in a real forward pass of a few
images, tensor by tensor. The numbers in docs/scaling.md are this table.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

import spikestill as ss
from spikestill.cli.tables import print_rows
from spikestill.graph import SpikingNetwork
from spikestill.graph.trace import calls, module_of
from spikestill.nn import LIF

Gradient = Literal["rate", "bptt"]


@dataclass(frozen=True)
class Sizes:
    """Of one network, for one image and one time step.

    Attributes:
        parameters: their number.
        norms: the channels of every BatchNorm.
        neurons: how many.
        largest: values in the largest tensor of the graph.
        multiply_accumulates: of convolutions and linear layers.
    """

    parameters: int
    norms: tuple[int, ...]
    neurons: int
    largest: int
    multiply_accumulates: int

    @classmethod
    def of(cls, network: SpikingNetwork) -> Sizes:
        """Read off the graph."""
        found = [(module_of(network.body, node), _values(node)) for node in calls(network.body.graph)]
        return cls(
            sum(parameter.numel() for parameter in network.parameters()),
            tuple(module.num_features for module, _ in found if isinstance(module, _BatchNorm)),
            sum(values for module, values in found if isinstance(module, LIF)),
            max(values for _, values in found),
            sum(_multiply_accumulates(module, values) for module, values in found),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--model", default="resnet34")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224, help="of an image, in pixels")
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512, help="of all GPUs together")
    parser.add_argument("--gpus", type=int, default=8)
    options = parser.parse_args(arguments)
    sizes = Sizes.of(_network(options, "rate"))
    print(f"{options.model}, T = {options.timesteps}, batch {options.batch} on {options.gpus} GPUs")
    print_rows("the network", ("", "one image, one time step"), _described(sizes))
    print_rows("sent, a step", ("", "messages", "MB", "MB through each GPU"), _sent(sizes, options.gpus))
    rows = [_kept(options, *way) for way in (("rate", False), ("bptt", False), ("bptt", True))]
    header = (
        "gradient",
        "float32, MB an image",
        "bf16, MB an image",
        f"bf16, GB for {options.batch // options.gpus} images",
    )
    print_rows("kept for the backward pass", header, rows)
    transient = 2 * options.timesteps * sizes.largest * 2 * options.batch / options.gpus
    print(f"besides, for a moment, two sequences of the largest layer in bf16: {transient / 1e9:.2f} GB a GPU")


def _network(options: argparse.Namespace, gradient: Gradient, recompute: bool = False) -> SpikingNetwork:
    torch.manual_seed(0)
    ann = ss.models.create(options.model, num_classes=options.classes, image_size=options.size)
    shape = (3, options.size, options.size)
    made = ss.to_spiking(ann, input_shape=shape, timesteps=options.timesteps, gradient=gradient, recompute=recompute)
    return made.train()


def _described(sizes: Sizes) -> list[list[str]]:
    return [
        ["parameters, millions", f"{sizes.parameters / 1e6:.2f}"],
        ["neurons, millions", f"{sizes.neurons / 1e6:.2f}"],
        ["multiply-accumulates, billions", f"{sizes.multiply_accumulates / 1e9:.2f}"],
    ]


def _sent(sizes: Sizes, gpus: int) -> list[list[str]]:
    """In a ring all-reduce each GPU passes on 2 (G - 1) / G times what there is to be summed."""
    statistics = sum(2 * channels + 1 for channels in sizes.norms) * 8 * 2
    rows = []
    for name, messages, size in (
        ("gradients, float32", "25 MiB buckets", 4 * sizes.parameters),
        ("BatchNorm's sums, float64, forward and backward", str(2 * len(sizes.norms)), statistics),
    ):
        rows.append([name, messages, f"{size / 1e6:.2f}", f"{2 * (gpus - 1) / gpus * size / 1e6:.2f}"])
    return rows


def _kept(options: argparse.Namespace, gradient: Gradient, recompute: bool) -> list[str]:
    network = _network(options, gradient, recompute)
    # One image's part is what a third one adds: what does not depend on their number, such as cast weights, falls out.
    exact, half = (
        _kept_bytes(network, options.size, is_half, 3) - _kept_bytes(network, options.size, is_half, 2)
        for is_half in (False, True)
    )
    name = f"{gradient}, recompute" if recompute else gradient
    return [name, f"{exact / 1e6:.1f}", f"{half / 1e6:.1f}", f"{half * options.batch / options.gpus / 1e9:.1f}"]


def _kept_bytes(network: SpikingNetwork, size: int, is_half: bool, count: int) -> int:
    """The bytes of all tensors that autograd keeps of a forward pass, but for those of the network itself."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:  # the tensor too, so that its place is not given away
            kept[place] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    images = torch.randn(count, 3, size, size)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_half), torch.autograd.graph.saved_tensors_hooks(keep, _same):
        network(images)
    return sum(taken for _, taken in kept.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _values(node: fx.Node) -> int:
    return math.prod(tuple(node.meta.get("shape", (1, 1)))[1:])


def _multiply_accumulates(module: nn.Module | None, values: int) -> int:
    if isinstance(module, nn.Linear):
        return module.weight.numel()
    if isinstance(module, nn.Conv2d):
        return module.weight[0].numel() * values
    return 0


if __name__ == "__main__":
    main()
