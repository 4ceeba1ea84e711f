"""Training through time in less memory: some sequences are kept, the others computed again in the backward pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from spikestill.graph.cut import cut, cut_points, node_named
from spikestill.graph.fusion import is_neuron
from spikestill.graph.sequence import SequenceRun
from spikestill.graph.trace import calls, module_of

__all__ = ["run_in_segments", "segment_ends"]


def segment_ends(body: fx.GraphModule) -> list[str]:
    """Where a graph is divided: of the neuron layers at single-tensor points about the square root, evenly spaced.

    Then what is kept (one sequence a segment) and what a segment needs while it is computed again are balanced.
    """
    neurons = {node.name for node in calls(body.graph) if is_neuron(body, node)}
    points = (point.names[-1] for point in cut_points(body))
    ends = [name for name in points if node_named(body, name).name in neurons]
    count = min(math.isqrt(len(neurons)), len(ends))
    return list(dict.fromkeys(ends[round((index + 1) * len(ends) / (count + 1)) - 1] for index in range(count)))


def run_in_segments(
    body: fx.GraphModule, encoded: Tensor, timesteps: int, taps: Mapping[str, str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output ``[T, B, ...]`` for an encoded input, and the sequences at the taps, as ``SequenceRun`` gives them.

    Args:
        body: the spiking graph.
        encoded: ``[T, B, ...]`` or, constant in time, ``[1, B, ...]``.
        timesteps: T.
        taps: by name of a node, the name under which its sequence is returned.
    """
    tapped: dict[str, Tensor] = {}
    sequence = encoded
    for segment in _segments(body):
        sequence, found = _run(segment, sequence, timesteps, taps)
        tapped |= found
    return sequence, tapped


def _segments(body: fx.GraphModule) -> list[fx.GraphModule]:
    """Cut from the back: a head names its points as the whole graph does, a tail need not."""
    segments: list[fx.GraphModule] = []
    for end in reversed(segment_ends(body)):
        body, tail = cut(body, end)
        segments.insert(0, tail)
    return [body, *segments]


def _run(
    segment: fx.GraphModule, sequence: Tensor, timesteps: int, taps: Mapping[str, str]
) -> tuple[Tensor, dict[str, Tensor]]:
    nodes = {node: taps[node.name] for node in segment.graph.nodes if node.name in taps}

    def forward(given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        run = SequenceRun(segment, timesteps, taps=nodes)
        return run.sequence(given), run.tapped

    result: tuple[Tensor, dict[str, Tensor]] = checkpoint(
        forward,
        sequence,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _running_statistics_kept(segment)),
    )
    return result


@contextlib.contextmanager
def _running_statistics_kept(segment: fx.GraphModule) -> Iterator[None]:
    """A second computation of the same batch must not count it twice."""
    norms = [module_of(segment, node) for node in calls(segment.graph)]
    buffers = [buffer for norm in norms if isinstance(norm, _BatchNorm) for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:  # torch ends a second computation by an exception once it has what it wanted
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
