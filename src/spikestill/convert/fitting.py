"""The weights of a spiking network, fitted layer by layer to the ANN's output: ``calibrate(correct="weights")``.

Front to back, over the calibration images (Li et al. 2021; methods 8), for each neuron layer and for the read-out:
the layers before it are given the mean over T of what they read in the spiking network, and the squared error of what
T steps can show of the resulting current ``c``, ``V / T * floor(clip(c T / V, 0, T))``, against the ANN's activation is
minimised by Adam, straight through the floor, with a learning rate that falls to 0 along a cosine. The read-out is
fitted to the ANN's logits, without a floor. Only layers whose values nothing else reads are fitted.

The straight-through gradient is not the error's own, so a step may raise the error: the weights that are kept are those
of the least error over all calibration images, of those looked at on the way, the first ones among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from spikestill.convert.preparing import Conversion, neuron_nodes
from spikestill.convert.scales import Scale
from spikestill.convert.scaling import is_weighted
from spikestill.convert.values import mean_in_time, up_to
from spikestill.graph.trace import module_of
from spikestill.nn import LIF, clip_floor_shift
from spikestill.progress import tracked

__all__ = ["Segment", "fit_weights", "segment_before"]


_LOOKS = 20
"""How often the error over all images is taken in the course of a fit."""

Shown = Callable[[Tensor], Tensor]
"""What T time steps can show of a value."""


@dataclass(frozen=True)
class Example:
    """A calibration batch, for one segment: the values ``[B, ...]`` of its sources, and the ANN's of its end."""

    inputs: list[Tensor]
    target: Tensor


@dataclass(frozen=True)
class Segment:
    """The part of a spiking graph that gives one value, back to what its nearest weighted layers read.

    Attributes:
        graph: takes the values of the sources; it shares the modules.
        sources: the nodes of the spiking graph that it reads.
        parameters: the names of the weighted layers' weights and biases.
    """

    graph: fx.GraphModule
    sources: list[fx.Node]
    parameters: list[str]


def fit_weights(
    work: Conversion,
    timesteps: int,
    iterations: int,
    learning_rate: float,
    units: Mapping[str, Scale],
    rounds: bool = False,
) -> None:
    """Fit the weights and biases of one layer after another, in place.

    Args:
        work: the conversion, with its thresholds.
        timesteps: T.
        iterations: for each layer; each takes one calibration batch, in turn.
        learning_rate: of Adam, at the start.
        units: by neuron layer, what of the ANN's current a current of 1 stands for.
        rounds: whether neurons start at half of their threshold, so that rates are rounded, not cut off.
    """
    layers = tracked(_fitted(work, timesteps, units, rounds), "fitting the layers", len(work.activations) + 1, "layers")
    for end, wanted, shown, unit in layers:
        segment = segment_before(work.body, end)
        if segment is None:
            continue
        target = up_to(work.ann, wanted)
        examples = [
            Example([mean_in_time(work, node, images, timesteps) for node in segment.sources], target(images) / unit)
            for images in work.images
        ]
        _minimise(segment, examples, shown, iterations, learning_rate)


def segment_before(body: fx.GraphModule, end: fx.Node) -> Segment | None:
    """The segment that gives the value at ``end``; None where no weighted layer gives its value to ``end`` alone."""
    inside: set[fx.Node] = set()
    sources: set[fx.Node] = set()
    layers: list[str] = []
    open_nodes = [end]
    while open_nodes:
        node = open_nodes.pop()
        module = module_of(body, node)
        if node.op == "get_attr":
            inside.add(node)
        elif node.op == "placeholder" or isinstance(module, LIF) or len(node.users) > 1:
            sources.add(node)
        elif is_weighted(module):
            inside.add(node)
            layers.append(str(node.target))
            sources.update(node.all_input_nodes)
        else:
            inside.add(node)
            open_nodes += node.all_input_nodes
    parameters = [f"{path}.{name}" for path in layers for name, _ in body.get_submodule(path).named_parameters()]
    if not parameters or any("shape" not in node.meta for node in sources):  # what is no tensor has no mean over time
        return None
    ordered = [node for node in body.graph.nodes if node in sources]
    graph = fx.Graph()
    known = {node: graph.placeholder(node.name) for node in ordered}
    for node in body.graph.nodes:
        if node in inside:
            known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(known[end])
    return Segment(fx.GraphModule(body, graph, "Segment"), ordered, parameters)


def _fitted(
    work: Conversion, timesteps: int, units: Mapping[str, Scale], rounds: bool
) -> Iterator[tuple[fx.Node, fx.Node, Shown, Scale]]:
    """The values to fit: their nodes in the spiking graph and in the ANN's, what T steps show of them, their unit."""
    for node in neuron_nodes(work.body):
        name, current = str(node.target), node.args[0]
        threshold = work.neuron(name).threshold.detach()
        assert isinstance(current, fx.Node)

        def shown(current: Tensor, threshold: Tensor = threshold) -> Tensor:
            lower = 0.0 if rounds else threshold / (2 * timesteps)
            return clip_floor_shift(current - lower, threshold, timesteps)

        yield current, work.activations[name], shown, units[name]
    yield _read_out(work.body), _read_out(work.ann), lambda logits: logits, 1.0


def _read_out(traced: fx.GraphModule) -> fx.Node:
    (node,) = next(node for node in traced.graph.nodes if node.op == "output").all_input_nodes
    return node


def _minimise(segment: Segment, examples: list[Example], shown: Shown, iterations: int, learning_rate: float) -> None:
    """Give the segment's parameters the values of the least error over all examples that the fit comes by."""
    old = {name: segment.graph.get_parameter(name) for name in segment.parameters}
    values = {name: parameter.detach().clone().requires_grad_() for name, parameter in old.items()}
    optimiser = torch.optim.Adam(values.values(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=iterations)

    def loss(example: Example) -> Tensor:
        inputs = tuple(value.clone() for value in example.inputs)  # an operation in place may write over them
        given = shown(functional_call(segment.graph, values, inputs))
        return nn.functional.mse_loss(given, example.target, reduction="sum") / example.target.shape[1:].numel()

    def error() -> float:
        return sum(loss(example).item() for example in examples)

    best, least = {name: value.detach().clone() for name, value in values.items()}, error()
    for index in range(iterations):
        example = examples[index % len(examples)]
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(example), list(values.values()))
        for value, gradient in zip(values.values(), gradients, strict=True):
            value.grad = gradient
        optimiser.step()
        schedule.step()
        if (index + 1) % max(iterations // _LOOKS, 1) == 0 and (found := error()) < least:
            best, least = {name: value.detach().clone() for name, value in values.items()}, found
    for name, value in best.items():
        path, _, attribute = name.rpartition(".")
        fitted = nn.Parameter(value, requires_grad=old[name].requires_grad)
        setattr(segment.graph.get_submodule(path), attribute, fitted)
