from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from spikestill.nn.batch_norm import SynchronisedBatchNorm
from spikestill.recipes import AnnRecipe, DistillRecipe, Objective
from spikestill.train import strategies, train
from spikestill.train.loaders import resolve_device
from spikestill.train.processes import ALONE, Processes
from spikestill.train.strategies import SharedBatchNorms, refuse_strategy, shared_training
from spikestill.types import InputError

CPU = torch.device("cpu")


def test_fsdp_without_a_gpu_is_refused(ann_recipe: Callable[..., AnnRecipe]) -> None:
    with pytest.raises(InputError, match="strategy fsdp needs GPUs: use --strategy ddp"):
        train(ann_recipe(strategy="fsdp"))


def test_more_devices_than_processes_are_refused(ann_recipe: Callable[..., AnnRecipe]) -> None:
    with pytest.raises(InputError, match=r"devices: 2 needs as many processes: .* torchrun --nproc_per_node 2"):
        train(ann_recipe(devices=2))
    refuse_strategy(ann_recipe(devices=2), Processes(count=2, local_count=2), CPU)


def test_a_device_of_many_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    many = Processes(rank=3, count=4, local_rank=1, local_count=2)
    assert resolve_device("auto", many) == torch.device("cuda", 1)
    with pytest.raises(InputError, match="'cuda:0' is one device, 2 processes share it: use --device cuda"):
        resolve_device("cuda:0", many)
    with pytest.raises(InputError, match="there is no device 'cuda' here"):
        resolve_device("cuda", Processes(rank=2, count=3, local_rank=2, local_count=3))


def test_alone_the_trainer_is_told_of_one_device(ann_recipe: Callable[..., AnnRecipe]) -> None:
    assert shared_training(ann_recipe(), ALONE, CPU, "a plugin") == {
        "accelerator": "cpu",
        "devices": 1,
        "plugins": ["a plugin"],
    }


def test_several_processes_share_gradients_and_statistics(ann_recipe: Callable[..., AnnRecipe]) -> None:
    options = shared_training(ann_recipe(), Processes(rank=5, count=8, local_rank=1, local_count=4), CPU)
    assert (options["devices"], options["num_nodes"]) == (4, 2)
    assert any(isinstance(plugin, SharedBatchNorms) for plugin in options["plugins"])


def test_statistics_are_shared_while_a_network_is_trained() -> None:
    network, plugin = nn.Sequential(nn.BatchNorm1d(2)), SharedBatchNorms()
    assert isinstance(plugin.apply(network).get_submodule("0"), SynchronisedBatchNorm)
    assert isinstance(plugin.revert(network).get_submodule("0"), nn.BatchNorm1d)


def test_only_features_alone_leave_parameters_without_a_gradient(
    ann_recipe: Callable[..., AnnRecipe], student_recipe: Callable[..., DistillRecipe]
) -> None:
    assert strategies._reaches_everything(ann_recipe())
    assert strategies._reaches_everything(student_recipe())
    attention = {"name": "activation-attention"}
    recipe = student_recipe(teacher="t", objectives=[attention])
    assert recipe.objectives == (Objective(name="activation-attention"),)
    assert not strategies._reaches_everything(recipe)
    joining = [{"name": "cross-entropy"}, {"name": "blockwise", "options": {"curriculum": 0.5}}]
    assert not strategies._reaches_everything(student_recipe(teacher="t", objectives=joining))
    assert not strategies._reaches_everything(student_recipe(objectives=[{"name": "branches"}]))
    for name in ("own-ensemble", "selective"):
        recipe = student_recipe(
            teacher="t" if name == "selective" else None, objectives=[{"name": name}], gradient="bptt"
        )
        assert strategies._reaches_everything(recipe)
