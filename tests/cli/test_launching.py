from __future__ import annotations

import time
from typing import Any

import pytest
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from spikestill.cli import main
from spikestill.train.processes import SharedError
from spikestill.types import InputError


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two that torchrun started."""
    told = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_devices_start_the_same_command_so_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(torchrun, "run", started.append)
    assert main(["train", "ann", "--model=vgg5", "--devices=3", "--resume"]) == 0
    (options,) = started
    assert (options.nproc_per_node, options.standalone, options.module) == ("3", True, True)
    command = [options.training_script, *options.training_script_args]
    assert command == ["spikestill.cli", "train", "ann", "--model=vgg5", "--devices=3", "--resume"]


def test_wrong_options_start_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torchrun, "run", lambda options: pytest.fail("started"))
    assert main(["train", "ann", "--devices=2", "--epochs=0"]) == 2
    assert "epochs must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(("left", "expected"), [(2, 2), (-9, 1)])
def test_the_status_is_that_of_the_process_that_failed(
    monkeypatch: pytest.MonkeyPatch, left: int, expected: int
) -> None:
    def fail(options: Any) -> None:
        raise ChildFailedError("spikestill", {1: ProcessFailure(1, 4711, left, f"/nowhere/{time.time()}")})

    monkeypatch.setattr(torchrun, "run", fail)
    with pytest.raises(SystemExit) as end:
        main(["train", "ann", "--devices=2"])
    assert end.value.code == expected


def test_only_the_first_process_prints(second: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "neurons"]) == 0
    assert capsys.readouterr() == ("", "")


def test_another_process_complains_of_what_it_alone_met(
    second: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spikestill.cli import list_command

    for error, expected in (
        (InputError("no such file"), "spikestill: process 1: no such file\n"),
        (SharedError("x"), ""),
    ):

        def complain(words: Any, error: InputError = error) -> None:
            raise error

        monkeypatch.setattr(list_command, "run", complain)
        assert main(["list"]) == 2
        assert capsys.readouterr() == ("", expected)


def test_an_experiment_is_not_shared_in_this_way(second: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "experiments/lasnn-digits.yaml"]) == 2
    assert "start `spikestill compare` several times" in capsys.readouterr().err
