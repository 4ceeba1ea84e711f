"""What a run records of its network's behaviour beside the figures of its result: ``analysis.json``.

It is written when a training ends and by ``spikestill evaluate``, and read by the page, which so needs no model. It is
a few hundred kilobytes at most: images and maps are small, of a few samples, as bytes in base64.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from dataclasses import dataclass

from spikestill.runs import Run
from spikestill.types import InputError
from spikestill.values import record_of

__all__ = [
    "ConfidenceBin",
    "EarlyExit",
    "Evidence",
    "Layer",
    "MapPair",
    "Mistake",
    "Picture",
    "RasterLayer",
    "Sample",
    "SpikeTrain",
    "Teacher",
]

_FILE = "analysis.json"


@dataclass(frozen=True)
class Picture:
    """A small image or map.

    Attributes:
        height: in pixels.
        width: likewise.
        channels: 1 or 3.
        pixels: ``[height, width, channels]`` bytes, in base64.
    """

    height: int
    width: int
    channels: int
    pixels: str

    def __post_init__(self) -> None:
        """Refuse what is no picture of that size."""
        try:
            content = base64.b64decode(self.pixels, validate=True)
        except ValueError as error:
            raise InputError(f"its pixels are no base64: {error}") from error
        wanted = (self.height, self.width, self.channels)
        if min(wanted) < 1 or self.channels not in (1, 3) or len(content) != math.prod(wanted):
            raise InputError(f"{len(content)} bytes are no picture of {self.height} x {self.width} x {self.channels}")

    @classmethod
    def of(cls, content: bytes, size: tuple[int, int], channels: int) -> Picture:
        """From bytes ``[height, width, channels]``."""
        return cls(*size, channels, base64.b64encode(content).decode())

    @property
    def content(self) -> bytes:
        """The pixels."""
        return base64.b64decode(self.pixels)


@dataclass(frozen=True)
class Teacher:
    """The network that the student learned from, or was converted from.

    Attributes:
        name: as the recipe names it.
        accuracy: on the same images, in [0, 1].
        agreement: the share of images of which both say the same.
    """

    name: str
    accuracy: float
    agreement: float


@dataclass(frozen=True)
class ConfidenceBin:
    """The images of similar confidence: its mean, the share of them that is right, and how many there are."""

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class EarlyExit:
    """Where images stop at this confidence (None: never early): the mean number of time steps, and the accuracy."""

    threshold: float | None
    mean_steps: float
    accuracy: float


@dataclass(frozen=True)
class Layer:
    """One neuron layer.

    Attributes:
        name: its path in the network.
        neurons: how many it has.
        rate: their mean firing rate.
        silent: the share that never fired.
        saturated: the share that fired nearly always.
        rate_error: the distance of its rates from the ANN's activations, in [0, 1]; None where none corresponds.
    """

    name: str
    neurons: int
    rate: float
    silent: float
    saturated: float
    rate_error: float | None = None


@dataclass(frozen=True)
class Sample:
    """A test image: what it is, and what student and teacher took it for, as class indices."""

    image: Picture
    label: int
    predicted: int
    teacher_predicted: int | None = None


@dataclass(frozen=True)
class Mistake(Sample):
    """A test image that the network took for something else, with the confidence it had."""

    confidence: float = 0.0


@dataclass(frozen=True)
class MapPair:
    """Attention maps of the samples at one point of the network and, if there is a teacher, at one of the teacher's."""

    point: str
    maps: tuple[Picture, ...]
    teacher_point: str | None = None
    teacher_maps: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class SpikeTrain:
    """A neuron, by its index in the layer, and the time steps of its spikes, counted from 1."""

    neuron: tuple[int, ...]
    spikes: tuple[int, ...]


@dataclass(frozen=True)
class RasterLayer:
    """Some neurons of a layer while the network looks at the first sample."""

    name: str
    neurons: tuple[SpikeTrain, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run's network did on its test images.

    Attributes:
        images: how many there were.
        classes: the names of the classes.
        timesteps: T; None for an ANN.
        teacher: whom it learned from, where that was at hand.
        confusion: images by class (row) and by what they were taken for (column); empty for very many classes.
        calibration_error: the expected calibration error.
        bins: confidence beside accuracy.
        early_exit: from an early stop to none; empty for an ANN.
        layers: the neuron layers.
        samples: a few test images.
        attention: maps of these.
        raster: spikes for the first of them.
        mistakes: the wrong answers it was surest of.
    """

    images: int
    classes: tuple[str, ...]
    timesteps: int | None = None
    teacher: Teacher | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    calibration_error: float
    bins: tuple[ConfidenceBin, ...] = ()
    early_exit: tuple[EarlyExit, ...] = ()
    layers: tuple[Layer, ...] = ()
    samples: tuple[Sample, ...] = ()
    attention: tuple[MapPair, ...] = ()
    raster: tuple[RasterLayer, ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not belong together.

        Raises:
            InputError: for a class that has no name, and a matrix or a list of another length.
        """
        count = len(self.classes)
        shown = [*self.samples, *self.mistakes]
        named = [one for item in shown for one in (item.label, item.predicted, item.teacher_predicted or 0)]
        if any(not 0 <= one < count for one in named):
            raise InputError(f"a class is outside 0..{count - 1}")
        if self.confusion and {len(self.confusion), *map(len, self.confusion)} != {count}:
            raise InputError(f"the confusion matrix is not of {count} classes")
        maps = [(len(pair.maps), len(pair.teacher_maps)) for pair in self.attention]
        if any(own != len(self.samples) or other not in (0, own) for own, other in maps):
            raise InputError("there is not one attention map a sample")

    def write(self, run: Run) -> None:
        """Write it into the run folder, atomically."""
        run.write_json(_FILE, dataclasses.asdict(self), indent=None)

    @classmethod
    def read(cls, run: Run) -> Evidence | None:
        """That of a run; None where it has none, being older than this file.

        Raises:
            InputError: when it is damaged.
        """
        path = run.folder / _FILE
        if not path.is_file():
            return None
        fields = run.read_json(_FILE)
        try:
            return record_of(cls, fields)
        except (TypeError, InputError) as error:
            raise InputError(f"{path} is damaged: {error}; `spikestill evaluate` writes it anew") from error
