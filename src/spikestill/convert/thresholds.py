"""Thresholds in the ANN's unit put into a graph, and the potential from which its neurons start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, fx

from spikestill.convert.preparing import Conversion
from spikestill.convert.scales import Scale
from spikestill.convert.scaling import rescale
from spikestill.convert.values import By
from spikestill.types import InputError

__all__ = ["Start", "checked_by", "checked_start", "set_thresholds", "start_neurons"]

Start = Literal["half", "rest"]
"""From where neurons start: from half of their threshold, or from rest."""


def set_thresholds(work: Conversion, thresholds: Mapping[str, Scale]) -> dict[str, Scale]:
    """Give each neuron layer its threshold in the ANN's unit, and the weights that go with it.

    A layer of one threshold has that threshold, and currents in the ANN's unit. A layer of one a channel has the
    threshold 1: its current is divided by the channel's threshold, and what reads its spikes multiplies by it.

    Args:
        work: the conversion; its graph is changed.
        thresholds: by neuron layer, a number or one factor a channel (see ``scales.py``).

    Returns:
        By neuron layer, the scale of its current: what of the ANN's current a current of 1 stands for.
    """
    currents: dict[str, Scale] = {
        name: threshold if isinstance(threshold, Tensor) else 1.0 for name, threshold in thresholds.items()
    }

    def set_threshold(name: str, node: fx.Node, current: Scale) -> Scale:
        threshold = thresholds[name]
        work.neuron(name).set_threshold(1.0 if isinstance(threshold, Tensor) else threshold)
        return threshold

    rescale(work.body, set_threshold, input_scale=work.input_scale, currents=currents, output=1.0)
    return currents


def start_neurons(work: Conversion, start: Start) -> None:
    """Let every neuron start at half of its threshold, which rounds its rate to the nearest one, or at rest."""
    for name in work.activations:
        neuron = work.neuron(name)
        neuron.set_initial(neuron.threshold / 2 if start == "half" else None)


def checked_start(start: Start) -> Start:
    """Where neurons start.

    Raises:
        InputError: for anything but "half" and "rest".
    """
    if start not in get_args(Start):
        raise InputError(f"start must be 'half' or 'rest', not {start!r}")
    return start


def checked_by(by: By) -> By:
    """What has one threshold.

    Raises:
        InputError: for anything but "channel" and "layer".
    """
    if by not in get_args(By):
        raise InputError(f"by must be 'channel' or 'layer', not {by!r}")
    return by
