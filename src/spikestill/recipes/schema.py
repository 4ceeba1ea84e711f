"""What a training recipe consists of: frozen, typed, and checked whole before anything runs.

Two kinds share most fields: :class:`AnnRecipe` (``spikestill train``) and :class:`DistillRecipe` (``spikestill
distill``). A named method is a YAML preset over these fields and nothing more. The docstrings below are the command
line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from spikestill.data import EVENT_DATA, Augmentation, EventFrames
from spikestill.recipes.parts import (
    Conversion,
    Encoder,
    Neuron,
    Objective,
    Optimiser,
    Pixels,
    Precision,
    Schedule,
    Stages,
)
from spikestill.types import InputError

__all__ = ["AnnRecipe", "DistillRecipe", "Recipe"]

_SHARED_BY_STAGES = (
    "data",
    "data_dir",
    "image_size",
    "skip_corrupt",
    "workers",
    "limit_train",
    "validation",
    "split_seed",
    "augmentation",
    "device",
    "devices",
    "strategy",
    "precision",
    "channels_last",
    "logger",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What both kinds of training share.

    Attributes:
        method: the recipe's name, of `spikestill list methods` or your own.
        data: one of `spikestill list datasets`, e.g. digits, cifar10 or folder:PATH.
        data_dir: where named data sets lie or are downloaded to.
        image_size: side to which images are brought; None keeps theirs.
        events: how recordings of event cameras become frames.
        skip_corrupt: leave out files that cannot be read, and count them, where the first one would be refused.
        workers: processes that decode images which do not fit into memory; None for one a core, at most 8.
        limit_train: use only this number (an integer) or share (a fraction) of the training images.
        validation: share (or number) of the training images held out for model selection.
        split_seed: of the split into training and validation; teacher and students share it.
        augmentation: how training images are varied; unless given, digits are cropped by 1 and never mirrored, events
            rolled by 5 pixels in place of the crop, gestures never mirrored, and ImageNet shown in resized crops.
        width: factor on the channels of the network that is trained.
        model_options: further options of that network.
        epochs: passes over the training images.
        batch_size: images a step, of all processes together.
        accumulate: the pieces in which a batch is computed, one after the other, to save memory; BatchNorm then sees a
            piece at a time.
        optimiser: the optimiser.
        schedule: the learning rate over time.
        clip_gradient: largest norm of the gradient; None leaves it.
        ema: decay of an exponential moving average of the weights, which is then validated and kept; None for none.
        precision: float32, or bf16 (weights and statistics stay float32).
        channels_last: lay images out with channels innermost (faster together with bf16).
        on_nan: what follows a loss or a gradient that is not finite: stop, or skip that step and count it.
        seed: of weights, batches and augmentation.
        device: cpu, cuda, or auto.
        devices: processes on this machine, each with a GPU of its own where there are GPUs; under torchrun or SLURM
            these say how many.
        strategy: how several processes share the training: ddp, or fsdp (GPUs only), which shares out the weights too;
            auto is ddp.
        checkpoint_minutes: a checkpoint in mid-epoch at least this often; every epoch ends with one in any case.
        logger: where figures are shown while it runs: tensorboard, wandb, mlflow or none; auto for tensorboard where
            that is installed.
        out: the run folder; None for runs/METHOD-DATA-MODEL-sSEED.
    """

    method: str
    data: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    events: EventFrames = field(default_factory=EventFrames)
    skip_corrupt: bool = False
    workers: int | None = None
    limit_train: int | float | None = None
    validation: int | float = 0.1
    split_seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    width: float = 1.0
    model_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 128
    accumulate: int = 1
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    clip_gradient: float | None = None
    ema: float | None = None
    precision: Precision = "float32"
    channels_last: bool = False
    on_nan: Literal["stop", "skip"] = "stop"
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    checkpoint_minutes: float = 5.0
    logger: Literal["auto", "tensorboard", "wandb", "mlflow", "none"] = "auto"
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
    def pixels(self) -> Pixels:
        """How pixels are scaled for the network."""
        raise NotImplementedError

    @property
    def converts(self) -> bool:
        """Whether the network is converted from an ANN before it is trained, if it is."""
        return False

    @property
    def event_frames(self) -> int | None:
        """How many frames a recording is cut into; None where nothing says so."""
        return self.events.frames

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
        least_epochs = 0 if self.converts else 1
        for name, least in (("epochs", least_epochs), ("batch_size", 1), ("accumulate", 1), ("devices", 1)):
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
        if self.strategy == "fsdp" and (self.ema is not None or self.clip_gradient is not None):
            yield "strategy fsdp takes neither ema nor clip_gradient: set them to null, or use ddp"
        yield from self.optimiser.problems()
        yield from self.schedule.problems(self.epochs)
        if self.workers is not None and self.workers < 0:
            yield f"workers must be 0 or more, not {self.workers}"
        if self.data == "dvs-gesture" and self.augmentation.flip:
            yield "augmentation.flip makes left hands of right ones in dvs-gesture: set it to false"
        if self.data not in EVENT_DATA and self.events != EventFrames():
            yield f"events is for data of events ({' or '.join(EVENT_DATA)}), not {self.data}"
        if self.data in EVENT_DATA and self.pixels == "signed":
            yield f"{self.data} has no pixels between -1 and 1: use the encoder events or direct, not poisson or signed"


