"""The mathematics of spiking: pure functions of tensors, without modules and without state.

``surrogate`` defines the gradients of the spike, ``neuron`` one time step of every neuron, ``current`` what goes into
them, ``batch_norm`` the normalisation of what does not, ``shared`` sums over a batch that several processes hold,
``multistep`` whole sequences with their two gradients (through time, and through rates), ``rate_state`` what the
latter takes from some steps into the next, ``parts`` sequences that come some steps at a time, ``encoding`` how values
become spikes, ``spike_convolution`` convolutions that skip what is zero (C++). ``plain`` holds the passes over time as
they are written in the papers; ``native`` (C++, ``kernels.cpp``) and ``triton_backend`` (``triton_kernels``) hold the
same passes, fused; ``backend`` chooses, and ``compiled`` compiles the C++.
"""

from spikestill.dynamics.batch_norm import batch_norm
from spikestill.dynamics.current import Normalisation, Term, batch_moments, normalise, spike_counts, time_mean
from spikestill.dynamics.encoding import poisson_spikes
from spikestill.dynamics.multistep import (
    Eligibility,
    rate_after,
    rate_forward,
    rate_sequence,
    rate_steps,
    spike_sequence,
)
from spikestill.dynamics.neuron import NeuronRule
from spikestill.dynamics.parts import PackedSpikes, moments_in_parts
from spikestill.dynamics.rate_state import RateState
from spikestill.dynamics.shared import shared_moments
from spikestill.dynamics.spike_convolution import Moves, convolve_spikes, spikes_weight_gradient
from spikestill.dynamics.surrogate import ATan, Linear, Rectangular, Sigmoid, Surrogate, Triangle

__all__ = [
    "ATan",
    "Eligibility",
    "Linear",
    "Moves",
    "NeuronRule",
    "Normalisation",
    "PackedSpikes",
    "RateState",
    "Rectangular",
    "Sigmoid",
    "Surrogate",
    "Term",
    "Triangle",
    "batch_moments",
    "batch_norm",
    "convolve_spikes",
    "moments_in_parts",
    "normalise",
    "poisson_spikes",
    "rate_after",
    "rate_forward",
    "rate_sequence",
    "rate_steps",
    "shared_moments",
    "spike_counts",
    "spike_sequence",
    "spikes_weight_gradient",
    "time_mean",
]
