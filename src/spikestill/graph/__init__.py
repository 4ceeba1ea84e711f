"""Everything is a transformation of the network's graph: trace, check, to_spiking, rate, cut, fold."""

from spikestill.graph.check import Finding, Report, check
from spikestill.graph.cut import (
    CutPoint,
    Level,
    Point,
    cut,
    cut_points,
    levels,
    named_points,
    output_shape,
    stage_points,
    stages,
)
from spikestill.graph.fold import fold, separate_calls
from spikestill.graph.network import SpikingNetwork, record
from spikestill.graph.spiking import MaxPool, gate_maxima, to_spiking
from spikestill.graph.trace import trace
from spikestill.graph.tracers import evaluating

__all__ = [
    "CutPoint",
    "Finding",
    "Level",
    "MaxPool",
    "Point",
    "Report",
    "SpikingNetwork",
    "check",
    "cut",
    "cut_points",
    "evaluating",
    "fold",
    "gate_maxima",
    "levels",
    "named_points",
    "output_shape",
    "record",
    "separate_calls",
    "stage_points",
    "stages",
    "to_spiking",
    "trace",
]
