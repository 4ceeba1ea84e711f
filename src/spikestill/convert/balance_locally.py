"""``balance-locally``: thresholds by channel that follow the calibration batches, each layer behind clipped ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from spikestill.convert.preparing import Conversion, require_soft_reset
from spikestill.convert.scales import Scale, by_channel
from spikestill.convert.thresholds import Start, checked_by, checked_start, set_thresholds, start_neurons
from spikestill.convert.values import By, alive
from spikestill.types import InputError

__all__ = ["balance_locally", "local_thresholds"]


def balance_locally(work: Conversion, passes: int = 4, by: By = "channel", start: Start = "half") -> None:
    """Local threshold balancing (Bu et al., CVPR 2025; methods 8).

    A threshold starts at 0 and, with each calibration batch, grows by twice the mean of what the activation has above
    it: a step down the gradient of the squared error of clipping. The layers behind see the clipped activations.

    Args:
        work: the conversion; its graph is changed.
        passes: over the calibration batches. Thresholds grow towards the largest activation, which they reach only
            after very many; the published code makes as many steps as there are batches in its calibration data.
        by: one threshold a "channel" or a "layer".
        start: from "half" of the threshold, or from "rest".

    Raises:
        InputError: for an option out of its range, a hard reset, and a layer that no calibration image drives.
    """
    require_soft_reset(work, "balance-locally")
    checked_start(start)
    if passes < 1:
        raise InputError(f"passes must be at least 1, not {passes}")
    (thresholds,) = local_thresholds(work, [passes], checked_by(by))
    set_thresholds(work, thresholds)
    start_neurons(work, start)


def local_thresholds(work: Conversion, passes: Sequence[int], by: By) -> list[dict[str, Scale]]:
    """By neuron layer, its thresholds in the ANN's unit after each of some numbers of passes over the images.

    Args:
        work: the conversion.
        passes: rising numbers, at least 1.
        by: one threshold a "channel" or a "layer".

    Raises:
        InputError: for a layer that no calibration image drives.
    """
    run, found = _Clipping(work, by), []
    for number in range(1, passes[-1] + 1):
        for images in work.images:
            run.run(images)
        if number in passes:
            found.append({name: run.scale(name) for name in run.thresholds})
    return found


class _Clipping(fx.Interpreter):
    """The ANN with activations that are clipped at thresholds which follow them."""

    def __init__(self, work: Conversion, by: By) -> None:
        super().__init__(work.ann)
        self._names = {node: name for name, node in work.activations.items()}
        self._by = by
        self.thresholds: dict[str, Tensor] = {}
        self.features: dict[str, tuple[int, ...]] = {}

    def scale(self, name: str) -> Scale:
        """The threshold of a layer now, as a scale of its feature."""
        values = alive(name, self.thresholds[name], "activation")
        return by_channel(values, self.features[name]) if self._by == "channel" else values.item()

    def run_node(self, n: fx.Node) -> Tensor:
        """The value of a node; an activation's is clipped."""
        result: Tensor = super().run_node(n)
        if n not in self._names:
            return result
        name = self._names[n]
        axes = [axis for axis in range(result.dim()) if axis != 1 or self._by == "layer"]
        old = self.thresholds.get(name, result.new_zeros(result.shape[1] if self._by == "channel" else 1))
        above = (result - _shaped(old, result)).clamp(min=0).mean(axes)
        self.thresholds[name] = old + 2 * above
        self.features[name] = tuple(result.shape[1:])
        return torch.minimum(result, _shaped(self.thresholds[name], result))


def _shaped(thresholds: Tensor, like: Tensor) -> Tensor:
    return thresholds.reshape(1, -1, *[1] * (like.dim() - 2))
