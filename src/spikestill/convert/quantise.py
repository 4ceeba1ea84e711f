"""``quantise``: the thresholds are those that an ANN of quantised activations has learned."""

from __future__ import annotations

from spikestill.convert.preparing import Conversion, require_soft_reset
from spikestill.convert.thresholds import Start, checked_start, set_thresholds, start_neurons
from spikestill.graph.operations import name_of
from spikestill.graph.trace import module_of
from spikestill.nn import ClipFloorShift
from spikestill.types import InputError

__all__ = ["quantise"]


def quantise(work: Conversion, start: Start = "half") -> None:
    """The thresholds that a quantised ANN has learned, and a start half-way to them (Bu et al. 2022; methods 8).

    The ANN is one that :func:`spikestill.convert.quantised` made, usually fine-tuned since. Currents are in its unit,
    as in ``shift``. Where a layer's current is the same at every step, its rate over L time steps is the quantised
    activation of L levels.

    Args:
        work: the conversion; its graph is changed.
        start: from "half" of the threshold, or from "rest".

    Raises:
        InputError: for another start, a hard reset, and for an ANN with an activation that is not quantised.
    """
    require_soft_reset(work, "quantise")
    checked_start(start)
    set_thresholds(work, {name: _learned_threshold(work, name) for name in work.activations})
    start_neurons(work, start)


def _learned_threshold(work: Conversion, name: str) -> float:
    node = work.activations[name]
    module = module_of(work.ann, node)
    if not isinstance(module, ClipFloorShift):
        raise InputError(
            f"quantise needs an ANN of quantised activations, '{name}' is a {name_of(work.ann, node)}: "
            "make one by spikestill.convert.quantised, and fine-tune it"
        )
    return module.threshold.item()
