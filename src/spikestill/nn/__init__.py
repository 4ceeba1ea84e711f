"""Modules around the dynamics: the neurons and the encoders."""

from spikestill.nn.encoders import Direct, Encoder, Events, Poisson
from spikestill.nn.neurons import IF, LIF

__all__ = ["IF", "LIF", "Direct", "Encoder", "Events", "Poisson"]
