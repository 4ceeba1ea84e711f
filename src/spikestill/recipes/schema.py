"""What a training recipe consists of: frozen, typed, and checked whole before anything runs.

Two kinds share most fields: :class:`AnnRecipe` (``spikestill train``) and :class:`DistillRecipe` (``spikestill
distill``). A named method is a YAML preset over these fields and nothing more. The docstrings below are the command
line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from spikestill.data import Augmentation
from spikestill.types import InputError

__all__ = [
    "AnnRecipe",
    "DistillRecipe",
    "Encoder",
    "Neuron",
    "Objective",
    "Optimiser",
    "Recipe",
    "Schedule",
    "Surrogate",
]

Precision = Literal["float32", "bf16"]


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
        name: cosine (to zero), step, or constant.
        warmup: epochs of linear warm-up; a fraction is fine.
        milestones: for step, the epochs at which the rate is multiplied by factor.
        factor: for step, the multiplier.
    """

    name: Literal["cosine", "step", "constant"] = "cosine"
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
class Recipe:
    """What both kinds of training share.

    Attributes:
        method: the recipe's name, of `spikestill list methods` or your own.
        data: digits, cifar10, cifar100, folder:PATH or parquet:PATH.
        data_dir: where named data sets lie or are downloaded to.
        image_size: side to which images are brought; None keeps theirs.
        limit_train: use only this number (an integer) or share (a fraction) of the training images.
        validation: share (or number) of the training images held out for model selection.
        split_seed: of the split into training and validation; teacher and students share it.
        augmentation: how training images are varied; unless given, digits are cropped by 1 and never mirrored.
        width: factor on the channels of the network that is trained.
        model_options: further options of that network.
        epochs: passes over the training images.
        batch_size: images a step.
        optimiser: the optimiser.
        schedule: the learning rate over time.
        clip_gradient: largest norm of the gradient; None leaves it.
        ema: decay of an exponential moving average of the weights, which is then validated and kept; None for none.
        precision: float32, or bf16 (weights and statistics stay float32).
        channels_last: lay images out with channels innermost (faster together with bf16).
        seed: of weights, batches and augmentation.
        device: cpu, cuda, or auto.
        checkpoint_minutes: a checkpoint in mid-epoch at least this often; every epoch ends with one in any case.
        out: the run folder; None for runs/METHOD-DATA-MODEL-sSEED.
    """

    method: str
    data: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    limit_train: int | float | None = None
    validation: int | float = 0.1
    split_seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    width: float = 1.0
    model_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 128
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    clip_gradient: float | None = None
    ema: float | None = None
    precision: Precision = "float32"
    channels_last: bool = False
    seed: int = 0
    device: str = "auto"
    checkpoint_minutes: float = 5.0
    out: str | None = None

    def __post_init__(self) -> None:
        """Check the whole recipe.

        Raises:
            InputError: naming every problem at once.
        """
        found = list(self.problems())
        if found:
            raise InputError(f"recipe '{self.method}': " + "; ".join(found))

    @property
    def network(self) -> str:
        """The name of the network that is trained."""
        raise NotImplementedError

    @property
    def folder(self) -> str:
        """The run folder, whether given or by default."""
        if self.out is not None:
            return self.out
        parts = (self.method, self.data.rstrip("/").replace("\\", "/").split("/")[-1], self.network, f"s{self.seed}")
        return "runs/" + "-".join(part.replace(":", "-").replace("/", "-") for part in parts)

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each; names are looked up, nothing is loaded."""
        from spikestill.recipes.names import unknown

        yield from unknown("model", self.network)
        yield from unknown("data set", self.data)
        for name, least in (("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                yield f"{name} must be at least {least}, not {getattr(self, name)}"
        if self.width <= 0:
            yield f"width must be positive, not {self.width}"
        if self.validation <= 0:
            yield f"validation must be positive (the best epoch is chosen by it), not {self.validation}"
        if self.limit_train is not None and self.limit_train <= 0:
            yield f"limit_train must be positive, not {self.limit_train}"
        if self.image_size is not None and self.image_size < 1:
            yield f"image_size must be at least 1, not {self.image_size}"
        if self.clip_gradient is not None and self.clip_gradient <= 0:
            yield f"clip_gradient must be positive, not {self.clip_gradient}"
        if self.ema is not None and not 0 < self.ema < 1:
            yield f"ema must lie in (0, 1), not {self.ema}"
        if self.checkpoint_minutes <= 0:
            yield f"checkpoint_minutes must be positive, not {self.checkpoint_minutes}"
        if self.device.split(":")[0] not in ("auto", "cpu", "cuda"):
            yield f"device must be cpu, cuda or auto, not '{self.device}'"
        yield from self.optimiser.problems()
        yield from self.schedule.problems(self.epochs)


@dataclass(frozen=True, kw_only=True)
class AnnRecipe(Recipe):
    """Train an ANN: a teacher, or the network that is converted afterwards.

    Attributes:
        model: one of `spikestill list models`, timm:NAME, torchvision:NAME or python:PACKAGE.MODULE:FUNCTION.
        pretrained: start from the published weights of a timm or torchvision model.
        label_smoothing: share of the label that is spread over all classes.
    """

    method: str = "ann"
    model: str = "resnet20"
    pretrained: bool = False
    label_smoothing: float = 0.0

    @property
    def network(self) -> str:
        """The name of the network that is trained."""
        return self.model

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        yield from super().problems()
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing must lie in [0, 1), not {self.label_smoothing}"


@dataclass(frozen=True, kw_only=True)
class DistillRecipe(Recipe):
    """Train a spiking student, alone or under the guidance of an ANN.

    Attributes:
        student: the student's architecture, named as for `spikestill check`.
        teacher: a run folder of `spikestill train`, python:PACKAGE.MODULE:FUNCTION, or, for ImageNet's classes,
            timm:NAME or torchvision:NAME; None for none.
        teacher_precision: float32 or bf16, independent of the student's.
        timesteps: T, the steps an image is shown.
        gradient: rate (one backward pass on firing rates) or bptt (through all steps).
        recompute: under bptt, save memory for a second forward pass.
        neuron: what takes the place of every activation.
        encoder: how an image becomes a sequence.
        max_pool: keep max-pooling, or make it average-pooling.
        initialise: random, or teacher-weights (the student then has the teacher's architecture).
        objectives: the weighted terms of the loss.
    """

    student: str = "resnet20"
    teacher: str | None = None
    teacher_precision: Precision = "float32"
    timesteps: int = 4
    gradient: Literal["rate", "bptt"] = "rate"
    recompute: bool = False
    neuron: Neuron = field(default_factory=Neuron)
    encoder: Encoder = field(default_factory=Encoder)
    max_pool: Literal["keep", "average"] = "keep"
    initialise: Literal["random", "teacher-weights"] = "random"
    objectives: tuple[Objective, ...] = (Objective(name="cross-entropy"),)

    @property
    def network(self) -> str:
        """The name of the network that is trained."""
        return self.student

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        from spikestill.recipes.names import needs_teacher, unknown

        yield from super().problems()
        yield from self.neuron.problems()
        if self.timesteps < 1:
            yield f"timesteps must be at least 1, not {self.timesteps}"
        if not self.objectives:
            yield "objectives must name at least one term"
        for objective in self.objectives:
            yield from unknown("objective", objective.name)
            if objective.weight <= 0:
                yield f"the weight of objective {objective.name} must be positive, not {objective.weight}"
            if objective.options.get("each_step") and self.gradient == "rate":
                yield f"objective {objective.name}: each_step needs gradient: bptt"
        guided = [term.name for term in self.objectives if needs_teacher(term.name)]
        if self.initialise == "teacher-weights":
            guided.append("initialise: teacher-weights")
        if guided and self.teacher is None:
            yield f"{' and '.join(guided)} need a teacher: give --teacher RUN_OR_MODEL"
        if self.teacher is not None and not guided:
            yield "a teacher is given, but no objective and no initialisation uses it"
