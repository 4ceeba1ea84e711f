"""The best spiking network of an ANN within a budget: convert, train if that is needed, choose, measure once."""

from spikestill.train.auto.entry import auto

__all__ = ["auto"]
