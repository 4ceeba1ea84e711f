"""What a network does, measured: accuracy over time and spiking activity."""

from spikestill.analysis.activity import Evaluation, evaluate
from spikestill.analysis.classification import accuracy

__all__ = ["Evaluation", "accuracy", "evaluate"]
