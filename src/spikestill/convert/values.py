"""The values that thresholds are made of: activations of the ANN, currents and spikes of the spiking network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx

from spikestill.convert.preparing import Conversion
from spikestill.convert.scales import Scale, by_channel
from spikestill.graph.sequence import SequenceRun
from spikestill.graph.trace import calls, module_of
from spikestill.nn import LIF, Direct, Poisson
from spikestill.progress import tracked
from spikestill.types import InputError

__all__ = [
    "STEPS_AT_ONCE",
    "By",
    "HighestShare",
    "activation_percentiles",
    "alive",
    "all_percentiles",
    "checked_percentile",
    "checked_steps",
    "for_each_activation",
    "mean_in_time",
    "percentile_of",
    "require_positive",
    "steps_of",
    "up_to",
]

By = Literal["channel", "layer"]
"""One threshold a channel, or one a layer."""

STEPS_AT_ONCE = 16
"""How many time steps a calibration holds in memory."""


def for_each_activation(work: Conversion, show: Callable[[str, Tensor], None]) -> None:
    """Show every activation of the ANN, by its neuron layer's name, for one calibration batch after another."""
    watched = {node: name for name, node in work.activations.items()}
    for images in tracked(work.images, "reading the ANN's activations"):
        _Watched(work.ann, watched, show).run(images)


def activation_percentiles(work: Conversion, percentile: float, by: By = "layer") -> dict[str, Scale]:
    """By neuron layer, the percentile of the ANN's activation over all images and positions; ``all_percentiles``.

    Raises:
        InputError: for a percentile outside (0, 100], and for a layer where it is not positive.
    """
    return all_percentiles(work, [percentile], by)[0]


