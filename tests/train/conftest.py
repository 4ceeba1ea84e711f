from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikestill.recipes import AnnRecipe, DistillRecipe, load
from spikestill.runs import Run
from spikestill.train import train

SMALL: dict[str, Any] = {"width": 0.25, "limit_train": 160, "epochs": 2, "batch_size": 32, "device": "cpu"}


@pytest.fixture
def ann_recipe(tmp_path: Path) -> Callable[..., AnnRecipe]:
    def make(**fields: Any) -> AnnRecipe:
        return load(AnnRecipe, SMALL | {"model": "vgg5", "out": str(tmp_path / "ann")} | fields)

    return make


@pytest.fixture
def student_recipe(tmp_path: Path) -> Callable[..., DistillRecipe]:
    def make(**fields: Any) -> DistillRecipe:
        base = {"method": "test", "student": "vgg5", "timesteps": 2, "out": str(tmp_path / "student")}
        return load(DistillRecipe, SMALL | base | fields)

    return make


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Run:
    fields = SMALL | {"model": "vgg5", "out": str(tmp_path_factory.mktemp("teacher") / "run")}
    return train(load(AnnRecipe, fields))
