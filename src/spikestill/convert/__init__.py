"""Thresholds and weights of a spiking network from a trained ANN, one file a method (methods, section 8)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from spikestill.convert.balance_locally import balance_locally
from spikestill.convert.calibrate import calibrate
from spikestill.convert.normalise import normalise
from spikestill.convert.preparing import Conversion, images_of, prepare
from spikestill.convert.quantise import quantise
from spikestill.convert.quantised_ann import quantised, quantised_structure
from spikestill.convert.restoring import changes, restore
from spikestill.convert.shift import shift
from spikestill.convert.threshold_balancing import balance_thresholds
from spikestill.graph import SpikingNetwork, evaluating
from spikestill.types import unknown_name

__all__ = ["convert", "names", "quantised", "quantised_structure", "restore"]

_METHODS: dict[str, Callable[..., None]] = {
    "balance-locally": balance_locally,
    "calibrate": calibrate,
    "normalise": normalise,
    "quantise": quantise,
    "shift": shift,
    "threshold-balancing": balance_thresholds,
}


def names() -> list[str]:
    """The names of the methods."""
    return sorted(_METHODS)


@torch.no_grad()
def convert(
    snn: SpikingNetwork,
    ann: nn.Module,
    batches: Iterable[Any],
    method: str = "threshold-balancing",
    **options: Any,
) -> None:
    """Turn a spiking network, in place, into one that computes what a trained ANN does.

    The ANN's weights are taken over. BatchNorm is folded into the weights where it follows a layer of its own, a module
    that is called several times is copied for each further call (numbered from 2), and biases are input currents of
    every step. Modules keep their names. Where two signals of different scales meet (a shortcut, a concatenation), an
    explicit multiplication by a constant is put on one of them (see ``scaling.py``). If anything is refused, the
    network stays as it was.

    Args:
        snn: made by ``to_spiking`` of this ANN, with ``neuron=IF(...)``, and not converted before. Its ``body`` is
            replaced.
        ann: the trained network, which stays as it is; it is run in evaluation mode. For "quantise" it is one that
            :func:`quantised` made of the network's ANN; the other methods take that too.
        batches: calibration images ``[B, C, H, W]``, or pairs of such and labels (which are not read). They are kept in
            memory together: a few hundred images are what the papers take.
        method: one of :func:`names`.
        **options: the method's own (see its function).

    Raises:
        InputError: for an unknown method or option, a network that was not made of this ANN or is converted already, a
            neuron that leaks, an encoder of events, no images, and a layer that no image drives.
    """
    if method not in _METHODS:
        raise unknown_name("method of conversion", method, _METHODS)
    known = list(inspect.signature(_METHODS[method]).parameters)[1:]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of method {method}", option, known)
    work: Conversion = prepare(snn, ann, images_of(batches))
    before = copy.deepcopy(work.body)
    with evaluating(work.body), evaluating(work.ann):
        _METHODS[method](work, **options)
    work.body.graph.lint()
    work.body.recompile()
    work.body.meta["converted"] = {"method": method, "changes": changes(before, work.body)}
    snn.body = work.body
