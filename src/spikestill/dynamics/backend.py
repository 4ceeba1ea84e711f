"""Who does the passes over a layer: fused kernels where the device has them, else the plain functions, their oracle.

A backend is a module with the functions of ``plain.py``: ``spikes``, ``spikes_backward``, ``rate``, ``rate_steps``,
``moments``, ``time_mean``, ``products`` and ``affine``. ``SPIKESTILL_KERNELS=plain`` in the environment takes the plain
ones everywhere; ``auto``, the default, the fused ones where there are some.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from spikestill.dynamics import native, plain
from spikestill.dynamics.neuron import NeuronRule
from spikestill.types import unknown_name

__all__ = ["fuses", "is_recorded", "passes_for"]


def passes_for(sequence: Tensor, rule: NeuronRule | None = None) -> Any:
    """The backend for sequences like this one and, where neurons are in play, for their rule.

    Raises:
        InputError: as :func:`fuses`.
    """
    if not fuses():
        return plain
    if sequence.device.type == "cpu" and native.covers(sequence.dtype, rule):
        return native
    if sequence.device.type == "cuda":
        kernels = _triton_backend()
        if kernels is not None and kernels.covers(sequence.dtype, rule):
            return kernels
    return plain


def fuses() -> bool:
    """Whether kernels of our own are wanted: not while torch records what it sees, for it sees nothing in them.

    That is under ``torch.compile`` and ``torch.export``, ``torch.jit.trace``, modes that dispatch every operation
    (``make_fx``, fake tensors) and the transforms of ``torch.func``.

    Raises:
        InputError: for a value of ``SPIKESTILL_KERNELS`` that is neither "plain" nor "auto".
    """
    chosen = os.environ.get("SPIKESTILL_KERNELS") or "auto"
    if chosen not in ("auto", "plain"):
        raise unknown_name("value of SPIKESTILL_KERNELS", chosen, ("auto", "plain"))
    return chosen == "auto" and not is_recorded()


def is_recorded() -> bool:
    """Whether torch looks at the operations, to record, to fake or to transform them."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@functools.cache
def _triton_backend() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("spikestill.dynamics.triton_backend")
