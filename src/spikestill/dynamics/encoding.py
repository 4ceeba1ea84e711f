"""How analog values become spikes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["poisson_spikes"]


def poisson_spikes(values: Tensor, timesteps: int, generator: torch.Generator | None = None) -> Tensor:
    """Spike trains whose mean over time converges to ``values``: ``s_t = sign(p) * 1[u_t < |p|]``, ``u_t`` uniform.

    The signed form is a reading of LaSNN III-A1, whose wording would never let a negative pixel spike. For values in
    [0, 1] it is the unsigned one.

    Args:
        values: ``[B, ...]`` in [-1, 1]; beyond that range a neuron spikes at every step.
        timesteps: T, the number of steps.
        generator: the source of ``u``; torch's global one by default.

    Returns:
        ``[T, B, ...]`` of -1, 0 and 1 in the dtype of ``values``.
    """
    shape = (timesteps, *values.shape)
    draws = torch.rand(shape, generator=generator, device=values.device, dtype=torch.float32)
    return torch.sign(values) * (draws < values.abs()).to(values.dtype)
