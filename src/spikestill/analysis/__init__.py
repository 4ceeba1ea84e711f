"""What a network does, measured: accuracy over time, spiking activity, operations and energy."""

from spikestill.analysis.activity import Evaluation, evaluate
from spikestill.analysis.classification import accuracy
from spikestill.analysis.operations import LayerOperations, Operations

__all__ = ["Evaluation", "LayerOperations", "Operations", "accuracy", "evaluate"]
