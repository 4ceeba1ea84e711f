"""From the rows of a batch to its pixels: out of the device's memory, or decoded by worker processes."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spikestill.data.crops import central_crop, random_resized_crop
from spikestill.data.decode import Framing
from spikestill.data.encoded import EncodedSet
from spikestill.data.samples import EventSet, ImageSet, Samples
from spikestill.data.seeds import random_state
from spikestill.data.unreadable import Unreadable
from spikestill.types import InputError

__all__ = ["Decoded", "Held", "Source"]


class Source(ABC):
    """Where the pixels of batches come from."""

    @abstractmethod
    def stream(self, wanted: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The pixels of one batch after the other.

        Args:
            wanted: the rows of every batch, int64 ``[B]``.
            epoch: counted from 0.

        Yields:
            Pixels ``[B, H, W, C]`` on the device, contiguous, and the rows they belong to: those that were wanted,
            without what cannot be read and may be left out, which may be all of them.
        """


class Held(Source):
    """Pixels in the device's memory, as integers; the frames of a recording are further channels."""

    def __init__(self, images: Samples, device: str | torch.device) -> None:
        # [N, H, W, C]: a moved pixel is then one row of memory.
        self.pixels = _channels_first(images).permute(0, 2, 3, 1).to(device).contiguous()

    def stream(self, wanted: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: D102
        for rows in wanted:
            yield self.pixels.index_select(0, rows), rows


class Decoded(Source):
    """Images decoded and cropped by worker processes, some batches ahead.

    What a random crop shows depends on seed, epoch and row alone, never on which worker made it.

    Args:
        images: which.
        device: where the pixels go.
        least: smallest share of the area of a random crop; 0 shows the middle of every image.
        seed: of the crops.
        workers: how many processes; 0 decodes in this one.
        unreadable: what happens to images that cannot be read.
    """

    def __init__(
        self,
        images: EncodedSet,
        device: str | torch.device,
        *,
        least: float,
        seed: int,
        workers: int,
        unreadable: Unreadable,
    ) -> None:
        self._images, self._device, self._workers, self._unreadable = images, torch.device(device), workers, unreadable
        self._least, self._seed = least, seed

    def stream(self, wanted: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: D102
        loader = DataLoader(
            _Decoding(self._images, self._least, self._seed, epoch),
            sampler=[rows.cpu() for rows in wanted],
            batch_size=None,
            num_workers=min(self._workers, len(wanted)),
            pin_memory=self._device.type == "cuda",
            # It seeds the workers, which draw nothing from it; without one, torch's global stream would move on.
            generator=torch.Generator(),
        )
        for pixels, rows, complaints in _begun(loader):
            for complaint in complaints:
                self._unreadable.meet(InputError(complaint))
            yield pixels.to(self._device, non_blocking=True), rows.to(self._device)


@dataclass(frozen=True)
class _Decoding(Dataset[tuple[Tensor, Tensor, list[str]]]):
    """Whole batches by their rows; complaints as text, since what a worker raises arrives with its traceback."""

    images: EncodedSet
    least: float
    seed: int
    epoch: int

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor, list[str]]:
        found: list[np.ndarray] = []
        kept: list[int] = []
        complaints: list[str] = []
        for row in rows.tolist():
            try:
                found.append(self.images.decode(row, self._framing(row)))
                kept.append(row)
            except InputError as error:
                complaints.append(str(error))
        pixels = np.stack(found) if found else np.empty((0, self.images.size, self.images.size, 3), np.uint8)
        return torch.from_numpy(pixels), torch.tensor(kept, dtype=torch.int64), complaints

    def _framing(self, row: int) -> Framing:
        if not self.least:
            return partial(central_crop, size=self.images.size)
        draws = random_state(self.seed, "resized crop", self.epoch, row)
        return partial(random_resized_crop, size=self.images.size, least=self.least, draws=draws)


def _begun(loader: DataLoader[tuple[Tensor, Tensor, list[str]]]) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
    """An iteration over the loader, its workers started."""
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads: these children decode and touch no lock of the parent's.
        warnings.filterwarnings("ignore", message=".*use of fork\\(\\) may lead to deadlocks.*")
        return iter(loader)


def _channels_first(images: Samples) -> Tensor:
    """``[N, C, H, W]``, the frames of a recording one after the other."""
    if isinstance(images, EventSet):
        return images.frames.flatten(1, 2)
    assert isinstance(images, ImageSet)
    return images.images
