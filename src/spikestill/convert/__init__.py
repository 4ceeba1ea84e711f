"""Thresholds and weights of a spiking network from a trained ANN, one file a method (methods, section 8)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from spikestill.convert.balance_locally import balance_locally
from spikestill.convert.best import best
from spikestill.convert.calibrate import calibrate
from spikestill.convert.normalise import normalise
from spikestill.convert.preparing import Conversion, images_of, prepare
from spikestill.convert.quantise import quantise
from spikestill.convert.quantised_ann import quantised, quantised_structure
from spikestill.convert.restoring import changes, restore
from spikestill.convert.shift import shift
from spikestill.convert.threshold_balancing import balance_thresholds
from spikestill.graph import SpikingNetwork, evaluating
from spikestill.types import InputError, unknown_name

__all__ = ["convert", "names", "quantised", "quantised_structure", "restore"]

_METHODS: dict[str, Callable[..., None]] = {
    "balance-locally": balance_locally,
    "best": best,
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
    method: str = "best",
    *,
    max_pool: Literal["gate", "keep"] = "gate",
    batch_norm: Literal["fold", "keep"] = "fold",
    read_out_from: int | None = None,
    **options: Any,
) -> None:
    """Turn a spiking network, in place, into one that computes what a trained ANN does.

    The ANN's weights are taken over. BatchNorm is folded into the weights where it follows a layer of its own, a module
    that is called several times is copied for each further call (numbered from 2), and biases are input currents of
    every step. Modules keep their names. Where two signals of different scales meet (a shortcut), an explicit
    multiplication by a constant is put on one of them (see ``scaling.py``). If anything is refused, the network stays
    as it was.

    Args:
        snn: made by ``to_spiking`` of this ANN, with ``neuron=IF(...)``, and not converted before. Its ``body`` is
            replaced.
        ann: the trained network, which stays as it is; it is run in evaluation mode. For "quantise" it is one that
            :func:`quantised` made of the network's ANN; the other methods take that too.
        batches: calibration images ``[B, C, H, W]``, or pairs of such and labels (which are not read). They are kept in
            memory together: a few hundred images are what the papers take.
        method: one of :func:`names`; "best" tries several and keeps the one whose network agrees best with the ANN at
            the network's T, on calibration images that it holds back.
        max_pool: "gate" makes of every max pooling one of firing rates, which is exact in the limit of T; "keep" takes
            the maximum of each step's spikes.
        batch_norm: "keep" leaves BatchNorm in the network, to be trained further: thresholds by channel then stand in
            its weight and bias, and in the weights behind. In evaluation the spikes are those of the folded network.
        read_out_from: the time step, from 1, from which on read-outs are averaged; by default 1, and what the method
            "best" chooses.
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
    _check(snn, max_pool, batch_norm, read_out_from)
    work: Conversion = prepare(snn, ann, images_of(batches), max_pool, batch_norm)
    before = copy.deepcopy(work.body)
    with evaluating(work.body), evaluating(work.ann):
        _METHODS[method](work, **options)
    work.body.graph.lint()
    work.body.recompile()
    first = work.notes.pop("read_out_from", 1) if read_out_from is None else read_out_from
    work.body.meta["converted"] = {
        "method": method,
        "max_pool": max_pool,
        "batch_norm": batch_norm,
        "read_out_from": first,
        **work.notes,
        "changes": changes(before, work.body),
    }
    snn.body, snn.read_out_from = work.body, first


def _check(snn: SpikingNetwork, max_pool: str, batch_norm: str, read_out_from: int | None) -> None:
    if max_pool not in ("gate", "keep"):
        raise InputError(f"max_pool must be 'gate' or 'keep', not {max_pool!r}; averages are to_spiking's to make")
    if batch_norm not in ("fold", "keep"):
        raise InputError(f"batch_norm must be 'fold' or 'keep', not {batch_norm!r}")
    if read_out_from is not None and not 1 <= read_out_from <= snn.timesteps:
        raise InputError(f"read_out_from must lie between 1 and T = {snn.timesteps}, not {read_out_from}")
