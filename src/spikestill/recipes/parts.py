"""The parts of a recipe: frozen, typed, each with what it cannot be. Their docstrings are the command line's help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Anytime",
    "Conversion",
    "Encoder",
    "Neuron",
    "Objective",
    "Optimiser",
    "Pixels",
    "Precision",
    "Schedule",
    "Stages",
    "Surrogate",
]

Precision = Literal["float32", "bf16"]
Pixels = Literal["standardised", "signed"]


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimiser; weight decay reaches weights only, never normalisation, biases or neuron parameters.

    Attributes:
        name: sgd, adam or adamw.
        lr: peak learning rate.
        momentum: of sgd.
        weight_decay: on the weights of linear layers.
        nesterov: Nesterov's momentum, for sgd.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        if self.lr <= 0:
            yield f"optimiser.lr must be positive, not {self.lr}"
        if not 0 <= self.momentum < 1:
            yield f"optimiser.momentum must lie in [0, 1), not {self.momentum}"
        if self.weight_decay < 0:
            yield f"optimiser.weight_decay must not be negative, not {self.weight_decay}"
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            yield "optimiser.nesterov needs sgd with momentum"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over time, set at every step.

    Attributes:
        name: cosine (to zero), linear (to zero), step, or constant.
        warmup: epochs of linear warm-up; a fraction is fine.
        milestones: for step, the epochs at which the rate is multiplied by factor.
        factor: for step, the multiplier.
    """

    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.1

    def problems(self, epochs: int) -> Iterator[str]:
        """What cannot be used in a training of ``epochs`` epochs, a phrase each."""
        if not 0 <= self.warmup <= max(epochs, 1):
            yield f"schedule.warmup must lie in [0, epochs = {epochs}], not {self.warmup}"
        if (self.name == "step") != bool(self.milestones):
            yield "schedule.milestones and schedule.name = step belong together"
        if not 0 < self.factor <= 1:
            yield f"schedule.factor must lie in (0, 1], not {self.factor}"


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The surrogate gradient of a spike.

    Attributes:
        name: sigmoid, linear, atan, triangle or rectangular.
        options: its parameters, e.g. {alpha: 4.0}; its own defaults where absent.
    """

    name: Literal["sigmoid", "linear", "atan", "triangle", "rectangular"] = "sigmoid"
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """The spiking neuron that takes the place of every activation.

    Attributes:
        name: lif, or if (the leakless one).
        leak: share of the membrane potential that is kept from step to step; an if neuron keeps all of it.
        threshold: membrane potential at which it fires.
        reset: soft (the threshold is subtracted) or hard (to zero).
        order: reset-then-leak (most direct training) or leak-then-subtract (LaSNN).
        detach_reset: keep the reset out of the gradient.
        surrogate: the gradient of a spike.
        learn: the parameters that are trained, of threshold and leak.
    """

    name: Literal["lif", "if"] = "lif"
    leak: float = 0.5
    threshold: float = 1.0
    reset: Literal["soft", "hard"] = "soft"
    order: Literal["reset-then-leak", "leak-then-subtract"] = "reset-then-leak"
    detach_reset: bool = True
    surrogate: Surrogate = field(default_factory=Surrogate)
    learn: tuple[Literal["threshold", "leak"], ...] = ()

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        if not 0 < self.leak <= 1:
            yield f"neuron.leak must lie in (0, 1], not {self.leak}"
        if self.threshold <= 0:
            yield f"neuron.threshold must be positive, not {self.threshold}"
        if self.name == "lif" and self.leak == 1 and "leak" in self.learn:
            yield "neuron.learn names leak, which must then start below 1"
        if self.name == "if" and "leak" in self.learn:
            yield "neuron.learn names leak, which an if neuron does not have"


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How an image becomes a sequence.

    Attributes:
        name: direct (the image is the input current of every step), poisson, or events (frames as they are).
        options: the encoder's own options.
    """

    name: Literal["direct", "poisson", "events"] = "direct"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One term of the loss.

    Attributes:
        name: one of `spikestill list objectives`.
        weight: its factor in the sum.
        options: its own options.
    """

    name: str
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Anytime:
    """How often anytime training runs all T time steps; the other training steps share 1 to T - 1 evenly.

    Attributes:
        full: the probability that a training step runs all T time steps.
        final: the last share of the training, in which every training step runs all T.
    """

    full: float = 0.5
    final: float = 0.2

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        for name in ("full", "final"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"anytime.{name} must lie in [0, 1], not {getattr(self, name)}"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a student is converted from the ANN that it starts from.

    Attributes:
        images: training images to calibrate with, without augmentation.
        options: those of the method of conversion, e.g. {percentile: 99.7, by: layer, start: rest}; and of all methods,
            max_pool (gate or keep), batch_norm (fold, or keep to train on with it) and read_out_from (the time step
            from which on read-outs are averaged).
    """

    images: int = 256
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What is trained first where no run of it is given, as fields of a recipe for `spikestill train`.

    What they leave open about data, device and precision is as in the student's recipe; the seed is 0, so that students
    of all seeds share them. Their folders lie beside the student's, and a finished one is used again.

    Attributes:
        teacher: the teacher.
        source: the ANN that is converted; its model is the student's.
    """

    teacher: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
