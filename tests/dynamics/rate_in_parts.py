"""The rate pass of a backend in several calls, each from the state that the one before left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spikestill.dynamics import NeuronRule, RateState
from spikestill.dynamics.layout import Channels, FlatTerm


def rate_in_parts(
    backend: Any,
    parts: Sequence[int],
    terms: Sequence[FlatTerm],
    channels: Channels,
    carry: Tensor | None,
    leak: Tensor,
    threshold: Tensor,
    rule: NeuronRule,
    learn: bool,
) -> tuple[Tensor | None, ...]:
    """As ``backend.rate`` over ``sum(parts)`` steps."""
    like = terms[0].values
    exact = torch.promote_types(like.dtype, torch.float32)
    state = RateState.starting(torch.zeros_like(like[0], dtype=exact) if carry is None else carry, learn)
    spikes, start = [], 0
    for steps in parts:
        some = [
            replace(term, values=term.values[start : start + steps] if len(term.values) > 1 else term.values)
            for term in terms
        ]
        emitted, state = backend.rate_steps(some, channels, state, leak, threshold, steps, rule)
        spikes.append(emitted)
        start += steps
    return torch.cat(spikes), *state.means(start, like.dtype)
