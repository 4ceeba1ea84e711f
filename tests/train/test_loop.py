from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spikestill.recipes import AnnRecipe, DistillRecipe, NetworkDescription
from spikestill.runs import HeldError, Run
from spikestill.train import callbacks, evaluate, train
from spikestill.train.callbacks import Journal, last_checkpoint_file
from spikestill.train.loaders import resolve_device
from spikestill.types import InputError

AnnMaker = Callable[..., AnnRecipe]
StudentMaker = Callable[..., DistillRecipe]


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """End the training after ``steps`` steps."""
    ordinary = Journal.on_train_batch_end

    def die(self: Journal, trainer: Any, learner: Any, *rest: Any, **more: Any) -> None:
        ordinary(self, trainer, learner, *rest, **more)
        if trainer.global_step == steps:
            raise KilledError

    monkeypatch.setattr(Journal, "on_train_batch_end", die)


def spoil(monkeypatch: pytest.MonkeyPatch, at: int, factor: float = float("nan")) -> None:
    """Multiply the loss of one step, from 1."""
    from spikestill.train import learner

    step = 0

    def spoiled(self: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        nonlocal step
        logits = self.network(images)
        step += 1
        return torch.nn.functional.cross_entropy(logits, labels) * (factor if step == at else 1.0), logits, []

    monkeypatch.setattr(learner.AnnLearner, "losses", spoiled)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / f"{run.kind}.safetensors")


