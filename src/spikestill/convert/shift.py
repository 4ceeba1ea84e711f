"""``shift``: each threshold is the largest activation, and each neuron starts half-way to it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from spikestill.convert.preparing import Conversion, require_soft_reset
from spikestill.convert.scaling import rescale
from spikestill.convert.values import activation_percentiles

__all__ = ["set_thresholds", "shift", "start_half_way"]


def shift(work: Conversion, percentile: float = 100.0) -> None:
    """Threshold and initial potential by the ANN's activations (Deng & Gu 2021; methods 8).

    ``theta`` is the largest activation, and ``theta / 2`` the potential to start from, which rounds the rate to the
    nearest one instead of down. Currents are in the ANN's unit: the weights carry the threshold of the layer they read
    (``W <- W * theta_in``), biases stay.

    Args:
        work: the conversion; its graph is changed.
        percentile: of the activation, in (0, 100]; 100 is the largest.

    Raises:
        InputError: for a percentile out of its range, a hard reset, and a layer that no calibration image drives.
    """
    require_soft_reset(work, "shift")
    set_thresholds(work, activation_percentiles(work, percentile))
    start_half_way(work)


def set_thresholds(work: Conversion, thresholds: Mapping[str, float]) -> None:
    """Thresholds in the ANN's unit, and the weights that bring every current into that unit."""

    def set_threshold(name: str, node: fx.Node, current: float) -> float:
        work.neuron(name).set_threshold(thresholds[name])
        return thresholds[name]

    currents = dict.fromkeys(thresholds, 1.0)
    rescale(work.body, set_threshold, input_scale=work.input_scale, currents=currents, output=1.0)


def start_half_way(work: Conversion) -> None:
    """Let every neuron start at half of its threshold."""
    for name in work.activations:
        neuron = work.neuron(name)
        neuron.set_initial(neuron.threshold / 2)
