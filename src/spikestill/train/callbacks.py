"""What accompanies a training: the checkpoints, the table of figures, and a sign of life for whoever waits."""

from __future__ import annotations

import io
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from spikestill.data import Unreadable
from spikestill.files import regular, write_atomically
from spikestill.progress import duration
from spikestill.runs import Run, read_metadata, read_weights, write_weights
from spikestill.text import visible
from spikestill.train.learner import Learner
from spikestill.train.memory import forget_peak_memory, peak_memory
from spikestill.train.processes import Processes
from spikestill.train.provenance import Provenance
from spikestill.train.stopping import StopRequest
from spikestill.types import InputError

__all__ = ["AtomicCheckpoints", "Journal", "Progress", "best_weights_file", "kept_weights_file", "last_checkpoint_file"]

_ON_TERMINAL, _IN_LOG = 0.5, 60.0
"""Seconds between two lines of the training, on a terminal (where one overwrites the other) and in a log."""


_UNNUMBERED = "best.safetensors"
"""The best weights of a run that an earlier version began."""


def last_checkpoint_file(run: Run) -> Path:
    """The checkpoint that a resume continues from."""
    return run.checkpoints / "last.ckpt"


def best_weights_file(run: Run, epoch: int) -> Path:
    """The weights of an epoch that did best on the validation images, as long as a checkpoint names it."""
    return run.checkpoints / f"best-{epoch}.safetensors"


