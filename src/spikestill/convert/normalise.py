"""``normalise``: the weights are scaled so that every activation lies in [0, 1], and every threshold is 1."""

from __future__ import annotations

from typing import Literal

from torch import fx

from spikestill.convert.bounds import activation_bounds
from spikestill.convert.preparing import Conversion
from spikestill.convert.scales import Scale
from spikestill.convert.scaling import rescale
from spikestill.convert.thresholds import Start, checked_by, checked_start, start_neurons
from spikestill.convert.values import By, activation_percentiles, checked_percentile
from spikestill.types import InputError

__all__ = ["normalise"]


def normalise(
    work: Conversion,
    percentile: float = 99.9,
    based_on: Literal["data", "model"] = "data",
    by: By = "channel",
    start: Start = "half",
) -> None:
    """Weight normalisation (Diehl et al. 2015; methods 8): ``W_l <- W_l * s_in / s_l``, ``b_l <- b_l / s_l``.

    ``s_l`` is a percentile of the ANN's activation over the calibration images, or a bound on it that holds for every
    image within their range: the largest sum of positive incoming weights. The read-out is left at scale 1, so the
    logits are the ANN's.

    Args:
        work: the conversion; its graph is changed.
        percentile: in (0, 100]; 100 is the largest activation. Only for ``based_on="data"``.
        based_on: "data" or "model".
        by: one scale a "channel" or a "layer"; bounds of the model are of a layer in any case.
        start: from "half" of the threshold, or from "rest".

    Raises:
        InputError: for an option out of its range, and for a layer that no calibration image drives.
    """
    checked_percentile(percentile)
    checked_by(by)
    checked_start(start)
    if based_on not in ("data", "model"):
        raise InputError(f"based_on must be 'data' or 'model', not {based_on!r}")
    scales: dict[str, Scale] = (
        activation_percentiles(work, percentile, by) if based_on == "data" else {**activation_bounds(work)}
    )

    def set_threshold(name: str, node: fx.Node, current: Scale) -> Scale:
        work.neuron(name).set_threshold(1.0)
        return scales[name]

    rescale(work.body, set_threshold, input_scale=work.input_scale, currents=scales, output=1.0)
    start_neurons(work, start)
