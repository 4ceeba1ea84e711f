"""What a training recipe consists of: frozen, typed, and checked whole before anything runs.

Two kinds share most fields: :class:`AnnRecipe` (``spikestill train``) here, and ``DistillRecipe`` (``spikestill
distill``) in ``distillation.py``. A named method is a YAML preset over these fields, nothing more. The docstrings are
the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from spikestill.data import EVENT_DATA, Augmentation, EventFrames, is_event_data, shown_images
from spikestill.models.specification import LARGEST_IMAGE_SIZE, LARGEST_WIDTH
from spikestill.recipes.parts import (
    Optimiser,
    Pixels,
    Precision,
    Schedule,
)
from spikestill.types import InputError
from spikestill.values import unusable_values

__all__ = ["AnnRecipe", "Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What both kinds of training share.

    Attributes:
        method: the recipe's name, of `spikestill list methods` or your own.
        data: one of `spikestill list datasets`, e.g. digits, cifar10 or folder:PATH.
        data_dir: where named data sets lie or are downloaded to.
        image_size: side to which images are brought; None keeps theirs.
        mean: channel means that pixels are normalised with, on the scale from 0 to 1, as in 0.485,0.456,0.406: what
            weights from elsewhere were trained with; None for the data's own.
        std: channel standard deviations, likewise; both or neither.
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
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
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
        found = list(unusable_values(self)) or list(self.problems())
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
        data = self.data.rstrip("/").replace("\\", "/").split("/")[-1]
        if shown_images(self.data) and "/" in self.data:
            data = f"images-events-{data}"
        parts = (self.method, data, self.network, f"s{self.seed}")
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
        if self.width > LARGEST_WIDTH:
            yield f"width must be at most {LARGEST_WIDTH}, not {self.width}"
        if self.validation <= 0:
            yield f"validation must be positive (the best epoch is chosen by it), not {self.validation}"
        if self.limit_train is not None and self.limit_train <= 0:
            yield f"limit_train must be positive, not {self.limit_train}"
        if self.image_size is not None and self.image_size < 1:
            yield f"image_size must be at least 1, not {self.image_size}"
        if self.image_size is not None and self.image_size > LARGEST_IMAGE_SIZE:
            yield f"image_size must be at most {LARGEST_IMAGE_SIZE}, not {self.image_size}"
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
        yield from self._problems_of_pixels()
        yield from self.optimiser.problems()
        yield from self.schedule.problems(self.epochs)
        if self.workers is not None and self.workers < 0:
            yield f"workers must be 0 or more, not {self.workers}"
        if self.data == "dvs-gesture" and self.augmentation.flip:
            yield "augmentation.flip makes left hands of right ones in dvs-gesture: set it to false"
        if not is_event_data(self.data) and self.events != EventFrames():
            yield f"events is for data of events ({' or '.join(EVENT_DATA)}), not {self.data}"
        if is_event_data(self.data) and self.pixels == "signed":
            yield f"{self.data} has no pixels between -1 and 1: use the encoder events or direct, not poisson or signed"

    def _problems_of_pixels(self) -> Iterator[str]:
        """What cannot be used of mean and std; the data says how many channels there are."""
        if self.mean is None or self.std is None:
            if self.mean is not self.std:
                yield "mean and std belong together: give both, or neither"
            return
        if len(self.mean) != len(self.std) or not self.mean:
            yield f"mean and std must have one number a channel, not {len(self.mean)} and {len(self.std)}"
        if self.pixels == "signed":
            yield "mean and std are not for pixels in [-1, 1] (pixel_scale signed, encoder poisson): leave them out"
        largest = float("inf") if is_event_data(self.data) else 1.0
        if not all(0 <= value <= largest and isfinite(value) for value in self.mean):
            yield f"mean must lie in [0, 1], the scale of pixels divided by 255, not {_listed(self.mean)}"
        if not all(0 < value < float("inf") for value in self.std):
            yield f"std must be positive, not {_listed(self.std)}"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


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
