"""Modules: the neurons and the encoders around the dynamics, and the activation that stands for a neuron in an ANN."""

from spikestill.nn.encoders import Direct, Encoder, Events, Poisson
from spikestill.nn.maximum import MaxGate
from spikestill.nn.neurons import IF, LIF
from spikestill.nn.quantised import ClipFloorShift, clip_floor_shift
from spikestill.nn.stochastic_depth import StochasticDepth

__all__ = [
    "IF",
    "LIF",
    "ClipFloorShift",
    "Direct",
    "Encoder",
    "Events",
    "MaxGate",
    "Poisson",
    "StochasticDepth",
    "clip_floor_shift",
]
