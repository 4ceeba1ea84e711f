"""Data sets: load one by name, and make batches of it on the device."""

from __future__ import annotations

from spikestill.data.augment import Augmentation
from spikestill.data.batches import Batches
from spikestill.data.frames import EventFrames
from spikestill.data.loading import load, names
from spikestill.data.recordings import EVENT_DATA, FRAMES, is_event_data, shown_images
from spikestill.data.records import DataSet
from spikestill.data.samples import EventSet, ImageSet
from spikestill.data.unreadable import Unreadable

__all__ = [
    "EVENT_DATA",
    "FRAMES",
    "Augmentation",
    "Batches",
    "DataSet",
    "EventFrames",
    "EventSet",
    "ImageSet",
    "Unreadable",
    "is_event_data",
    "load",
    "names",
    "shown_images",
]
