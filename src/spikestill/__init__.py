"""spikestill: an ANN goes in; an accurate, low-latency spiking network comes out.

The public names are those of the README; what is heavy is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from spikestill.convert import convert  # at once: the function has its package's name, which an import would bind later
from spikestill.dynamics import ATan, Linear, Rectangular, Sigmoid, Triangle
from spikestill.graph import SpikingNetwork, check, to_spiking
from spikestill.nn import IF, LIF, Direct, Events, Poisson
from spikestill.types import InputError, Record

if TYPE_CHECKING:
    from spikestill import analysis, data, export, models, objectives, train
    from spikestill.analysis import evaluate
    from spikestill.export import from_spikingjelly, to_spikingjelly
    from spikestill.train import distill
    from spikestill.train.auto import auto

__version__ = "0.1.0"

__all__ = [
    "IF",
    "LIF",
    "ATan",
    "Direct",
    "Events",
    "InputError",
    "Linear",
    "Poisson",
    "Record",
    "Rectangular",
    "Sigmoid",
    "SpikingNetwork",
    "Triangle",
    "analysis",
    "auto",
    "check",
    "convert",
    "data",
    "distill",
    "evaluate",
    "export",
    "from_spikingjelly",
    "models",
    "objectives",
    "to_spiking",
    "to_spikingjelly",
    "train",
]

_LAZY_LAYERS = ("analysis", "data", "export", "models", "objectives", "train")
_LAZY_FUNCTIONS = {
    "auto": "train",
    "distill": "train",
    "evaluate": "analysis",
    "from_spikingjelly": "export",
    "to_spikingjelly": "export",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY_LAYERS:
        return importlib.import_module(f"spikestill.{name}")
    if name in _LAZY_FUNCTIONS:
        return getattr(importlib.import_module(f"spikestill.{_LAZY_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module 'spikestill' has no attribute '{name}'")
