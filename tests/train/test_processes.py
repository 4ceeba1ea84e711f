"""Two processes on the CPU against one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn

from spikestill import models
from spikestill.graph import to_spiking
from spikestill.nn import LIF, Poisson
from spikestill.nn.batch_norm import synchronise
from spikestill.recipes import AnnRecipe, DistillRecipe, load
from spikestill.runs import Run
from spikestill.train import evaluate, loop, measuring, train
from spikestill.train.callbacks import Journal
from spikestill.train.learner import Learner
from spikestill.train.processes import Processes, SharedError, is_shared, together, was_launched
from spikestill.types import InputError, Interrupted
from tests.processes import run_together, start

KINDS = ("ann", "rate", "rate, recomputed", "bptt", "bptt, recomputed")
IMAGES = 13  # an odd number: shards differ in size
SMALL: dict[str, Any] = {
    "width": 0.25,
    "limit_train": 160,
    "epochs": 2,
    "batch_size": 32,
    "device": "cpu",
    "optimiser": {"lr": 0.02},
    "model_options": {"dropout": 0.1},
}
ANYTIME: dict[str, Any] = {
    "train_timesteps": "anytime",
    "timesteps": 4,
    "model_options": {},
    "objectives": [{"name": "cross-entropy"}, {"name": "branches"}],
}


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    ann = models.create("resnet20", num_classes=5, width=0.5)
    if kind == "ann":
        return ann.train()
    mode = {"gradient": kind.split(",")[0], "recompute": "recomputed" in kind}
    neuron = LIF(leak=0.5, threshold=0.5, learn=("leak", "threshold"))
    return to_spiking(ann, neuron=neuron, timesteps=5, input_shape=(3, 8, 8), **mode).train()  # type: ignore[arg-type]


def gradients(kind: str, processes: Processes) -> dict[str, Tensor]:
    """Of the mean over the whole batch, and the running statistics after it."""
    trained = network(kind)
    if processes.count > 1:
        synchronise(trained)
    images = torch.randn(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(IMAGES) % 5
    first, last = (IMAGES * (processes.rank + more) // processes.count for more in (0, 1))
    loss = nn.functional.cross_entropy(trained(images[first:last]), labels[first:last], reduction="sum") / IMAGES
    loss.backward()
    found = {name: processes.reduced(_gradient(parameter)) for name, parameter in trained.named_parameters()}
    return found | {name: buffer.double() for name, buffer in trained.named_buffers()}


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def student(folder: Path, name: str, **fields: Any) -> DistillRecipe:
    base = {
        "method": "test",
        "student": "vgg5",
        "timesteps": 2,
        "neuron": {"threshold": 0.3},
        "out": str(folder / name),
    }
    return load(DistillRecipe, SMALL | base | fields)


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_after(recipe: Any, steps: int) -> None:
    ordinary = Journal.on_train_batch_end

    def die(self: Journal, trainer: Any, learner: Any, *rest: Any, **more: Any) -> None:
        ordinary(self, trainer, learner, *rest, **more)
        if trainer.global_step == steps:
            raise KilledError

    Journal.on_train_batch_end = die  # type: ignore[method-assign]
    try:
        with pytest.raises(KilledError):
            train(recipe)
    finally:
        Journal.on_train_batch_end = ordinary  # type: ignore[method-assign]


def in_two(folder: Path) -> None:
    """Everything that two processes are asked for, in one go: starting them takes longest."""
    assert was_launched()
    processes = together()
    found = {kind: gradients(kind, processes) for kind in KINDS}
    assert processes.gathered(processes.rank) == [0, 1]
    assert processes.decided(processes.is_first, torch.device("cpu"))
    said = ""
    try:
        with processes.agreed():
            if not processes.is_first:
                raise InputError("a file is missing here")
    except SharedError as error:
        said = str(error)
    encoder = Poisson(seed=7)
    processes.draw_apart(encoder, torch.device("cpu"))
    draws = processes.gathered(encoder(torch.full((4, 4), 0.5), 3))
    if processes.is_first:
        torch.save(found, folder / "gradients.pt")
        (folder / "said.json").write_text(json.dumps({"said": said, "alike": bool(torch.equal(*draws))}))
    train(student(folder, "plain-two", model_options={}))
    evaluated = evaluate(folder / "plain-two", timesteps=(1, 2))
    train(student(folder, "anytime-two", **ANYTIME))
    (folder / f"evaluated-{processes.rank}.json").write_text(json.dumps(evaluated))
    drawn: dict[str, Any] = {"checkpoint_minutes": 1e-9, "encoder": {"name": "poisson", "options": {"seed": 3}}}
    train(student(folder, "whole", **drawn))
    killed_after(student(folder, "broken", **drawn), steps=7)
    assert processes.reduced(torch.ones(1)).item() == 2  # the other was killed at the same place
    train(student(folder, "broken", **drawn), resume=True)
    options: dict[str, Any] = {"model": "vgg5", "accumulate": 2, "ema": 0.5, "clip_gradient": 0.5, "model_options": {}}
    train(load(AnnRecipe, SMALL | options | {"out": str(folder / "ann-two")}))
    with few_images():
        train(student(folder, "few-two", validation=1, **FEW))
        (folder / f"few-{processes.rank}.json").write_text(json.dumps(evaluate(folder / "few-two")))
    stopped = student(folder, "stopped", epochs=50)
    if not processes.is_first:  # a signal that reaches one of them alone
        Journal.on_train_epoch_end = stops_itself(Journal.on_train_epoch_end)  # type: ignore[method-assign]
    with pytest.raises(Interrupted) as caught:
        train(stopped)
    assert caught.value.status == 143
    assert processes.gathered(caught.value.status) == [143, 143]


FEW: dict[str, Any] = {"model_options": {}, "epochs": 1, "augmentation": {"crop": 0, "flip": False}}


@contextlib.contextmanager
def few_images() -> Iterator[None]:
    """Five test images in batches of four: the last batch is for one process alone. Validation has a single image."""
    from spikestill.train import loaders

    loaded, size = loaders.load_data, loaders._EVALUATION_BATCH

    def cut(*arguments: Any) -> Any:
        data = loaded(*arguments)
        return dataclasses.replace(data, test=data.test.subset(torch.arange(5)))

    for module in (loop, measuring):
        module.load_data = cut  # type: ignore[attr-defined]
    loaders._evaluation_batch = lambda recipe, data: 4  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in (loop, measuring):
            module.load_data = loaded  # type: ignore[attr-defined]
        loaders._EVALUATION_BATCH = size


def stops_itself(ordinary: Any) -> Any:
    def send(self: Journal, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ordinary(self, *arguments)

    return send


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_together(2, in_two, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_one_process_on_the_whole_batch(two: Path, kind: str) -> None:
    got = torch.load(two / "gradients.pt", weights_only=True)[kind]
    expected = gradients(kind, Processes())
    assert list(got) == list(expected)
    difference = torch.stack([(got[name] - value).double().norm() for name, value in expected.items()]).norm()
    assert difference / torch.stack([value.double().norm() for value in expected.values()]).norm() < 1e-5
    for name, value in expected.items():
        assert (got[name] - value).norm() < 1e-4 * value.norm() + 1e-7, name


@pytest.mark.slow
def test_training_and_evaluation_give_the_figures_of_one_process(two: Path) -> None:
    alone = train(student(two, "plain-one", model_options={}))
    assert_same_training(alone, Run(two / "plain-two"))
    figures = [json.loads((two / f"evaluated-{rank}.json").read_text()) for rank in range(2)]
    assert figures[0] == figures[1]
    expected = json.loads(json.dumps(evaluate(two / "plain-two", timesteps=(1, 2))))
    assert expected["images"] == 360
    assert figures[0] == expected
    results = [Run(two / name).read_json("result.json") for name in ("plain-two", "plain-one")]
    assert [result.get("processes") for result in results] == [2, None]
    # The draws of a measurement by one process can be made again, those of several cannot.
    assert [result.get("test_seed") for result in results] == [None, 0]


@pytest.mark.slow
def test_anytime_training_with_branches_is_that_of_one_process(two: Path) -> None:
    assert_same_training(train(student(two, "anytime-one", **ANYTIME)), Run(two / "anytime-two"))


@pytest.mark.slow
def test_a_resume_of_two_processes_gives_the_same_bits(two: Path) -> None:
    whole, broken = (load_file(two / name / "student.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
    for expected, got in zip(*(Run(two / name).read_table("metrics.csv") for name in ("whole", "broken")), strict=True):
        assert expected | {"seconds": ""} == got | {"seconds": ""}


@pytest.mark.slow
def test_a_process_whose_share_is_empty_measures_nothing_and_waits_for_nobody(two: Path) -> None:
    with few_images():
        alone = train(student(two, "few-one", validation=1, **FEW))
        expected = json.loads(json.dumps(evaluate(two / "few-one")))
    assert_same_training(alone, Run(two / "few-two"))
    found = [json.loads((two / f"few-{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    assert found[0]["images"] == 5
    assert found[0]["accuracy_by_timestep"] == expected["accuracy_by_timestep"]
    assert found[0]["spikes_per_neuron"] == pytest.approx(expected["spikes_per_neuron"], rel=0.1)


@pytest.mark.slow
def test_accumulation_average_and_clipping_are_those_of_one_process(two: Path) -> None:
    options: dict[str, Any] = {"model": "vgg5", "accumulate": 2, "ema": 0.5, "clip_gradient": 0.5, "model_options": {}}
    alone = train(load(AnnRecipe, SMALL | options | {"out": str(two / "ann-one")}))
    assert_same_training(alone, Run(two / "ann-two"))


@pytest.mark.slow
def test_one_process_speaks_for_all_and_draws_for_itself(two: Path) -> None:
    assert json.loads((two / "said.json").read_text()) == {"said": "a file is missing here", "alike": False}


def assert_same_training(alone: Run, shared: Run) -> None:
    for expected, got in zip(alone.read_table("metrics.csv"), shared.read_table("metrics.csv"), strict=True):
        assert list(expected) == list(got)
        for name in set(expected) - {"seconds"}:
            assert float(got[name]) == pytest.approx(float(expected[name]), rel=1e-4), name
    results = [run.read_json("result.json") for run in (alone, shared)]
    assert results[0]["best_epoch"] == results[1]["best_epoch"]
    assert results[0]["test_accuracy"] == pytest.approx(results[1]["test_accuracy"], abs=0.01)


def fails_in_one(folder: Path) -> None:
    ordinary = Learner.training_step

    def step(self: Learner, *arguments: Any) -> Tensor:
        if self.global_step == 2 and distributed.get_rank() == 1:
            raise RuntimeError("a fault of one")
        return ordinary(self, *arguments)

    Learner.training_step = step  # type: ignore[method-assign]
    train(student(folder, "failed"))


@pytest.mark.slow
def test_a_process_that_fails_does_not_leave_the_other_waiting(tmp_path: Path) -> None:
    context = start(2, fails_in_one, tmp_path)
    until = time.monotonic() + 120
    try:
        for process in context.processes:
            process.join(max(until - time.monotonic(), 0))
        assert [process.exitcode for process in context.processes] == [1, 1]
    finally:
        for process in context.processes:
            process.kill()
    assert not Run(tmp_path / "failed").finished


def test_alone_nothing_is_exchanged() -> None:
    processes = Processes()
    values = torch.ones(2)
    assert processes.reduced(values) is values
    assert processes.gathered(3) == [3]
    assert processes.decided(True, torch.device("cpu"))
    assert (processes.shard, processes.machines, processes.is_first) == ((0, 1), 1, True)
    encoder = Poisson(seed=7)
    processes.draw_apart(encoder, torch.device("cpu"))
    assert encoder.random_state is None
    assert processes.own_seed(5) == 5
    assert len({Processes(rank=rank, count=3).own_seed(5) for rank in range(3)}) == 3
    with pytest.raises(InputError, match="as it was") as caught, processes.agreed():
        raise InputError("as it was")
    assert not is_shared(caught.value)


def test_what_came_of_a_shared_error_is_shared() -> None:
    error = InputError("stage teacher: here and there")
    assert not is_shared(error)
    error.__cause__ = SharedError("here and there")
    assert is_shared(error)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"SLURM_NTASKS_PER_NODE": "8"}, 8),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({}, 16),
    ],
)
def test_how_many_are_on_a_machine(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], expected: int) -> None:
    from spikestill.train.processes import _on_this_machine

    for name in ("SLURM_NTASKS_PER_NODE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert _on_this_machine(16) == expected


def test_slurm_says_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikestill.train.processes import own_rank

    assert (was_launched(), own_rank()) == (False, 0)
    told = {"SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_JOB_NAME": "train"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"SLURM: .*Use `--ntasks-per-node=16` instead"):
        was_launched()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    assert (was_launched(), own_rank()) == (True, 9)
