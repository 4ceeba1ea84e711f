"""Recipes: what a training consists of, as typed fields, YAML presets and command-line overrides.

Importing this package loads neither a preset nor jsonargparse; ``load`` does.
"""

from spikestill.recipes.distillation import DistillRecipe
from spikestill.recipes.loading import as_mapping, from_mapping, load
from spikestill.recipes.names import KINDS, names, presets
from spikestill.recipes.networks import NetworkDescription, Spiking
from spikestill.recipes.parts import (
    Anytime,
    Conversion,
    Encoder,
    Neuron,
    Objective,
    Optimiser,
    Schedule,
    Stages,
    Surrogate,
)
from spikestill.recipes.schema import AnnRecipe, Recipe

__all__ = [
    "KINDS",
    "AnnRecipe",
    "Anytime",
    "Conversion",
    "DistillRecipe",
    "Encoder",
    "NetworkDescription",
    "Neuron",
    "Objective",
    "Optimiser",
    "Recipe",
    "Schedule",
    "Spiking",
    "Stages",
    "Surrogate",
    "as_mapping",
    "from_mapping",
    "load",
    "names",
    "presets",
]
