"""What every floor of the house shares: the axis legend, the records and the one error for wrong input.

Axis letters, used in every docstring:

==  =======================================================
T   time steps (always the first axis of a sequence)
B   batch
C   channels
H   height
W   width
K   classes
N   neurons of one layer
==  =======================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["InputError", "Interrupted", "Record", "unknown_name"]


_MOST_LISTED, _NEAREST_LISTED = 16, 8
_LONGEST_NAME, _LONGEST_LINE = 100, 4000


class InputError(ValueError):
    """The user's input cannot be used; the message is one line that says what is wrong and what to do.

    The command line prints it on standard error and exits with status 2. A fault of spikestill's own is never an
    ``InputError``: it keeps its traceback. What a message quotes can be of any length; the middle of a long one goes.
    """

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST_LINE:
            message = f"{message[: _LONGEST_LINE // 2]} ... {message[-_LONGEST_LINE // 2 :]}"
        super().__init__(message)


class Interrupted(KeyboardInterrupt):
    """A training stopped by a signal, after a checkpoint.

    Attributes:
        status: the exit status of a process that ends for it, 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is none of ``choices``, with the nearest one suggested; many are not all listed.

    >>> str(unknown_name("model", "resnet19x", ["resnet19", "vgg5"]))
    "unknown model 'resnet19x': did you mean 'resnet19'? (known: resnet19, vgg5)"
    """
    known = sorted(choices)
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    near = difflib.get_close_matches(name, known, n=_NEAREST_LISTED, cutoff=0.0)
    likely = difflib.get_close_matches(name, near, n=1, cutoff=0.5)
    hint = f": did you mean '{likely[0]}'?" if likely else ":"
    listed = f"known: {', '.join(known)}" if len(known) <= _MOST_LISTED else f"the nearest known: {', '.join(near)}"
    return InputError(f"unknown {kind} '{name}'{hint} ({listed})")


@dataclass(frozen=True)
class Record:
    """What one forward pass of a network leaves for the objectives.

    Attributes:
        logits: class scores ``[B, K]``; of a spiking network, the mean over the time steps.
        features: by point name, the tapped activation ``[B, C, H, W]``; of a spiking network, its firing rate.
        steps: class scores of every time step ``[T, B, K]``; None for an ANN and under rate gradients, where no
            gradient reaches a single step.
        spikes: by point name, the tapped spikes ``[T, B, C, H, W]``; only where a sequence was asked for.
        gradients: by point name, the gradient ``[B, C, H, W]`` of each image's own cross-entropy by the activation
            there; of a teacher alone, and only where an objective asks for it.
        timesteps: T, how many time steps were run; None for an ANN.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    steps: Tensor | None = None
    spikes: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    timesteps: int | None = None
