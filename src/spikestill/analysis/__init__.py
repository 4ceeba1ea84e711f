"""What a network does, measured: accuracy over time, spiking activity, operations and energy."""

from spikestill.analysis.activity import Evaluation, LayerActivity, evaluate
from spikestill.analysis.answers import Answers, answers
from spikestill.analysis.classification import Bin, Calibration, accuracy, calibration, confusion_matrix
from spikestill.analysis.early_exit import Exit, early_exit
from spikestill.analysis.features import attention_map, firing_rates, rate_error, rate_errors, spike_raster
from spikestill.analysis.operations import LayerOperations, Operations

__all__ = [
    "Answers",
    "Bin",
    "Calibration",
    "Evaluation",
    "Exit",
    "LayerActivity",
    "LayerOperations",
    "Operations",
    "accuracy",
    "answers",
    "attention_map",
    "calibration",
    "confusion_matrix",
    "early_exit",
    "evaluate",
    "firing_rates",
    "rate_error",
    "rate_errors",
    "spike_raster",
]
