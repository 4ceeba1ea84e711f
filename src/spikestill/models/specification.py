"""What a built-in model is asked to be: one frozen, checked record for every family."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from spikestill.types import InputError, unknown_name

__all__ = ["LARGEST_IMAGE_SIZE", "LARGEST_WIDTH", "OPTIONS", "POOLINGS", "STEMS", "Specification", "check_sizes"]

POOLINGS = ("average", "max")
STEMS = ("cifar", "imagenet", "three-conv")


LARGEST_WIDTH = 1000
LARGEST_IMAGE_SIZE = 16384
_MOST_CHANNELS = 1_000_000
"""Of an image, and classes: more is a slip of the pen, and would end in a failed allocation."""


def check_sizes(name: str, *, num_classes: int, in_channels: int, image_size: int, width: float) -> None:
    """Refuse sizes that no model can have.

    Raises:
        InputError: a count that is not a whole number of at least one, or a width that is not a number above zero.
    """
    for size, value in (("num_classes", num_classes), ("in_channels", in_channels), ("image_size", image_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"model '{name}': {size} must be a whole number of at least 1, not {value!r}")
        if value > (most := LARGEST_IMAGE_SIZE if size == "image_size" else _MOST_CHANNELS):
            raise InputError(f"model '{name}': {size} must be at most {most}")
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < float("inf"):
        raise InputError(f"model '{name}': width must be a number above 0, not {width!r}")
    if width > LARGEST_WIDTH:
        raise InputError(f"model '{name}': width must be at most {LARGEST_WIDTH}")


@dataclass(frozen=True)
class Specification:
    """A built-in model's name, sizes and options, checked at construction.

    Attributes:
        name: the model's name, for messages.
        num_classes: K, the number of logits.
        in_channels: C of the input image.
        image_size: height and width of the input image, in pixels.
        width: factor on every hidden channel count, see ``channels``.
        batch_norm: whether a BatchNorm follows every convolution.
        bias: True: every convolution and linear layer has a bias. None: convolutions have one only where no BatchNorm
            follows, linear layers always. False: none has one (a BatchNorm keeps its shift).
        pooling: "average" or "max". The global pooling at the end of a ResNet or DenseNet is always an average.
        dropout: probability of zeroing a value between two weight layers, in [0, 1).
        stem: first layers of a ResNet, one of ``STEMS``; None: the model's own default.
    """

    name: str
    num_classes: int = 10
    in_channels: int = 3
    image_size: int = 32
    width: float = 1.0
    batch_norm: bool = True
    bias: bool | None = None
    pooling: str = "average"
    dropout: float = 0.0
    stem: str | None = None

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: the first field with an impossible value, by name.
        """
        check_sizes(
            self.name,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            image_size=self.image_size,
            width=self.width,
        )
        if not isinstance(self.batch_norm, bool):
            raise InputError(f"model '{self.name}': batch_norm must be true or false, not {self.batch_norm!r}")
        if not (self.bias is None or isinstance(self.bias, bool)):
            raise InputError(f"model '{self.name}': bias must be true, false or null, not {self.bias!r}")
        if self.pooling not in POOLINGS:
            raise unknown_name(f"pooling of {self.name}", str(self.pooling), POOLINGS)
        number = isinstance(self.dropout, (int, float)) and not isinstance(self.dropout, bool)
        if not number or not 0 <= self.dropout < 1:
            raise InputError(
                f"model '{self.name}': dropout must be a probability of at least 0 and below 1, not {self.dropout!r}"
            )
        if self.stem is not None and self.stem not in STEMS:
            raise unknown_name(f"stem of {self.name}", str(self.stem), STEMS)

    @property
    def convolution_bias(self) -> bool:
        """Whether convolutions have a bias."""
        return (not self.batch_norm) if self.bias is None else self.bias

    @property
    def linear_bias(self) -> bool:
        """Whether linear layers have a bias."""
        return self.bias is not False

    def channels(self, base: int) -> int:
        """``base`` channels (or hidden units) times the width, rounded to a multiple of 8, at least 8."""
        return max(8, int(base * self.width / 8 + 0.5) * 8)

    @classmethod
    def parse(cls, name: str, allowed: frozenset[str], options: dict[str, Any], **sizes: Any) -> Specification:
        """Build a specification from the free keywords of ``create``.

        Args:
            name: the model's name.
            allowed: the options that this model's family takes, of ``OPTIONS``.
            options: what was asked for.
            sizes: num_classes, in_channels, image_size and width.

        Raises:
            InputError: an option that the model does not take, or an impossible value.
        """
        for option in options:
            if option not in allowed:
                raise unknown_name(f"option of {name}", option, allowed)
        return cls(name, **sizes, **options)


OPTIONS = frozenset(field.name for field in fields(Specification)) - {
    "name",
    "num_classes",
    "in_channels",
    "image_size",
    "width",
}
