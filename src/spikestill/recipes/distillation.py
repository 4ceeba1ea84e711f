"""The recipe of a spiking student, its stages included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from spikestill.data import EVENT_DATA, is_event_data
from spikestill.recipes.parts import (
    Anytime,
    Conversion,
    Encoder,
    Neuron,
    Objective,
    Pixels,
    Precision,
    Stages,
)
from spikestill.recipes.schema import AnnRecipe, Recipe
from spikestill.types import InputError

__all__ = ["DistillRecipe"]

_MOST_TIMESTEPS = 1_000_000

_SHARED_BY_STAGES = (
    "data",
    "data_dir",
    "image_size",
    "mean",
    "std",
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
        train_timesteps: how many of them a training step runs: all, or anytime (a number from 1 to T that is drawn for
            every training step, so that the network is good after every time step).
        anytime: how that number is drawn.
        gradient: rate (one backward pass on firing rates) or bptt (through all steps).
        recompute: save memory for a second forward pass (under rate from the fifth time step on, with BatchNorm).
        neuron: what takes the place of every activation.
        encoder: how an image becomes a sequence.
        max_pool: keep (the maximum of the spikes of each step), gate (of the firing rates) or average. A conversion
            makes keep a gate, unless its options say max_pool: keep.
        initialise: random; teacher-weights (the student then has the teacher's architecture); source-weights; or, from
            an ANN that is converted, best (several methods, of which calibration images choose), normalise,
            threshold-balancing, balance-locally, shift, calibrate or quantise (the neurons take their own leak
            afterwards).
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
    train_timesteps: Literal["all", "anytime"] = "all"
    anytime: Anytime = field(default_factory=Anytime)
    gradient: Literal["rate", "bptt"] = "rate"
    recompute: bool = False
    neuron: Neuron = field(default_factory=Neuron)
    encoder: Encoder = field(default_factory=Encoder)
    max_pool: Literal["keep", "gate", "average"] = "keep"
    initialise: Literal[
        "random",
        "teacher-weights",
        "source-weights",
        "best",
        "normalise",
        "threshold-balancing",
        "balance-locally",
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
        from spikestill.recipes.overlay import overlaid

        known = {entry: getattr(self, entry) for entry in _SHARED_BY_STAGES} | {"method": f"{self.method}-{name}"}
        known["events"] = replace(self.events, frames=self.event_frames)
        if name == "source":
            known |= {"model": self.student, "width": self.width, "model_options": self.model_options}
            known |= {"pixel_scale": self.pixels}
        known = {entry: asdict(value) if is_dataclass(value) else value for entry, value in known.items()}  # type: ignore[arg-type]
        recipe = from_mapping(AnnRecipe, overlaid(AnnRecipe, known, fields))
        beside = Path(self.folder).parent / Path(recipe.folder).name
        return recipe if recipe.out is not None else replace(recipe, out=str(beside))

    def problems(self) -> Iterator[str]:
        """What cannot be used, a phrase each."""
        yield from super().problems()
        yield from self.neuron.problems()
        yield from self.anytime.problems()
        if self.timesteps < 1:
            yield f"timesteps must be at least 1, not {self.timesteps}"
        if self.timesteps > _MOST_TIMESTEPS:
            yield f"timesteps must be at most {_MOST_TIMESTEPS:,}, not {self.timesteps}"
        if self.train_timesteps == "all" and self.anytime != Anytime():
            yield "anytime is given, but train_timesteps: all always runs T: set train_timesteps: anytime"
        yield from self._problems_of_objectives()
        if self.needs_teacher and self.teacher is None and self.stages.teacher is None:
            yield f"{' and '.join(self.needs_teacher)} need a teacher: give --teacher RUN_OR_MODEL"
        if self.teacher is not None and not self.needs_teacher:
            yield "a teacher is given, but no objective and no initialisation uses it"
        if self.encoder.name == "events":
            if not is_event_data(self.data) and not self.student.startswith("custom:"):
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

    def _problems_of_objectives(self) -> Iterator[str]:
        from spikestill.recipes.names import objective_named, unknown

        if not self.objectives:
            yield "objectives must name at least one term"
        for term in self.objectives:
            yield from unknown("objective", term.name)
            if term.weight <= 0:
                yield f"the weight of objective {term.name} must be positive, not {term.weight}"
            kind = objective_named(term.name)
            if kind is None:
                continue
            reason = kind.needs_bptt(term.options)
            if reason is not None and self.gradient == "rate":
                yield reason
            if self.train_timesteps == "anytime" and kind.min_timesteps > 1:
                yield (
                    f"objective {term.name} needs {kind.min_timesteps} time steps, and train_timesteps: anytime also "
                    "draws fewer: leave one of them out"
                )

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
