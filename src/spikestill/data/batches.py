"""Batches on the device: a new permutation each epoch, and a resume that loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spikestill.data.augment import Augmentation, augment, normalise
from spikestill.data.encoded import EncodedSet
from spikestill.data.samples import EventSet, Samples
from spikestill.data.seeds import generator
from spikestill.data.sources import Decoded, Held, Source
from spikestill.data.unreadable import Unreadable
from spikestill.progress import tracked
from spikestill.types import InputError

__all__ = ["Batches"]


class Batches:
    """An iterable of (images float32 ``[B, C, H, W]``, labels int64 ``[B]``), normalised; see also :meth:`accompany`.

    Recordings of event cameras are ``[T, B, C, H, W]``, or one image each, the mean of their frames.

    Each iteration is the next epoch, also after one that was broken off. Order and augmentation of a batch depend only
    on seed, epoch and the batch's index, never on what ran before: a loader that continues from a ``state_dict`` gives
    the same batches to the last bit.

    Args:
        images: the images; their pixels (counts of events) are held on ``device`` as integers, unless they are decoded
            when they are used.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        mean: channel means on the [0, 1] scale.
        std: channel standard deviations on the [0, 1] scale.
        shuffle: a new permutation each epoch; otherwise the order of ``images``.
        augmentation: random changes; None: none.
        seed: what order and augmentation depend on.
        device: where the pixels lie and the batches are made.
        drop_last: leave out a smaller last batch.
        merge_frames: show a recording as the mean of its frames.
        workers: processes that decode what is not held in memory; 0: this one.
        unreadable: what happens to images that cannot be decoded; None refuses them.
        shard: (r, W): of every batch this loader gives the r-th of W parts, as one of W processes; their loaders
            together give each image once. Order and augmentation are those of the whole batch. Unless batches are
            shuffled, as those of a training are, a batch may be too small for all; some loaders then leave it out.
        divided: give every batch in this many pieces, one after the other, of each its shard: what accumulates
            gradients over them sees the batch with less memory.

    Raises:
        InputError: no image, a batch size below 1, ``drop_last`` that drops everything, mean and std that do
            not fit, or batches that are too small for shards and pieces.
    """

    def __init__(
        self,
        images: Samples,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        drop_last: bool = False,
        merge_frames: bool = False,
        workers: int = 0,
        unreadable: Unreadable | None = None,
        shard: tuple[int, int] = (0, 1),
        divided: int = 1,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"the batch size must be an integer of 1 or more, not {batch_size!r}")
        if len(images) == 0:
            raise InputError("there is no image to make batches of; is the validation share 0?")
        if drop_last and len(images) < batch_size:
            raise InputError(f"drop_last leaves no batch: {len(images)} images, batch size {batch_size}")
        smallest = len(images) % batch_size if divided > 1 and not drop_last else 0
        if shuffle or divided > 1:  # those of a training, whose processes wait for each other in every step
            _refuse_small(smallest or min(batch_size, len(images)), shard[1], divided)
        if not len(mean) == len(std) == images.shape[0]:
            raise InputError(f"images of {images.shape[0]} channels need as many means and standard deviations")
        if augmentation is not None and augmentation.autoaugment and images.shape[0] not in (1, 3):
            raise InputError(f"AutoAugment needs images of 1 or 3 channels, not {images.shape[0]}; switch it off")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augmentation = augmentation
        self.seed = seed
        self.drop_last = drop_last
        self.shard = shard
        self.divided = divided
        self.merge_frames = merge_frames
        # None for images. To what moves pixels, the frames of a recording are further channels.
        self._frames = images.timesteps if isinstance(images, EventSet) else None
        self._mean = tuple(mean) * (self._frames or 1)
        self._std = tuple(std) * (self._frames or 1)
        self._unreadable = Unreadable() if unreadable is None else unreadable
        self._source = self._source_of(images, device, workers)
        self._labels = images.labels.to(device)
        self._companions: Tensor | None = None
        self._epoch = 0
        self._position = 0
        self._resumed = False

    def __len__(self) -> int:
        """Batches in an epoch, or pieces of them."""
        whole, rest = divmod(len(self._labels), self.batch_size)
        pieces = whole * self.divided
        if rest and not self.drop_last:
            pieces += sum(start < stop for start, stop in (self._piece(rest, piece) for piece in range(self.divided)))
        return pieces

    @property
    def usual_size(self) -> float:
        """The mean number of images in a full batch: of those that share it, and their pieces, the same."""
        return min(self.batch_size, len(self._labels)) / (self.shard[1] * self.divided)

    @property
    def varies(self) -> bool:
        """Whether the augmentation shows an image otherwise in every epoch."""
        return self.augmentation is not None and self.augmentation.varies

    @property
    def holds_images(self) -> bool:
        """Whether all images are in memory."""
        return isinstance(self._source, Held)

    def accompany(self, function: Callable[[Tensor], Tensor], title: str = "going through the images") -> None:
        """Give every batch a third part: what ``function`` makes of its images, which is computed here, once for all.

        Args:
            function: from images ``[B, C, H, W]`` (or ``[T, B, C, H, W]``) to values ``[B, ...]``, image by image.
            title: what that is, for the progress.

        Raises:
            InputError: where the augmentation varies the images, or they are not held in memory.
        """
        if self.varies:
            raise InputError("what is augmented cannot be computed once for all epochs")
        if not self.holds_images:
            raise InputError("what is decoded when it is used is too much to compute something for all of it at once")
        rows = torch.arange(len(self._labels), device=self._labels.device)
        parts = rows.split(self.batch_size)
        stream = tracked(self._source.stream(parts, 0), title, len(parts))
        plain = (normalise(pixels, self._mean, self._std) for pixels, _ in stream)
        self._companions = torch.cat([function(self._in_time(images)) for images in plain])

    def __iter__(self) -> Iterator[Any]:
        """The next epoch; directly after ``load_state_dict``, the rest of the saved one."""
        # An epoch that was broken off counts as over; only a loaded state continues in the middle.
        if self._position and not self._resumed:
            self._epoch, self._position = self._epoch + 1, 0
        self._resumed = False
        epoch = self._epoch
        pieces = self._pieces(self._order(epoch))[self._position :]
        stream = self._source.stream([rows for rows, _ in pieces], epoch)
        for index, ((pixels, rows), (_, part)) in enumerate(zip(stream, pieces, strict=True), self._position):
            if not len(rows):
                if self.shuffle:  # a training's processes wait for each other in every step
                    last = next(reversed(self._unreadable.complaints), "")
                    raise InputError(f"no image of a whole batch can be read; the last: {last}")
                continue
            # In the plain layout, which any network takes; what gains from channels-last asks for it. contiguous()
            # would leave images of one channel in strides that count as both, and convolutions choose the other.
            varied = self._in_time(self._varied(pixels, rows, epoch, index // self.divided, part))
            images = varied.clone(memory_format=torch.contiguous_format)
            batch: tuple[Tensor, ...] = images, self._labels[rows]
            if self._companions is not None:
                batch = *batch, self._companions[rows]
            # Before the hand-over: a checkpoint written while this batch is in use continues with the next one, and
            # one written after the last batch with the next epoch.
            self._epoch, self._position = (epoch, index + 1) if index + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the iteration stands: the epoch, the next batch in it, and what these numbers refer to."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "images": len(self._labels),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was saved.

        Raises:
            InputError: when the state belongs to another seed, batch size or number of images.
        """
        for key, own in self.state_dict().items():
            if key in ("epoch", "position"):
                continue
            if state.get(key, own) != own:
                raise InputError(
                    f"cannot resume: the checkpoint was written with {key.replace('_', ' ')} {state[key]}, "
                    f"this run has {own}; use the same value or start anew"
                )
        epoch, position = int(state["epoch"]), int(state["position"])
        if epoch < 0 or not 0 <= position < len(self):
            raise InputError(f"cannot resume at batch {position} of epoch {epoch}: an epoch has {len(self)} batches")
        self._epoch, self._position, self._resumed = epoch, position, True

    def _piece(self, size: int, piece: int) -> tuple[int, int]:
        """Where this loader's shard of a piece of a batch of this size begins and ends in it."""
        first, last = size * piece // self.divided, size * (piece + 1) // self.divided
        rank, processes = self.shard
        return first + (last - first) * rank // processes, first + (last - first) * (rank + 1) // processes

    def _pieces(self, order: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
        """This loader's rows of an epoch, piece by piece, with the first one's place in the batch, and its size."""
        found = []
        for whole in order.split(self.batch_size):
            for start, stop in (self._piece(len(whole), piece) for piece in range(self.divided)):
                found += [(whole[start:stop], (start, len(whole)))] if start < stop else []
        return found[: len(self)]

    def _order(self, epoch: int) -> Tensor:
        count = len(self._labels)
        if not self.shuffle:
            return torch.arange(count, device=self._labels.device)
        return torch.randperm(count, generator=generator(self.seed, "order", epoch)).to(self._labels.device)

    def _varied(self, pixels: Tensor, rows: Tensor, epoch: int, index: int, part: tuple[int, int]) -> Tensor:
        if self.augmentation is None:
            return normalise(pixels, self._mean, self._std)
        draws = generator(self.seed, "augmentation", epoch, index)
        mirrored = self._begins_mirrored[rows.cpu()] ^ bool(epoch % 2) if self.augmentation.alternate else None
        return augment(
            pixels,
            self.augmentation,
            mean=self._mean,
            std=self._std,
            generator=draws,
            part=part,
            mirrored=mirrored,
        )

    @cached_property
    def _begins_mirrored(self) -> Tensor:
        """Which images the first epoch mirrors, where the epochs alternate: bool, one an image."""
        return torch.rand(len(self._labels), generator=generator(self.seed, "mirrored")) < 0.5

    def _in_time(self, images: Tensor) -> Tensor:
        """Images as they are; recordings ``[B, T*C, H, W]`` as frames ``[T, B, C, H, W]``, or as their mean."""
        if self._frames is None:
            return images
        frames = images.unflatten(1, (self._frames, -1))
        return frames.mean(1) if self.merge_frames else frames.transpose(0, 1)

    def _source_of(self, images: Samples, device: str | torch.device, workers: int) -> Source:
        least = 0.0 if self.augmentation is None else self.augmentation.resized_crop
        if isinstance(images, EncodedSet):
            return Decoded(images, device, least=least, seed=self.seed, workers=workers, unreadable=self._unreadable)
        if least:
            raise InputError("augmentation.resized_crop needs data that are decoded when they are used, as imagenet is")
        return Held(images, device)


def _refuse_small(images: int, processes: int, divided: int) -> None:
    """A batch that does not give every process an image of every piece would leave some of them waiting."""
    if images < processes * divided:
        pieces = f" in {divided} pieces" if divided > 1 else ""
        raise InputError(
            f"a batch of {images} images cannot be shared by {processes} processes{pieces}: give a larger batch size"
        )
