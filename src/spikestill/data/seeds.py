"""Random streams that depend only on what they are named after: seed, purpose, epoch, batch."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

__all__ = ["derive", "generator", "random_state"]


def derive(*parts: int | str) -> int:
    """One 64-bit seed out of several integers and names; any change in any part gives an unrelated seed."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def generator(*parts: int | str) -> torch.Generator:
    """A generator on the CPU, so that every device sees the same draws."""
    return torch.Generator().manual_seed(derive(*parts))


def random_state(*parts: int | str) -> np.random.RandomState:
    """NumPy's legacy generator: its stream is frozen for good, so a split is the same under every version."""
    seed = derive(*parts)
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32])
