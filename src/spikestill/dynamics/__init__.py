"""The mathematics of spiking: pure functions of tensors, without modules and without state.

``surrogate`` defines the gradients of the spike, ``neuron`` one time step of every neuron, ``multistep`` whole
sequences with their two gradients (through time, and through rates), ``encoding`` how values become spikes.
"""

from spikestill.dynamics.encoding import poisson_spikes
from spikestill.dynamics.multistep import Eligibility, rate_forward, spike_sequence, time_mean
from spikestill.dynamics.neuron import NeuronRule
from spikestill.dynamics.surrogate import ATan, Linear, Rectangular, Sigmoid, Surrogate, Triangle

__all__ = [
    "ATan",
    "Eligibility",
    "Linear",
    "NeuronRule",
    "Rectangular",
    "Sigmoid",
    "Surrogate",
    "Triangle",
    "poisson_spikes",
    "rate_forward",
    "spike_sequence",
    "time_mean",
]