def all_percentiles(work: Conversion, percentiles: Sequence[float], by: By = "layer") -> list[dict[str, Scale]]:
    """For each percentile, by neuron layer, that of the ANN's activation over all images and positions.

    By layer it is one number, over all channels. By channel it is a scale of one image's feature, ``[C, 1, 1]``; a
    channel whose percentile is 0 gets its largest activation, and one that no image drives the layer's.

    Raises:
        InputError: for a percentile outside (0, 100], and for a layer where it is not positive.
    """
    images = sum(len(batch) for batch in work.images)
    highest: dict[str, HighestShare] = {}
    features: dict[str, tuple[int, ...]] = {}
    lowest = min(map(checked_percentile, percentiles))

    def note(name: str, value: Tensor) -> None:
        rows = _by_rows(value, by)
        if name not in highest:
            highest[name] = HighestShare(images * value[0].numel() // len(rows), lowest)
            features[name] = tuple(value.shape[1:])
        highest[name].add(rows)

    for_each_activation(work, note)
    return [
        {
            name: _as_scale(name, item.percentiles(percentile), item.percentiles(100), percentile, features[name], by)
            for name, item in highest.items()
        }
        for percentile in percentiles
    ]


def _as_scale(name: str, values: Tensor, largest: Tensor, percentile: float, feature: Sequence[int], by: By) -> Scale:
    what = f"activation (percentile {percentile:g})"
    if by == "layer":
        return require_positive(name, values.item(), what)
    return by_channel(alive(name, torch.where(values > 0, values, largest), what), feature)


def alive(name: str, values: Tensor, what: str) -> Tensor:
    """``[C]`` values that are to become thresholds: a channel that no image drives gets the layer's largest.

    Raises:
        InputError: where no channel has a positive one.
    """
    return torch.where(values > 0, values, require_positive(name, values.max().item(), what))


def _by_rows(value: Tensor, by: By) -> Tensor:
    """A batch's values ``[B, C, ...]`` as ``[C, n]``, or all in one row."""
    return value.flatten().unsqueeze(0) if by == "layer" else value.movedim(1, 0).flatten(1)


class HighestShare:
    """The percentiles of many values that come in parts, exact, holding the highest of them alone.

    Between two values it is interpolated linearly, as numpy does.

    Args:
        count: of all values that will come, in each row.
        percentile: the lowest that will be asked for, in (0, 100]; 100 is the largest value.
    """

    def __init__(self, count: int, percentile: float) -> None:
        self._count, self._percentile = count, percentile
        self._keep = count - math.floor(percentile / 100 * (count - 1))
        self._kept: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Take note of some of the values: ``[rows, n]``, or one row of any shape."""
        some = values.detach()
        some = some if some.dim() == 2 else some.reshape(1, -1)
        some = some.topk(min(self._keep, some.shape[1]), sorted=False).values
        if self._kept is not None:
            some = torch.cat([self._kept, some], 1)
        self._kept = some.topk(min(self._keep, some.shape[1])).values

    def percentile(self) -> float:
        """Of all values of the one row, once they have come."""
        return self.percentiles(self._percentile).item()

    def percentiles(self, percentile: float) -> Tensor:
        """Of the values of each row ``[rows]``, once they have come, in float64."""
        assert self._kept is not None
        rank = percentile / 100 * (self._count - 1)
        index = self._count - math.floor(rank) - 1
        at, above = self._kept[:, index].double(), self._kept[:, max(index - 1, 0)].double()
        return at + (rank - math.floor(rank)) * (above - at)


def percentile_of(values: Tensor, percentile: float) -> float:
    """The percentile of the values of one tensor."""
    highest = HighestShare(values.numel(), percentile)
    highest.add(values.flatten())
    return highest.percentile()


def up_to(body: fx.GraphModule, node: fx.Node) -> fx.GraphModule:
    """The part of a graph that a node's value needs, with that value as its output; it shares the modules."""
    needed: set[fx.Node] = set()
    open_nodes = [node]
    while open_nodes:
        item = open_nodes.pop()
        if item not in needed:
            needed.add(item)
            open_nodes += item.all_input_nodes
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    for item in body.graph.nodes:
        if item in needed or item.op == "placeholder":
            known[item] = graph.node_copy(item, known.__getitem__)
    graph.output(known[node])
    return fx.GraphModule(body, graph, "UpTo")


def steps_of(work: Conversion, node: fx.Node, images: Tensor, timesteps: int) -> Iterator[Tensor]:
    """The values ``[t, B, ...]`` at a node of the spiking graph, a few of T time steps at a time.

    Where no neuron comes before the node and every step's input is the same, one step stands for all.
    """
    head = up_to(work.body, node)
    if work.encoder.constant and not any(isinstance(module_of(head, item), LIF) for item in calls(head.graph)):
        timesteps = 1
    # An encoder that is not ours may look at all steps together.
    whole = None if type(work.encoder) in (Direct, Poisson) else work.encoder(images, timesteps)
    carries: dict[str, Tensor] = {}
    for start in range(0, timesteps, STEPS_AT_ONCE):
        some = min(STEPS_AT_ONCE, timesteps - start)
        if whole is None:
            encoded = work.encoder(images, some)
        else:
            encoded = whole if len(whole) == 1 else whole[start : start + some]
        yield SequenceRun(head, some, carries).sequence(encoded)


def mean_in_time(work: Conversion, node: fx.Node, images: Tensor, timesteps: int) -> Tensor:
    """The mean over T time steps of the values at a node of the spiking graph ``[B, ...]``."""
    total, steps = torch.zeros((), device=images.device), 0
    for some in steps_of(work, node, images, timesteps):
        total, steps = total + some.sum(0), steps + len(some)
    return total / steps


def require_positive(name: str, value: float, what: str) -> float:
    """A value that is to become a threshold or scale.

    Raises:
        InputError: where it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise InputError(f"'{name}' has no positive {what} on the calibration images ({value:g}): it cannot be scaled")
    return value


def checked_percentile(percentile: float) -> float:
    """A percentile in (0, 100].

    Raises:
        InputError: for any other.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile must lie in (0, 100], not {percentile}")
    return percentile


def checked_steps(timesteps: int) -> int:
    """A number of time steps, at least 1.

    Raises:
        InputError: for any other.
    """
    if timesteps < 1:
        raise InputError(f"the number of time steps must be at least 1, not {timesteps}")
    return timesteps


class _Watched(fx.Interpreter):
    """One run of the ANN that shows the values at some nodes."""

    def __init__(self, traced: fx.GraphModule, watched: Mapping[fx.Node, str], show: Callable[[str, Tensor], None]):
        super().__init__(traced)
        self.watched, self.show = watched, show

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.watched:
            self.show(self.watched[n], result)
        return result
