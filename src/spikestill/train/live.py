"""Figures to look at while a training runs: TensorBoard, Weights & Biases or MLflow, by Lightning's loggers."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning
from lightning.pytorch.callbacks import Callback

from spikestill.recipes import Recipe, as_mapping
from spikestill.train.callbacks import Journal
from spikestill.train.learner import Learner
from spikestill.types import InputError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

__all__ = ["Live", "live_logger", "refuse_missing"]

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
_SECONDS_BETWEEN = 10.0
_PROJECT = "spikestill"


def refuse_missing(recipe: Recipe) -> None:
    """Look whether the package is installed that the recipe's logger needs.

    Raises:
        InputError: where it is not.
    """
    packages = _PACKAGES.get(recipe.logger, ())
    if packages and not any(map(find_spec, packages)):
        raise InputError(f"--logger {recipe.logger} needs a package: pip install {packages[0]}; or say --logger none")


def live_logger(recipe: Recipe, folder: Path) -> Logger | None:
    """The logger that a recipe names, on a folder of its own in the run folder; None for none.

    Once it fails, on a full disk for instance, it is left alone: no training ends for it.
    """
    from spikestill.train.tolerant_logger import TolerantLogger

    logger = _named(recipe, folder)
    return None if logger is None else TolerantLogger(logger)


def _named(recipe: Recipe, folder: Path) -> Logger | None:
    from lightning.pytorch import loggers

    name = recipe.logger
    if name == "auto":
        name = "tensorboard" if any(map(find_spec, _PACKAGES["tensorboard"])) else "none"
    if name == "tensorboard":
        return loggers.TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)
    if name == "wandb":
        return loggers.WandbLogger(project=_PROJECT, name=folder.name, save_dir=folder)
    if name == "mlflow":
        # MLflow itself wants a data base where no server is told.
        place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        return loggers.MLFlowLogger(experiment_name=_PROJECT, run_name=folder.name, tracking_uri=place)
    return None


class Live(Callback):
    """Hands the running loss and accuracy to the logger now and then, and every epoch's figures.

    Args:
        journal: where those are; it comes before this callback.
        recipe: what is trained.
    """

    def __init__(self, journal: Journal, recipe: Recipe) -> None:
        super().__init__()
        self._journal, self._recipe = journal, recipe
        self._logged = 0.0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Tell it the recipe."""
        if trainer.logger is not None:
            trainer.logger.log_hyperparams(as_mapping(self._recipe))
            self._logged = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """The epoch so far, every ten seconds."""
        if trainer.logger is None or time.monotonic() - self._logged < _SECONDS_BETWEEN:
            return
        self._logged = time.monotonic()
        loss, accuracy = cast(Learner, pl_module).running()
        trainer.logger.log_metrics({"running/loss": loss, "running/accuracy": accuracy}, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """The epoch."""
        if trainer.logger is not None:
            trainer.logger.log_metrics(dict(self._journal.rows[-1]), step=trainer.global_step)
