"""What Lightning trains: an ANN on labels, or a spiking student on a weighted list of objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spikestill.data import Batches
from spikestill.graph import SpikingNetwork
from spikestill.graph import record as record_of
from spikestill.nn import Events
from spikestill.objectives import Guide, Objective
from spikestill.recipes import AnnRecipe, DistillRecipe, Recipe
from spikestill.train.anytime import draw_timesteps
from spikestill.train.nonfinite import first_nonfinite
from spikestill.train.optimisation import is_weight, make_optimiser, make_schedule
from spikestill.train.processes import ALONE, Processes, SharedError
from spikestill.types import InputError, Record

__all__ = ["AnnLearner", "DistillLearner", "Learner"]

_STEPS_BETWEEN_CHECKS = 50
"""How often an accelerator is asked whether the loss is still finite; each question waits for it."""


class Learner(lightning.LightningModule, ABC):
    """Everything the two kinds of training share: precision, optimiser, average, running figures, the NaN stop.

    The figures of an epoch (images, loss, correct, loss terms) are summed on the device and fetched once an epoch: a
    look at them at every step would cost more than a small network's step.

    Args:
        network: what is trained; on its device already.
        recipe: how.
        batches: of the training images, this process's shard of them.
        terms: names of further figures of a batch: the unweighted loss terms, the drawn number of time steps.
        processes: those that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        batches: Batches,
        terms: Sequence[str] = (),
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        # Of few validation images, some processes may get none.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = network
        self.recipe = recipe
        self.batches = batches
        self.terms = tuple(terms)
        self.processes = processes
        self.average: AveragedModel | None = None
        if recipe.ema is not None:
            self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
            self.average.requires_grad_(False)
        where = next(network.parameters()).device
        self._totals = torch.zeros(3 + len(self.terms), dtype=torch.float64, device=where)
        self._validated = torch.zeros(3, dtype=torch.float64, device=where)
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=where)
        self._skips = recipe.on_nan == "skip"
        self.skipped_steps = 0
        self._before_step: dict[str, Tensor] = {}
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format

    @abstractmethod
    def losses(self, images: Tensor, labels: Tensor, *known: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loss to minimise, the logits ``[B, K]`` and the figures named in ``terms``, for one batch.

        Args:
            images: ``[B, C, H, W]``, or event frames ``[T, B, C, H, W]``.
            labels: ``[B]``.
            known: what accompanies the batch: the teacher's logits ``[B, K]``, where they are always the same.
        """

    @property
    def trained(self) -> list[nn.Module]:
        """The modules whose parameters are optimised."""
        return [self.network]

    @property
    def participants(self) -> list[nn.Module]:
        """Every network and objective that runs in a step or a validation."""
        return [self.network] if self.average is None else [self.network, self.average]

    @property
    def _drawing(self) -> list[Any]:
        """The modules among them that draw from generators of their own, each once, in order."""
        found = (module for participant in self.participants for module in participant.modules())
        return list(dict.fromkeys(module for module in found if hasattr(module, "random_state")))

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept: the average, where there is one."""
        return self.network if self.average is None else self.average.module

    def autocast(self, precision: str) -> torch.autocast:
        """The context in which linear layers compute in ``precision``, from float32 weights."""
        return torch.autocast(self._totals.device.type, torch.bfloat16, enabled=precision == "bf16")

    def laid_out(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]``, or event frames ``[T, B, C, H, W]``, in the recipe's memory format."""
        if images.ndim == 4:
            return images.contiguous(memory_format=self._layout)
        return images.flatten(0, 1).contiguous(memory_format=self._layout).unflatten(0, images.shape[:2])

    def training_step(self, batch: tuple[Tensor, ...], index: int) -> Tensor:
        """One step's loss; Lightning differentiates it and steps the optimiser."""
        images, labels, *known = batch
        images = self.laid_out(images)
        if self._skips and not self._before_step:
            self._before_step = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        loss, logits, terms = self.losses(images, labels, *known)
        with torch.no_grad():
            is_good = torch.isfinite(loss)
            figures = (loss.new_tensor(len(labels)), loss * len(labels), (logits.argmax(dim=1) == labels).sum())
            summed = torch.stack([*figures, *(term * len(labels) for term in terms)])
            if self._skips:
                summed = torch.where(is_good, summed, 0)
            else:
                self._first_bad = torch.where((self._first_bad < 0) & ~is_good, self.global_step, self._first_bad)
            self._totals += summed
        if self.is_time_to_look:
            self.refuse_nonfinite(images)
        # The mean over the whole batch: Lightning takes that of its pieces and shards, which may differ in size.
        return loss * (len(labels) / self.batches.usual_size)

    @property
    def steps_per_epoch(self) -> int:
        """How often an epoch steps the optimiser."""
        return len(self.batches) // self.recipe.accumulate

    @property
    def is_time_to_look(self) -> bool:
        """Whether to ask the device, and the other processes, how the training goes."""
        return self._totals.device.type == "cpu" or self.global_step % _STEPS_BETWEEN_CHECKS == 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave the step out, where that is wanted, if a gradient is not finite; Lightning clips afterwards."""
        if not self._skips:
            return
        parameters = [parameter for parameter in self.parameters() if parameter.grad is not None]
        size = torch.stack([cast(Tensor, parameter.grad).abs().max() for parameter in parameters]).max()
        if not size.isfinite():  # of several processes the mean, which is the same for all
            self.skipped_steps += 1
            for name, buffer in self.network.named_buffers():
                buffer.copy_(self._before_step[name])
            optimizer.zero_grad(set_to_none=True)  # optimisers pass over parameters without a gradient
        self._before_step = {}

    def refuse_nonfinite(self, images: Tensor | None = None) -> None:
        """Stop the training, in every process, if a loss was not finite; nothing of it has reached a checkpoint.

        Args:
            images: of the step before, to find the layer with.

        Raises:
            InputError: naming the step and, where it is found, the layer.
        """
        step = int(self.processes.reduced(self._first_bad, "max"))
        if step >= 0:
            epoch = step // self.steps_per_epoch + 1
            where = first_nonfinite(self.network, images) if images is not None and self.processes.count == 1 else None
            kind = InputError if self.processes.count == 1 else SharedError
            raise kind(
                f"the loss is not finite at step {step} (epoch {epoch}){f': {where}' if where else ''}: lower "
                f"--optimiser.lr, set --clip-gradient or --on-nan skip; the last good checkpoint is kept"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimiser, then the average, so that a checkpoint holds both of the same step."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Add one validation batch's figures."""
        images, labels = batch
        with self.autocast(self.recipe.precision):
            logits = self.kept(self.laid_out(images)).float()
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        self._validated += torch.stack([loss.new_tensor(len(labels)), loss, (logits.argmax(dim=1) == labels).sum()])

    def running(self) -> tuple[float, float]:
        """Mean training loss and accuracy of the epoch so far."""
        images, loss, correct = self._totals[:3].tolist()
        return loss / max(images, 1.0), correct / max(images, 1.0)

    def take_figures(self) -> dict[str, float]:
        """The epoch's figures, of all processes; the sums start anew."""
        images, loss, correct, *terms = self.processes.reduced(self._totals).tolist()
        if images == 0:
            raise InputError("no step of this epoch was finite, so all were skipped: lower --optimiser.lr")
        row = {"train_loss": loss / images, "train_accuracy": correct / images}
        row |= {f"train_{name}": term / images for name, term in zip(self.terms, terms, strict=True)}
        images, loss, correct = self.processes.reduced(self._validated).tolist()
        if images == 0:
            raise InputError("no validation image can be read, so no epoch can be chosen: mend the files")
        row |= {"validation_loss": loss / images, "validation_accuracy": correct / images}
        self._totals.zero_()
        self._validated.zero_()
        return row

    def draw_apart(self) -> None:
        """Of several processes, give each its own random numbers, so that no two draw the same spikes or masks."""
        if self.processes.count > 1:
            torch.manual_seed(self.processes.own_seed(self.recipe.seed))
        for module in self._drawing:
            self.processes.draw_apart(module, self._totals.device)

    def setup(self, stage: str) -> None:
        """Note which parameters are weights, before a strategy cuts them into flat pieces."""
        self._decaying = {id(parameter) for parameter in self.parameters() if is_weight(parameter)}

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser and schedule."""
        optimiser = make_optimiser(
            self.recipe.optimiser, self.trained, lambda parameter: id(parameter) in self._decaying
        )
        schedule = make_schedule(
            self.recipe.schedule, optimiser, epochs=self.recipe.epochs, steps_per_epoch=self.steps_per_epoch
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resume needs beyond weights: the place in the data, the sums so far, the random states."""
        # Lightning keeps the place too, but gives it back only where it broke off within an epoch.
        checkpoint["batches"] = self.batches.state_dict()
        checkpoint["totals"] = self.processes.reduced(self._totals).cpu()
        checkpoint["skipped_steps"] = self.skipped_steps
        checkpoint["random"] = self.processes.gathered(torch.get_rng_state())
        checkpoint["generators"] = self.processes.gathered([module.random_state for module in self._drawing])
        if self._totals.is_cuda:
            checkpoint["random_cuda"] = self.processes.gathered(torch.cuda.get_rng_state(self._totals.device))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse of :meth:`on_save_checkpoint`."""
        self.batches.load_state_dict(checkpoint["batches"])
        if self.processes.is_first:
            self._totals.copy_(checkpoint["totals"])
        self.skipped_steps = checkpoint.get("skipped_steps", 0)
        own = _state_of(checkpoint["random"], self.processes)
        if own is not None:
            torch.set_rng_state(own.cpu())
        generators = _state_of(checkpoint.get("generators"), self.processes)
        for module, state in zip(self._drawing, generators or (), strict=generators is not None):
            module.random_state = None if state is None else state.cpu()
        own = _state_of(checkpoint.get("random_cuda"), self.processes)
        if own is not None and self._totals.is_cuda:
            torch.cuda.set_rng_state(own.cpu(), self._totals.device)


class AnnLearner(Learner):
    """Cross-entropy on labels."""

    def __init__(self, network: nn.Module, recipe: AnnRecipe, *, batches: Batches, **more: Any) -> None:
        super().__init__(network, recipe, batches=batches, **more)
        self._label_smoothing = recipe.label_smoothing

    def losses(  # noqa: D102
        self, images: Tensor, labels: Tensor, *known: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        with self.autocast(self.recipe.precision):
            logits = self.network(images).float()
        return functional.cross_entropy(logits, labels, label_smoothing=self._label_smoothing), logits, []


class DistillLearner(Learner):
    """A weighted sum of objectives on the student's record and, where one asks for it, the teacher's.

    Args:
        network: the student, a SpikingNetwork.
        recipe: how.
        objectives: one module for each of the recipe's objectives.
        teacher: the traced ANN, or the spiking network, in evaluation mode; or None.
        rescale: per channel, factor and shift ``[C, 1, 1]`` from the student's normalisation to the teacher's.
        batches: of the training images.
        **more: further options of a Learner.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: DistillRecipe,
        *,
        objectives: Sequence[nn.Module],
        teacher: Guide | None,
        rescale: tuple[Tensor, Tensor] | None,
        batches: Batches,
        **more: Any,
    ) -> None:
        names = [objective.name for objective in recipe.objectives]
        if recipe.train_timesteps == "anytime":
            names.append("timesteps")
        super().__init__(network, recipe, batches=batches, terms=names, **more)
        self.objectives = nn.ModuleList(objectives)
        self._weights = [objective.weight for objective in recipe.objectives]
        # Not submodules: the teacher is no part of a checkpoint and stays in evaluation mode.
        self._teacher = (teacher,)
        self._rescale = rescale
        self._student_taps = _union(objective.student_taps for objective in objectives)
        self._teacher_taps = _union(objective.teacher_taps for objective in objectives)
        self._teacher_gradients = _union(objective.teacher_gradients for objective in objectives)
        self._teacher_precision = recipe.teacher_precision
        self._draws_timesteps, self._anytime = recipe.train_timesteps == "anytime", recipe.anytime

    @property
    def trained(self) -> list[nn.Module]:  # noqa: D102
        return [self.network, self.objectives]

    @property
    def participants(self) -> list[nn.Module]:  # noqa: D102
        (teacher,) = self._teacher
        return [*super().participants, self.objectives, *([] if teacher is None else [teacher])]

    def remember_teacher(self) -> None:
        """Ask the teacher once for its logits of all training images, if every epoch would ask for the same again."""
        (teacher,) = self._teacher
        looked_into = self._teacher_taps or self._teacher_gradients or isinstance(teacher, SpikingNetwork)
        if teacher is None or looked_into or self.batches.varies or not self.batches.holds_images:
            return
        self.batches.accompany(
            lambda images: self._asked(teacher, self.laid_out(images)).logits, "caching the teacher's logits"
        )

    def losses(  # noqa: D102
        self, images: Tensor, labels: Tensor, *known: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        guidance = Record(known[0]) if known else self._guidance(images, labels)
        steps = self.recipe.epochs * self.steps_per_epoch
        for objective in self.objectives:
            cast(Objective, objective).progress = self.global_step / steps
        student = cast(SpikingNetwork, self.network)
        timesteps = student.timesteps
        if self._draws_timesteps:
            timesteps = draw_timesteps(
                self._anytime, timesteps, seed=self.recipe.seed, step=self.global_step, steps=steps
            )
        if isinstance(student.encoder, Events):
            images = images[:timesteps]  # what has happened so far
        with self.autocast(self.recipe.precision):
            record = student.record(images, self._student_taps, timesteps)
            terms = [objective(record, guidance, labels) for objective in self.objectives]
        total = torch.stack([weight * term for weight, term in zip(self._weights, terms, strict=True)]).sum()
        figures = [total.new_tensor(float(timesteps))] if self._draws_timesteps else []
        return total, record.logits, terms + figures

    def _guidance(self, images: Tensor, labels: Tensor) -> Record | None:
        (teacher,) = self._teacher
        return None if teacher is None else self._asked(teacher, images, labels)

    @torch.no_grad()
    def _asked(self, teacher: Guide, images: Tensor, labels: Tensor | None = None) -> Record:
        if images.ndim == 5 and not isinstance(teacher, SpikingNetwork):
            images = images.mean(0)  # an ANN sees all that happened as one image
        if self._rescale is not None:
            images = images * self._rescale[0] + self._rescale[1]
        with self.autocast(self._teacher_precision):
            if isinstance(teacher, SpikingNetwork):
                return teacher.record(images)
            return record_of(teacher, images, taps=self._teacher_taps, gradients=self._teacher_gradients, labels=labels)


def _state_of(states: Any, processes: Processes) -> Any:
    """A process's random state, or states; None where the checkpoint was written by another number of processes."""
    return None if states is None or len(states) != processes.count else states[processes.rank]


def _union(taps: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in taps for name in names))