def test_a_run_holds_everything(ann_recipe: AnnMaker, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(ann_recipe(logger="none"))
    names = {path.name for path in run.folder.iterdir()}
    wanted = {"recipe.yaml", "environment.json", "metrics.csv", "checkpoints", "analysis.json", "result.json"}
    assert names == wanted | {"model.safetensors", "model.json"}
    result = run.read_json("result.json")
    assert result["test_set_read"].startswith("once, after training")
    assert result["selected_by"] == "validation accuracy"
    assert result["images"] == {"train": 160, "validation": 144, "test": 360}
    rows = run.read_table("metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    best = max(reversed(rows), key=lambda row: float(row["validation_accuracy"]))
    assert result["best_epoch"] == int(best["epoch"])
    assert result["validation_accuracy"] == float(best["validation_accuracy"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "epoch 2/2" in lines[1]
    assert "validation" in lines[1]
    assert "left" in lines[1]


def test_the_kept_weights_give_the_written_figures(ann_recipe: AnnMaker) -> None:
    run = train(ann_recipe(precision="bf16", channels_last=True))
    result = run.read_json("result.json")
    assert evaluate(run.folder)["accuracy"] == result["test_accuracy"]
    assert evaluate(run.folder, split="validation")["accuracy"] == pytest.approx(result["validation_accuracy"])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(ann_recipe: AnnMaker, tmp_path: Path) -> None:
    one, two = train(ann_recipe(out=str(tmp_path / "1"))), train(ann_recipe(out=str(tmp_path / "2")))
    other = train(ann_recipe(out=str(tmp_path / "3"), seed=1))
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())
    assert not all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 5, 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.5, "clip_gradient": 0.5, "model_options": {"dropout": 0.2}},
        {"precision": "bf16", "channels_last": True, "optimiser": {"name": "adamw", "lr": 0.01}},
        {"precision": "bf16", "channels_last": True},
    ],
)
def test_a_resume_gives_the_same_bits(
    ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, options: dict[str, Any]
) -> None:
    whole = train(ann_recipe(out=str(tmp_path / "whole"), **options))
    recipe = ann_recipe(out=str(tmp_path / "broken"), checkpoint_minutes=1e-9, **options)
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            train(recipe)
    assert not Run(tmp_path / "broken").finished
    torch.randn(3)  # the new process's random state is another
    resumed = train(recipe, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    for expected, got in zip(whole.read_table("metrics.csv"), resumed.read_table("metrics.csv"), strict=True):
        assert expected | {"seconds": ""} == got | {"seconds": ""}


def test_a_resume_goes_on_with_an_encoders_own_generator(
    student_recipe: StudentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded = {"encoder": {"name": "poisson", "options": {"seed": 3}}}
    whole = train(student_recipe(out=str(tmp_path / "whole"), **seeded))
    recipe = student_recipe(out=str(tmp_path / "broken"), checkpoint_minutes=1e-9, **seeded)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(KilledError):
            train(recipe)
    resumed = train(recipe, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_a_resume_from_the_end_of_an_epoch_gives_the_same_bits(
    ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(ann_recipe(out=str(tmp_path / "whole"), epochs=3))
    recipe = ann_recipe(out=str(tmp_path / "broken"), epochs=3)
    for steps in (6, 12):
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            with pytest.raises(KilledError):
                train(recipe, resume=True)
    resumed = train(recipe, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_the_peak_of_memory_is_the_largest_of_all_parts(ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ann_recipe(checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "peak_memory", lambda device: 1234.56)
        kill_after(patch, 3)
        with pytest.raises(KilledError):
            train(recipe)
    monkeypatch.setattr(callbacks, "peak_memory", lambda device: 1000.0)
    assert train(recipe, resume=True).read_json("result.json")["training_peak_memory_mib"] == 1234.6
    monkeypatch.undo()
    assert train(recipe, overwrite=True).read_json("result.json")["training_peak_memory_mib"] > 10


def test_a_resume_of_a_finished_run_returns_it(ann_recipe: AnnMaker) -> None:
    run = train(ann_recipe())
    before = (run.folder / "result.json").stat().st_mtime_ns
    assert train(ann_recipe(), resume=True) == run
    assert (run.folder / "result.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds a finished run"):
        train(ann_recipe())


def test_a_resume_with_another_recipe_is_refused(ann_recipe: AnnMaker) -> None:
    train(ann_recipe())
    with pytest.raises(InputError, match="other values of epochs, seed"):
        train(ann_recipe(epochs=3, seed=1), resume=True)


def test_overwrite_starts_anew(ann_recipe: AnnMaker) -> None:
    train(ann_recipe())
    run = train(ann_recipe(epochs=1), overwrite=True)
    assert len(run.read_table("metrics.csv")) == 1


def test_checkpoints_hold_nothing_to_execute(ann_recipe: AnnMaker) -> None:
    run = train(ann_recipe(ema=0.9))
    checkpoint = torch.load(last_checkpoint_file(run), weights_only=True)
    assert checkpoint["global_step"] == 10


def test_the_average_is_what_is_kept(ann_recipe: AnnMaker) -> None:
    run = train(ann_recipe(ema=0.9, epochs=1))
    checkpoint = torch.load(last_checkpoint_file(run), weights_only=True)["state_dict"]
    name = next(name for name in weights(run) if name.endswith("weight"))
    assert torch.equal(weights(run)[name], checkpoint[f"average.module.{name}"])
    assert not torch.equal(weights(run)[name], checkpoint[f"network.{name}"])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, at=8)
    recipe = ann_recipe()
    with pytest.raises(InputError, match=r"the loss is not finite at step 7 \(epoch 2\): .*checkpoint is kept"):
        train(recipe)
    run = Run(Path(recipe.folder))
    assert not run.finished
    checkpoint = torch.load(last_checkpoint_file(run), weights_only=True)
    assert checkpoint["global_step"] == 5
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_the_layer_that_went_wrong_is_named(ann_recipe: AnnMaker) -> None:
    recipe = ann_recipe(optimiser={"lr": 1e38})
    with pytest.raises(InputError, match=r"at step \d+ \(epoch 1\): the output of \S+ is the first that is not finite"):
        train(recipe)


def test_a_step_that_is_not_finite_can_be_skipped_and_is_counted(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, at=8)
        run = train(ann_recipe(on_nan="skip"))
    assert run.read_json("result.json")["steps_skipped"] == 1
    assert all(value.isfinite().all() for value in weights(run).values())
    assert [float(row["train_loss"]) > 0 for row in run.read_table("metrics.csv")] == [True, True]


def test_a_skipped_step_leaves_the_weights_as_they_are(
    ann_recipe: AnnMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"optimiser": {"momentum": 0.0, "weight_decay": 0.0}, "schedule": {"name": "constant"}, "epochs": 1}
    with monkeypatch.context() as patch:
        spoil(patch, at=5)
        skipped = train(ann_recipe(out=str(tmp_path / "skipped"), on_nan="skip", **plain))
    with monkeypatch.context() as patch:
        spoil(patch, at=5, factor=0.0)
        none = train(ann_recipe(out=str(tmp_path / "zero"), **plain))
    trained = [name for name in weights(none) if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(weights(skipped)[name], weights(none)[name]) for name in trained)
    (count,) = {int(value) for name, value in weights(skipped).items() if "num_batches" in name}
    assert count == 4
    assert skipped.read_json("result.json")["steps_skipped"] == 1


def test_an_epoch_that_was_skipped_whole_is_refused(ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    from spikestill.train import learner

    def spoiled(self: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        logits = self.network(images)
        return logits.sum() * float("nan"), logits, []

    monkeypatch.setattr(learner.AnnLearner, "losses", spoiled)
    with pytest.raises(InputError, match="no step of this epoch was finite, so all were skipped"):
        train(ann_recipe(on_nan="skip"))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_the_end_of_the_memory_says_what_takes_less(
    student_recipe: StudentMaker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from spikestill.train import learner

    def full(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(learner.DistillLearner, "losses", full)
    ways = "lower --batch-size (now 32), raise --accumulate (now 1), lower --timesteps (now 2), "
    more = "take --gradient rate, take --recompute true, take --precision bf16; the last good checkpoint is kept"
    with pytest.raises(InputError, match=re.escape(f"out of memory: {ways}{more}")):
        train(student_recipe(gradient="bptt"))


def test_other_errors_stay_as_they_are(ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    from spikestill.train import learner

    def broken(*arguments: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(learner.AnnLearner, "losses", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        train(ann_recipe())


def test_a_run_that_another_process_trains_is_refused(ann_recipe: AnnMaker) -> None:
    recipe = ann_recipe()
    with Run(Path(recipe.folder)).held(wait=False), pytest.raises(HeldError, match="is being trained by another"):
        train(recipe)
    assert not Path(recipe.folder).exists()
    assert train(recipe).finished


def test_a_full_disk_stops_with_one_line(ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*recipe\.yaml: No space left on device"):
        train(ann_recipe())


def test_a_disk_that_fills_up_in_mid_training_stops_with_one_line(
    ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, written = Path.replace, []

    def full(self: Path, target: Path) -> Path:
        if target.name == "last.ckpt" and written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.extend([target] * (target.name == "last.ckpt"))
        return ordinary(self, target)

    monkeypatch.setattr(Path, "replace", full)
    recipe = ann_recipe()
    with pytest.raises(InputError, match=r"cannot write .*last\.ckpt: No space left on device"):
        train(recipe)
    assert torch.load(last_checkpoint_file(Run(Path(recipe.folder))), weights_only=True)["global_step"] == 5


def test_wrong_data_leave_no_run_folder(ann_recipe: AnnMaker, tmp_path: Path) -> None:
    recipe = ann_recipe(data=f"folder:{tmp_path / 'absent'}")
    with pytest.raises(InputError):
        train(recipe)
    assert not Path(recipe.folder).exists()


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InputError, match="there is no device 'cuda:99' here"):
        resolve_device("cuda:99")
    with pytest.raises(InputError, match="unknown device 'cpu:x'"):
        resolve_device("cpu:x")


def test_ctrl_c_reaches_the_caller(ann_recipe: AnnMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    def interrupt(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "on_train_batch_end", interrupt)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(ann_recipe())
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_description_of_the_run_is_enough(ann_recipe: AnnMaker) -> None:
    run = train(ann_recipe(epochs=1))
    description = NetworkDescription.of_run(run)
    assert description.model == "vgg5"
    assert description.class_names == tuple("0123456789")
    assert not description.load(run).training
