"""``shift``: each threshold is the largest activation, and each neuron starts half-way to it."""

from __future__ import annotations

from spikestill.convert.preparing import Conversion, require_soft_reset
from spikestill.convert.thresholds import Start, checked_by, checked_start, set_thresholds, start_neurons
from spikestill.convert.values import By, activation_percentiles

__all__ = ["shift"]


def shift(work: Conversion, percentile: float = 100.0, by: By = "channel", start: Start = "half") -> None:
    """Threshold and initial potential by the ANN's activations (Deng & Gu 2021; methods 8).

    ``theta`` is the largest activation, and ``theta / 2`` the potential to start from, which rounds the rate to the
    nearest one instead of down. By layer, currents are in the ANN's unit: the weights carry the threshold of the layer
    they read (``W <- W * theta_in``), biases stay.

    Args:
        work: the conversion; its graph is changed.
        percentile: of the activation, in (0, 100]; 100 is the largest.
        by: one threshold a "channel" or a "layer".
        start: from "half" of the threshold, or from "rest".

    Raises:
        InputError: for an option out of its range, a hard reset, and a layer that no calibration image drives.
    """
    require_soft_reset(work, "shift")
    checked_start(start)
    set_thresholds(work, activation_percentiles(work, percentile, checked_by(by)))
    start_neurons(work, start)
