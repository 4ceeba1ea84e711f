"""The live loggers."""

from __future__ import annotations

import errno
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from spikestill.recipes import AnnRecipe
from spikestill.train import live, train
from spikestill.types import InputError

AnnMaker = Callable[..., AnnRecipe]


def test_tensorboard_shows_every_epoch(ann_recipe: AnnMaker) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    run = train(ann_recipe(logger="tensorboard"))
    (file,) = (run.folder / "tensorboard").glob("events.*")
    shown = {}
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            shown[value.tag, event.step] = value.tensor.float_val[0] if value.tensor.float_val else None
    rows = run.read_table("metrics.csv")
    for row in rows:
        for name in ("train_loss", "validation_accuracy", "learning_rate"):
            assert shown[name, int(row["step"])] == pytest.approx(float(row[name]))


def test_none_shows_nothing(ann_recipe: AnnMaker) -> None:
    run = train(ann_recipe(logger="none"))
    assert not (run.folder / "tensorboard").exists()


def test_auto_is_tensorboard_where_that_is_installed(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    live.refuse_missing(ann_recipe())
    assert live.live_logger(ann_recipe(), tmp_path) is None


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_one_line_before_anything_is_touched(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"--logger {name} needs a package: pip install {name}; or say --logger none"):
        train(ann_recipe(logger=name))
    assert not (tmp_path / "ann").exists()


@pytest.mark.parametrize("method", ["experiment", "log_metrics", "log_hyperparams", "save", "finalize"])
def test_a_logger_on_a_full_disk_ends_no_training(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TensorBoardLogger, method, property(fail) if method == "experiment" else fail)
    with caplog.at_level(logging.WARNING, "spikestill"):
        assert train(ann_recipe(logger="tensorboard")).finished
    (said,) = (record.getMessage() for record in caplog.records if "live logger" in record.getMessage())
    assert said.startswith("the live logger failed ([Errno 28] No space left on device) and shows nothing more")


def test_a_rerun_forgets_what_was_shown(ann_recipe: AnnMaker) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    run = train(ann_recipe())
    (run.folder / "tensorboard" / "old").touch()
    train(ann_recipe(), overwrite=True)
    assert not (run.folder / "tensorboard" / "old").exists()
    assert len(list((run.folder / "tensorboard").glob("events.*"))) == 1


def test_a_run_goes_on_with_another_logger(ann_recipe: AnnMaker) -> None:
    train(ann_recipe(logger="none"))
    assert train(ann_recipe(logger="auto"), resume=True).finished
