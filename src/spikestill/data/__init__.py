"""Data sets: load one by name, and make batches of it on the device."""

from __future__ import annotations

from spikestill.data.augment import Augmentation
from spikestill.data.batches import Batches
from spikestill.data.loading import load, names
from spikestill.data.progress import duration
from spikestill.data.records import DataSet, ImageSet

__all__ = ["Augmentation", "Batches", "DataSet", "ImageSet", "duration", "load", "names"]
