"""A training that is asked to stop, by Ctrl-C or by the system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spikestill.recipes import AnnRecipe
from spikestill.runs import Run
from spikestill.train import train
from spikestill.train.callbacks import Journal, last_checkpoint_file
from spikestill.types import Interrupted
from tests.train.test_loop import weights

AnnMaker = Callable[..., AnnRecipe]


def signal_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int) -> None:
    """Send this process a signal before the ``steps``-th step's end."""
    ordinary = Journal.on_train_batch_end

    def send(self: Journal, trainer: Any, learner: Any, *rest: Any, **more: Any) -> None:
        if trainer.global_step == steps:
            os.kill(os.getpid(), number)
        ordinary(self, trainer, learner, *rest, **more)

    monkeypatch.setattr(Journal, "on_train_batch_end", send)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("steps", [3, 5, 7])
def test_it_stops_at_a_checkpoint_of_that_step_and_goes_on_to_the_same_bits(
    ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, steps: int
) -> None:
    """Of five steps an epoch; after the fifth its validation comes first."""
    whole = train(ann_recipe(out=str(tmp_path / "whole")))
    recipe = ann_recipe(out=str(tmp_path / "broken"))
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        signal_after(patch, steps, number)
        with pytest.raises(Interrupted) as stopped:
            train(recipe)
    assert stopped.value.status == status
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    run = Run(Path(recipe.folder))
    assert torch.load(last_checkpoint_file(run), weights_only=True)["global_step"] == steps
    resumed = train(recipe, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_with_the_status_of_the_signal_and_one_line(tmp_path: Path, number: int, status: int) -> None:
    command = [sys.executable, "-m", "spikestill.cli", "train", "ann", "--model", "vgg5", "--width", "0.25"]
    options = ["--data", "digits", "--epochs", "500", "--device", "cpu", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not last_checkpoint_file(Run(tmp_path / "run")).exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, complaint = process.communicate(timeout=120)
    assert process.returncode == status
    assert complaint.splitlines()[-1] == "spikestill: stopped; --resume continues from the last checkpoint"
    assert "Traceback" not in complaint
