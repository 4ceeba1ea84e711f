"""Encoders: how a batch becomes the input of T time steps (methods, section 2)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from spikestill.dynamics import poisson_spikes
from spikestill.types import InputError

__all__ = ["Direct", "Encoder", "Events", "Poisson"]


class Encoder(nn.Module):
    """What makes a batch the input of T time steps.

    Attributes:
        constant: True where every step has the same input, so that what precedes the first neuron is computed once.
    """

    constant: bool = False

    @abstractmethod
    def forward(self, batch: Tensor, timesteps: int) -> Tensor:
        """The input ``[T, B, ...]``, or ``[1, B, ...]`` from an encoder whose output is constant."""


class Direct(Encoder):
    """The image ``[B, C, H, W]`` is the input current of the first layer at every step."""

    constant = True

    def forward(self, batch: Tensor, timesteps: int) -> Tensor:  # noqa: D102
        return batch.unsqueeze(0)


class Poisson(Encoder):
    """Spikes at random, at a rate proportional to the pixel (LaSNN III-A1).

    Args:
        scale: what the image is divided by first. The result should lie in [-1, 1]; what lies beyond spikes at every
            step.
        signed: False encodes the positive part alone, in [0, 1].
        seed: of the generator that draws the spikes; None takes torch's global one.
    """

    def __init__(self, scale: float = 1.0, signed: bool = True, seed: int | None = None) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"Poisson: scale must be positive, not {scale}")
        self.scale, self.signed, self.seed = scale, signed, seed
        self._generator: torch.Generator | None = None
        self._begins_at: Tensor | None = None

    def forward(self, batch: Tensor, timesteps: int) -> Tensor:  # noqa: D102
        values = batch / self.scale
        return poisson_spikes(values if self.signed else values.clamp(min=0), timesteps, self._source(batch.device))

    @property
    def random_state(self) -> Tensor | None:
        """Where the encoder's own generator is, uint8; None where it has none or has drawn nothing. It can be set."""
        return self._begins_at if self._generator is None else self._generator.get_state()

    @random_state.setter
    def random_state(self, state: Tensor | None) -> None:
        self._generator, self._begins_at = None, state

    def _source(self, device: torch.device) -> torch.Generator | None:
        if self.seed is None:
            return None
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self.seed)
            if self._begins_at is not None:
                self._generator.set_state(self._begins_at.cpu())
        return self._generator


class Events(Encoder):
    """Event frames ``[T, B, C, H, W]`` go in as they are.

    Raises:
        InputError: where the number of frames is not the network's number of time steps.
    """

    def forward(self, batch: Tensor, timesteps: int) -> Tensor:  # noqa: D102
        if batch.shape[0] != timesteps:
            raise InputError(f"the events have {batch.shape[0]} frames, the network runs {timesteps} time steps")
        return batch