@dataclass(frozen=True, kw_only=True)
class AnnRecipe(Recipe):
    """Train an ANN: a teacher, or the network that is converted afterwards.

    Attributes:
        model: one of `spikestill list models`, timm:NAME, torchvision:NAME or python:PACKAGE.MODULE:FUNCTION.
        pretrained: start from the published weights of a timm or torchvision model.
        label_smoothing: share of the label that is spread over all classes.
        pixel_scale: standardised (mean 0, deviation 1 by channel), or signed: in [-1, 1], as a Poisson encoder needs
            them of the network that is converted.
        start: whose weights it starts from: the run of an ANN of the same architecture, or a file of its weights
            (safetensors, or .pt/.pth/.ckpt with a state_dict); None for random ones.
        levels: quantise every activation to that many levels with a threshold that is learned, for a student that is
            initialised by quantise (QCFS); None leaves activations as they are.
    """

    method: str = "ann"
    model: str = "resnet20"
    pretrained: bool = False
    label_smoothing: float = 0.0
    pixel_scale: Pixels = "standardised"
    start: str | None = None
    levels: int | None = None

    @property
    def network(self) -> str:
        """The name of the network that is trained."""
        return self.model

    @property
    def pixels(self) -> Pixels:
        """How pixels are scaled for the network."""
        return self.pixel_scale

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        yield from super().problems()
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing must lie in [0, 1), not {self.label_smoothing}"
        if self.levels is not None and self.levels < 1:
            yield f"levels must be at least 1, not {self.levels}"
        if self.pretrained and self.start is not None:
            yield "pretrained weights and those of start: give one of them"


