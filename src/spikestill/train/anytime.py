"""Anytime training: the number of time steps of every training step (methods, section 4)."""

from __future__ import annotations

from spikestill.data.seeds import derive
from spikestill.recipes import Anytime

__all__ = ["draw_timesteps"]


def draw_timesteps(anytime: Anytime, timesteps: int, *, seed: int, step: int, steps: int) -> int:
    """How many time steps a training step runs, from 1 to T.

    It depends on the arguments alone, so a resumed training draws the same, and so do all processes.

    Args:
        anytime: how it is drawn.
        timesteps: T, the student's.
        seed: the recipe's.
        step: of the training, from 0.
        steps: how many the training has.
    """
    if timesteps == 1 or step >= round((1 - anytime.final) * steps):
        return timesteps
    drawn = derive(seed, "timesteps", step) / 2**64
    if drawn < anytime.full:
        return timesteps
    fewer = int((drawn - anytime.full) / (1 - anytime.full) * (timesteps - 1))
    return 1 + min(fewer, timesteps - 2)
