"""What Lightning is told about the processes: where they are, and how they share the training."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins.layer_sync import LayerSync
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import nn

from spikestill.nn.batch_norm import synchronise, unsynchronise
from spikestill.recipes import DistillRecipe, Recipe
from spikestill.train.processes import Processes, cluster_environment
from spikestill.types import InputError

__all__ = ["refuse_strategy", "shared_training"]


_OF_LOGITS = ("cross-entropy", "logits", "own-ensemble", "selective")


class SharedBatchNorms(LayerSync):
    """Every BatchNorm takes the statistics of the whole batch while a network is trained by several processes."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Before the training begins."""
        synchronise(model)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """After it has ended, or failed."""
        unsynchronise(model)
        return model


def refuse_strategy(recipe: Recipe, processes: Processes, device: torch.device) -> None:
    """Compare the recipe with the processes that there are.

    Raises:
        InputError: for more devices than processes that were started, and for FSDP without GPUs.
    """
    if recipe.devices > 1 and processes.count == 1:
        raise InputError(
            f"devices: {recipe.devices} needs as many processes: the commands train and distill start them for "
            f"--devices {recipe.devices}, others are started by torchrun --nproc_per_node {recipe.devices}"
        )
    if recipe.strategy == "fsdp" and device.type != "cuda":
        raise InputError("strategy fsdp needs GPUs: use --strategy ddp")


def shared_training(recipe: Recipe, processes: Processes, device: torch.device, *plugins: Any) -> dict[str, Any]:
    """The options of a Lightning Trainer that depend on processes and device.

    Args:
        recipe: how to train.
        processes: with whom.
        device: this process's.
        *plugins: further ones of the Trainer.
    """
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    if processes.count == 1 and recipe.strategy != "fsdp":
        devices: Any = [device.index] if device.type == "cuda" else 1
        return {"accelerator": accelerator, "devices": devices, "plugins": [*plugins]}
    environment = cluster_environment()
    return {
        "accelerator": accelerator,
        "devices": processes.local_count,
        "num_nodes": processes.machines,
        "strategy": _strategy(recipe),
        "plugins": [*plugins, SharedBatchNorms(), *([] if environment is None else [environment])],
    }


def _strategy(recipe: Recipe) -> Strategy:
    if recipe.strategy == "fsdp":
        return FSDPStrategy()
    # Buffers are equal already: the only ones that change are the statistics, which are shared.
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=not _reaches_everything(recipe))


def _reaches_everything(recipe: Recipe) -> bool:
    """Whether every parameter gets a gradient at every step.

    Objectives on features alone leave those behind the last one without, a curriculum those of later branches.
    """
    if isinstance(recipe, DistillRecipe):
        has_curriculum = any(objective.options.get("curriculum") for objective in recipe.objectives)
        return not has_curriculum and any(objective.name in _OF_LOGITS for objective in recipe.objectives)
    return True
