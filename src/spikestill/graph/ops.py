"""The one table of operations: a row for everything that a canonical graph may contain (see ``trace``).

A canonical graph spells each operation in one way: what has weights, or acts otherwise in training, is a call of a
module of one of ``LAYERS`` and ``DROPOUTS``; all else is a call of the one function of an :class:`Operation`, with all
arguments by position and as plain numbers, in the order of its ``arguments``. Nothing overwrites its input.

A new operation is a row here and its form in ``canonical/forms.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.nn import functional

from spikestill.nn import StochasticDepth

__all__ = ["DROPOUTS", "FUNCTIONS", "LAYERS", "OPERATIONS", "Operation", "depends_on_input", "operation_of"]

Kind = Literal["linear", "product", "quotient", "activation", "maximum", "size"]


@dataclass(frozen=True)
class Operation:
    """A row of the table.

    Attributes:
        name: of the operation.
        function: what a node of it calls.
        kind: how signals pass: "linear"; "product" and "quotient" with a constant are linear too; an "activation"
            becomes a neuron; a "maximum" over windows stays; a "size" reads the number of images alone.
        arguments: the names of the positional arguments, the signal first.
    """

    name: str
    function: Callable[..., Any]
    kind: Kind
    arguments: tuple[str, ...]


def _row(name: str, function: Callable[..., Any], kind: Kind, arguments: str) -> Operation:
    return Operation(name, function, kind, tuple(arguments.split()))


_POOL = "signal kernel_size stride padding dilation ceil_mode"
_AVERAGE = "signal kernel_size stride padding ceil_mode count_include_pad"

OPERATIONS: tuple[Operation, ...] = (
    # arithmetic
    _row("add", operator.add, "linear", "first second"),
    _row("sub", operator.sub, "linear", "first second"),
    _row("neg", operator.neg, "linear", "signal"),
    _row("mul", operator.mul, "product", "signal factor"),
    _row("div", operator.truediv, "quotient", "signal divisor"),
    # activations: max(x, 0), and min(max(x, 0), ceiling)
    _row("relu", functional.relu, "activation", "signal"),
    _row("hardtanh", functional.hardtanh, "activation", "signal lowest ceiling"),
    # shape; a reshaping begins with -1, the number of images
    _row("flatten", torch.flatten, "linear", "signal first_axis last_axis"),
    _row("reshape", torch.reshape, "linear", "signal sizes"),
    _row("permute", torch.permute, "linear", "signal axes"),
    _row("getitem", operator.getitem, "linear", "signal index"),
    _row("split", torch.split, "linear", "signal sizes axis"),
    _row("cat", torch.cat, "linear", "signals axis"),
    # neighbourhoods
    _row("pad", functional.pad, "linear", "signal sides mode value"),
    _row("interpolate", functional.interpolate, "linear", "signal size scale mode align_corners recompute antialias"),
    _row("pixel_shuffle", torch.pixel_shuffle, "linear", "signal factor"),
    _row("pixel_unshuffle", torch.pixel_unshuffle, "linear", "signal factor"),
    _row("channel_shuffle", torch.channel_shuffle, "linear", "signal groups"),
    _row("mean", torch.mean, "linear", "signal axes keeps_axes"),
    _row("avg_pool1d", torch.avg_pool1d, "linear", _AVERAGE),
    _row("avg_pool2d", functional.avg_pool2d, "linear", f"{_AVERAGE} divisor"),
    _row("avg_pool3d", functional.avg_pool3d, "linear", f"{_AVERAGE} divisor"),
    _row("adaptive_avg_pool1d", functional.adaptive_avg_pool1d, "linear", "signal size"),
    _row("adaptive_avg_pool2d", functional.adaptive_avg_pool2d, "linear", "signal size"),
    _row("adaptive_avg_pool3d", functional.adaptive_avg_pool3d, "linear", "signal size"),
    _row("max_pool1d", torch.max_pool1d, "maximum", _POOL),
    _row("max_pool2d", torch.max_pool2d, "maximum", _POOL),
    _row("max_pool3d", torch.max_pool3d, "maximum", _POOL),
    _row("adaptive_max_pool1d", functional.adaptive_max_pool1d, "maximum", "signal size"),
    _row("adaptive_max_pool2d", functional.adaptive_max_pool2d, "maximum", "signal size"),
    _row("adaptive_max_pool3d", functional.adaptive_max_pool3d, "maximum", "signal size"),
    # the number of images
    _row("shape", getattr, "size", "signal name"),
)

LAYERS: tuple[type[nn.Module], ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
)
"""What has weights; all of them linear."""

DROPOUTS: tuple[type[nn.Module], ...] = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, StochasticDepth)
"""What drops values in training, and passes them on in evaluation."""

FUNCTIONS = {row.name: row.function for row in OPERATIONS}
"""The function of every operation, by its name."""

_BY_FUNCTION = {row.function: row for row in OPERATIONS}


def operation_of(node: fx.Node) -> Operation | None:
    """The row of a node; None for a call of a module and for what is in no row."""
    return _BY_FUNCTION.get(node.target) if node.op == "call_function" else None  # type: ignore[arg-type]


def depends_on_input(node: fx.Node) -> bool:
    """Whether a node's value is a signal or made of one, not of parameters, buffers and numbers alone."""
    return node.op != "get_attr" and bool(node.meta.get("depends_on_input", True))
