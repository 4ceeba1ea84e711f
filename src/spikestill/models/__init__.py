"""Conventional networks (ANNs), each built once: conv nets, VGGs, ResNets, DenseNet, and names from outside.

Every model is made of plain modules that ``torch.fx`` traces, without in-place operations, and its stages are module
paths, fit as cut points: ``stem`` (ResNets, DenseNet), ``layer1``, ``layer2``, ..., each ending in its activation, and
``head``.
"""

from __future__ import annotations

from spikestill.models.names import create, names
from spikestill.models.weights import Fitted, fitted_weights, is_weights_file, load_weights, options_of_file

__all__ = ["Fitted", "create", "fitted_weights", "is_weights_file", "load_weights", "names", "options_of_file"]
