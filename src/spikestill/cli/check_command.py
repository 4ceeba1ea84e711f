"""``spikestill check MODEL``."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.cli.signature import call, numbers
from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["check_model", "run"]


def run(words: Sequence[str]) -> None:
    """Parse and check."""
    call(check_model, "check", words)


def check_model(model: str, input_shape: str | None = None, num_classes: int = 10, width: float = 1.0) -> None:
    """Report what in a model becomes spiking, what is rewritten first, and what is refused and why.

    Args:
        model: a name of `spikestill list models`, timm:NAME, torchvision:NAME or python:PACKAGE.MODULE:FUNCTION.
        input_shape: channels, height and width of an image, as in 3,32,32; by default 3,224,224 for timm and
            torchvision, 3,32,32 for all others.
        num_classes: K.
        width: factor on the channels of a built-in model.

    Raises:
        InputError: when the model is unknown, cannot be traced, or holds something that cannot spike.
    """
    from spikestill import graph, models

    large = model.startswith(("timm:", "torchvision:"))
    shape = numbers(input_shape or ("3,224,224" if large else "3,32,32"), "--input-shape")
    if len(shape) != 3:
        raise InputError(f"--input-shape must be channels,height,width, not '{input_shape}'")
    ann = models.create(model, num_classes=num_classes, in_channels=shape[0], image_size=shape[1], width=width)
    report = graph.check(ann, shape)
    print(visible(report, lines=True))
    if report.refused:
        raise InputError(f"{model} cannot become spiking: {len(report.refused)} operations are refused, listed above")