@dataclass(frozen=True, kw_only=True)
class DistillRecipe(Recipe):
    """Train a spiking student, alone or under the guidance of an ANN.

    Attributes:
        student: the student's architecture, named as for `spikestill check`.
        teacher: a run folder of `spikestill train`; a model, timm:NAME, torchvision:NAME or any other, whose weights
            teacher_weights names; or python:PACKAGE.MODULE:FUNCTION, which returns a trained network; None for none.
        teacher_weights: those of a teacher that is a model: a file (safetensors, or .pt/.pth/.ckpt with a state_dict),
            or pretrained (those that timm and torchvision publish); None, for timm and torchvision: the published ones
            where the data has ImageNet's classes, random ones elsewhere. A teacher whose weights do not know the data's
            classes is trained on it first, as a stage.
        teacher_precision: float32 or bf16, independent of the student's.
        timesteps: T, the steps an image is shown.
        gradient: rate (one backward pass on firing rates) or bptt (through all steps).
        recompute: under bptt, save memory for a second forward pass.
        neuron: what takes the place of every activation.
        encoder: how an image becomes a sequence.
        max_pool: keep max-pooling, or make it average-pooling.
        initialise: random; teacher-weights (the student then has the teacher's architecture); source-weights; or, from
            an ANN that is converted, normalise, threshold-balancing, shift, calibrate or quantise (the neurons take
            their own leak afterwards).
        source: the ANN that the student starts from or that is converted, of the student's architecture: a run, a file
            of weights, or pretrained; None for the teacher.
        conversion: how it is converted.
        objectives: the weighted terms of the loss.
        stages: what is trained first where no run of it is given.
    """

    student: str = "resnet20"
    teacher: str | None = None
    teacher_weights: str | None = None
    teacher_precision: Precision = "float32"
    timesteps: int = 4
    gradient: Literal["rate", "bptt"] = "rate"
    recompute: bool = False
    neuron: Neuron = field(default_factory=Neuron)
    encoder: Encoder = field(default_factory=Encoder)
    max_pool: Literal["keep", "average"] = "keep"
    initialise: Literal[
        "random",
        "teacher-weights",
        "source-weights",
        "normalise",
        "threshold-balancing",
        "shift",
        "calibrate",
        "quantise",
    ] = "random"
    source: str | None = None
    conversion: Conversion = field(default_factory=Conversion)
    objectives: tuple[Objective, ...] = (Objective(name="cross-entropy"),)
    stages: Stages = field(default_factory=Stages)

    @property
    def network(self) -> str:
        """The name of the network that is trained."""
        return self.student

    @property
    def pixels(self) -> Pixels:
        """How pixels are scaled for the network: a Poisson rate cannot exceed 1 (methods 2)."""
        return "signed" if self.encoder.name == "poisson" else "standardised"

    @property
    def converts(self) -> bool:
        """Whether the network is converted from an ANN before it is trained, if it is."""
        return self.initialise not in ("random", "teacher-weights", "source-weights")

    @property
    def event_frames(self) -> int | None:
        """How many frames a recording is cut into: one for each time step, where the student sees them one by one."""
        return self.timesteps if self.encoder.name == "events" else self.events.frames

    @property
    def needs_teacher(self) -> tuple[str, ...]:
        """What in this recipe uses the teacher."""
        from spikestill.recipes.names import needs_teacher

        guided = [term.name for term in self.objectives if needs_teacher(term.name)]
        if self.initialise == "teacher-weights" or (self.converts and not (self.source or self.stages.source)):
            guided.append(f"initialise: {self.initialise}")
        return tuple(guided)

    @property
    def learns_from_spikes(self) -> bool:
        """Whether an objective can learn from a spiking network, so that the teacher may be one."""
        from spikestill.recipes.names import learns_from_spikes

        return any(learns_from_spikes(term.name) for term in self.objectives)

    def stage(self, name: Literal["teacher", "source"]) -> AnnRecipe | None:
        """The training of a stage; None where there is nothing to train, or a run of it is given."""
        fields = getattr(self.stages, name)
        used = self.needs_teacher if name == "teacher" else self.converts
        if fields is None or not used or getattr(self, name) is not None:
            return None
        return self._training(name, fields)

    def training_of_teacher(self, fields: dict[str, Any]) -> AnnRecipe:
        """The training, as a stage, of a teacher that is named by its model: in the student's budget unless it has one.

        Args:
            fields: its model, and what it starts from.
        """
        own = {name: value for name, value in (self.stages.teacher or {}).items() if name != "model"}
        return self._training("teacher", {"epochs": self.epochs, "batch_size": self.batch_size} | own | fields)

    def _training(self, name: Literal["teacher", "source"], fields: dict[str, Any]) -> AnnRecipe:
        from spikestill.recipes.loading import from_mapping

        known = {entry: getattr(self, entry) for entry in _SHARED_BY_STAGES} | {"method": f"{self.method}-{name}"}
        known["events"] = replace(self.events, frames=self.event_frames)
        if name == "source":
            known |= {"model": self.student, "width": self.width, "model_options": self.model_options}
            known |= {"pixel_scale": self.pixels}
        recipe = from_mapping(AnnRecipe, known | fields)
        beside = Path(self.folder).parent / Path(recipe.folder).name
        return recipe if recipe.out is not None else replace(recipe, out=str(beside))

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        from spikestill.recipes.names import unknown

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
        if self.needs_teacher and self.teacher is None and self.stages.teacher is None:
            yield f"{' and '.join(self.needs_teacher)} need a teacher: give --teacher RUN_OR_MODEL"
        if self.teacher is not None and not self.needs_teacher:
            yield "a teacher is given, but no objective and no initialisation uses it"
        if self.encoder.name == "events":
            if self.data not in EVENT_DATA and not self.student.startswith("custom:"):
                yield f"encoder events needs data of events ({' or '.join(EVENT_DATA)}), not {self.data}"
            if self.events.frames not in (None, self.timesteps):
                yield f"events.frames must be timesteps ({self.timesteps}) or left out, not {self.events.frames}"
            if self.converts:
                yield f"initialise: {self.initialise} converts what sees images, the encoder events gives it frames"
        if self.source is not None and not self.converts and self.initialise != "source-weights":
            yield f"a source is given, but initialise: {self.initialise} converts none"
        if self.source is None and self.initialise == "source-weights":
            yield "initialise: source-weights needs a source: give --source RUN_OR_FILE"
        if self.teacher_weights is not None and self.teacher is None:
            yield "teacher_weights are given, but no teacher: give --teacher MODEL"
        if self.conversion.images < 1:
            yield f"conversion.images must be at least 1, not {self.conversion.images}"
        yield from self._problems_of_stages()

    def _problems_of_stages(self) -> Iterator[str]:
        from spikestill.recipes.loading import strange

        name: Literal["teacher", "source"]
        for name in ("teacher", "source"):
            complaints = list(strange(AnnRecipe, getattr(self.stages, name) or {}, f"stages.{name}."))
            yield from map(str, complaints)
            try:
                if not complaints:
                    self.stage(name)
            except InputError as error:
                yield f"stages.{name}: {error}"