def kept_weights_file(run: Run) -> Path | None:
    """The weights of the best epoch of a run that need not be finished; None if no epoch has ended.

    Raises:
        InputError: if the checkpoint, which says which of several files that is, is damaged.
    """
    found = sorted(run.checkpoints.glob("best*.safetensors"))
    if len(found) < 2:  # more are left by a kill between weights and checkpoint
        return found[0] if found else None
    checkpoint = last_checkpoint_file(run)
    state = AtomicCheckpoints().load_checkpoint(checkpoint)["callbacks"]["Journal"] if checkpoint.exists() else {}
    named = best_weights_file(run, state.get("best_epoch", 0))
    return named if named in found else None


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are never half written and never executed on load."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary name, synchronise, rename."""
        # Through memory: torch's own file writer reports a full disk as an error without a reason.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain values only.

        Raises:
            InputError: when the file is missing, damaged, or wants to execute something.
        """
        try:
            with zipfile.ZipFile(regular(Path(path))) as archive:
                wrong = archive.testzip()  # torch does not hold the content against its check sums
            if wrong is not None:
                raise zipfile.BadZipFile(f"the check sum of {wrong} is another")
            return cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # whatever bytes can make the readers stumble over
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"cannot resume from {path}: damaged, or no checkpoint ({reason}); remove it to begin anew"
            ) from error


class Journal(Callback):
    """After every epoch: a row in ``metrics.csv``, the weights if they are the best so far, and a checkpoint.

    The checkpoint is what counts. It holds all rows and names the best epoch, whose weights were written before it, to
    a file of that epoch's own; those of an earlier best are removed after it. So wherever a training is killed, the
    checkpoint finds the weights that it names, even if a resume does not repeat an epoch exactly.

    Args:
        run: where to.
        minutes: a checkpoint in mid-epoch at least this often.
        device: where the training runs.
        provenance: what the training is made from; a checkpoint of something else is refused.
        unreadable: the files of the data that were left out; checkpoints keep them.
        processes: those that train together.
    """

    def __init__(
        self,
        run: Run,
        minutes: float,
        device: torch.device,
        provenance: Provenance,
        unreadable: Unreadable,
        processes: Processes,
    ) -> None:
        super().__init__()
        self._provenance, self._unreadable, self._processes = provenance, unreadable, processes
        self.rows: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_accuracy = -1.0
        self._run = run
        self._device = device
        self._peak = 0.0
        self._seconds_between = 60 * minutes
        self._saved = self._since = time.monotonic()
        self._seconds = 0.0
        self._request = StopRequest()

    @property
    def seconds(self) -> float:
        """Time spent in training, over all resumes."""
        return self._seconds + time.monotonic() - self._since

    @property
    def peak_memory(self) -> float:
        """The most memory in use so far, in MiB, of all resumes the largest (see ``train.memory``)."""
        return max(self._peak, peak_memory(self._device))

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clocks."""
        self._saved = self._since = time.monotonic()
        forget_peak_memory(self._device)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for requests to stop, when Lightning has set its own handlers."""
        self._request.listen()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen no more."""
        self._request.release()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Listen no more."""
        self._request.release()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Save in mid-epoch when the last checkpoint is old, or a signal asks to stop."""
        # Not after an epoch's last step: a resume from there would leave out its validation; its end saves anyway.
        # Nor between the pieces of a batch, whose gradients no checkpoint holds.
        learner = cast(Learner, pl_module)
        is_whole = (trainer.fit_loop.batch_idx + 1) % learner.recipe.accumulate == 0
        if trainer.is_last_batch or not is_whole or not learner.is_time_to_look:
            return
        is_old = time.monotonic() - self._saved >= self._seconds_between
        if self._request.pending(self._processes, self._device) or self._processes.decided(is_old, self._device):
            self.save(trainer, learner)
            self._request.obey(self._processes, self._device)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Close the epoch."""
        learner = cast(Learner, pl_module)
        learner.refuse_nonfinite()
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "learning_rate": rate}
        self.rows.append(row | learner.take_figures() | {"seconds": round(self.seconds, 1)})
        with self._processes.agreed():
            if self._processes.is_first:
                self._run.write_table("metrics.csv", self.rows)
        accuracy = self.rows[-1]["validation_accuracy"]
        # A tie, frequent with few validation images, goes to the later epoch: its learning rate was lower.
        if accuracy >= self.best_accuracy:
            self.best_accuracy, self.best_epoch = accuracy, trainer.current_epoch + 1
            self._keep(learner, _kept_by(trainer, learner))
        self.save(trainer, learner)
        self._remove_superseded()
        self._request.obey(self._processes, self._device)

    def keep_untrained(self, learner: Learner, accuracy: float) -> None:
        """Keep the network as it is, with its accuracy on the validation images."""
        self.best_accuracy = accuracy
        self._keep(learner, learner.kept.state_dict())

    def _keep(self, learner: Learner, weights: Mapping[str, Tensor]) -> None:
        told = {"epoch": self.best_epoch, "validation_accuracy": self.best_accuracy}
        with self._processes.agreed():
            if self._processes.is_first:
                write_weights(best_weights_file(self._run, self.best_epoch), weights, told)

    def _remove_superseded(self) -> None:
        """Remove the weights of epochs that no checkpoint names any more."""
        if self._processes.is_first:
            best = best_weights_file(self._run, self.best_epoch)
            for path in self._run.checkpoints.glob("best*.safetensors"):
                if path != best:
                    path.unlink(missing_ok=True)

    def best_weights(self) -> dict[str, Tensor]:
        """The weights of the best epoch.

        Raises:
            InputError: if the file is missing, damaged, or holds those of another epoch.
        """
        path = best_weights_file(self._run, self.best_epoch)
        if not path.exists() and path.with_name(_UNNUMBERED).exists():
            return read_weights(path.with_name(_UNNUMBERED))
        told = read_metadata(path)
        if (told.get("epoch"), told.get("validation_accuracy")) != (self.best_epoch, self.best_accuracy):
            raise InputError(f"{path} does not hold the weights of the best epoch: begin anew with --overwrite")
        return read_weights(path)

    def save(self, trainer: lightning.Trainer, learner: Learner) -> None:
        """Write the checkpoint, unless the network has already gone wrong."""
        learner.refuse_nonfinite()
        trainer.save_checkpoint(last_checkpoint_file(self._run))
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What the next resume needs."""
        return {
            "rows": self.rows,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "provenance": self._provenance.state_dict(),
            "unreadable": self._unreadable_anywhere(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`.

        Raises:
            InputError: if the checkpoint is that of another training.
        """
        with self._processes.agreed():
            if "provenance" in state_dict:  # older checkpoints have none
                self._provenance.check(state_dict["provenance"])
        self._unreadable.complaints.update(dict.fromkeys(state_dict.get("unreadable", ())))
        self.rows = list(state_dict["rows"])
        self.best_epoch = state_dict["best_epoch"]
        self.best_accuracy = state_dict["best_accuracy"]
        self._seconds = state_dict["seconds"]
        self._peak = state_dict.get("peak_memory", 0.0)  # older checkpoints have none

    def _unreadable_anywhere(self) -> list[str]:
        """The complaints of all processes, each of which meets those of its own share; every one of them has to ask."""
        return list(
            {line: None for lines in self._processes.gathered(list(self._unreadable.complaints)) for line in lines}
        )


def _kept_by(trainer: lightning.Trainer, learner: Learner) -> dict[str, Tensor]:
    """The whole weights of the network that is kept, wherever the strategy has put them; every process has to ask."""
    prefix = "network." if learner.average is None else "average.module."
    state = trainer.strategy.lightning_module_state_dict()
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


class Progress(Callback):
    """Accuracy and time left: a live line on a terminal, elsewhere one line an epoch, and one a minute within it.

    Args:
        journal: where the figures are; it comes before this callback.
        label: what is being trained.
    """

    def __init__(self, journal: Journal, label: str) -> None:
        super().__init__()
        self._journal = journal
        self._label = label
        self._live = sys.stdout is not None and sys.stdout.isatty()
        self._shown = 0.0
        self._begun = time.monotonic()
        self._first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Note where this process began; a resume's earlier steps say nothing about its speed."""
        self._begun, self._first_step = time.monotonic(), trainer.global_step
        self._shown = 0.0 if self._live else self._begun

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Refresh the live line, at most twice a second; elsewhere a line a minute within a long epoch."""
        wait = _ON_TERMINAL if self._live else _IN_LOG
        if not trainer.is_global_zero or time.monotonic() - self._shown < wait:
            return
        self._shown = time.monotonic()
        loss, accuracy = cast(Learner, pl_module).running()
        done = 100 * trainer.global_step / trainer.estimated_stepping_batches
        self._write(
            f"{self._label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {done:3.0f} %  "
            f"loss {loss:.3f}  accuracy {accuracy:.1%}  {self._left(trainer)} left",
            end="" if self._live else "\n",
        )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """One line about the epoch."""
        if not trainer.is_global_zero:
            return
        self._shown = time.monotonic()
        row = self._journal.rows[-1]
        self._write(
            f"{self._label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {row['train_loss']:.3f}  "
            f"accuracy {row['train_accuracy']:.1%}  validation {row['validation_accuracy']:.1%}  "
            f"{self._left(trainer)} left",
            end="\n",
        )

    def _left(self, trainer: lightning.Trainer) -> str:
        done = trainer.global_step - self._first_step
        remaining = trainer.estimated_stepping_batches - trainer.global_step
        return duration((time.monotonic() - self._begun) * remaining / max(done, 1))

    def _write(self, text: str, end: str) -> None:
        # Back to the line's beginning and clear the rest of it, so that a shorter text leaves nothing behind.
        text = visible(text)
        print(f"\r{text}\x1b[K" if self._live else text, end=end, flush=True)
