from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikestill.cli import launching, main
from spikestill.train.processes import SharedError
from spikestill.types import InputError


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two that torchrun started."""
    told = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """Put a small program in the place of the workers; what they would have been started with is returned."""

    def replaced(program: str) -> list[list[str]]:
        started: list[list[str]] = []
        ordinary = subprocess.Popen

        def start(words: list[str], **more: Any) -> Any:
            started.append(words)
            return ordinary([sys.executable, "-c", PROGRAM.format(program)], **more)

        monkeypatch.setattr(subprocess, "Popen", start)
        return started

    return replaced


PROGRAM = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
{}
"""
COMMAND = ["train", "ann", "--model=vgg5", "--devices=2"]


def ending(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(str(end.value.code))


def test_devices_start_the_same_command_so_many_times(workers: Any) -> None:
    started = workers("assert (os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK']) == ('3', str(rank))")
    assert main(["train", "ann", "--model=vgg5", "--devices=3", "--resume"]) == 0
    command = ["-P", "-m", "spikestill.cli", "train", "ann", "--model=vgg5", "--devices=3", "--resume"]
    assert [words[1:] for words in started] == [command] * 3


def test_wrong_options_start_nothing(workers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    started = workers("")
    assert main(["train", "ann", "--devices=2", "--epochs=0"]) == 2
    assert "epochs must be at least 1" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize(
    ("program", "status", "line"),
    [
        ("sys.exit(2)", 2, ""),
        ("sys.exit(143)", 143, ""),
        ("sys.exit(rank)", 1, "process 1 of 2 (pid *) failed with exit status 1; the others were ended"),
        (
            "if rank: os.kill(os.getpid(), signal.SIGKILL)",
            137,
            "process 1 of 2 (pid *) was killed by SIGKILL (the system may have run out of memory); the others",
        ),
        ("if rank: os.kill(os.getpid(), signal.SIGSEGV)", 139, "process 1 of 2 (pid *) was killed by SIGSEGV; the"),
    ],
)
def test_the_status_is_that_of_the_process_that_failed_first_and_it_is_named(
    workers: Any, capsys: pytest.CaptureFixture[str], program: str, status: int, line: str
) -> None:
    workers(program)
    assert ending(COMMAND) == status
    error = capsys.readouterr().err
    assert re.match(f"spikestill: {re.escape(line)}".replace(r"\*", r"\d+"), error) if line else error == ""


def test_those_that_do_not_end_by_themselves_are_killed(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_GRACE", 0.2)
    workers("if rank == 0: time.sleep(600)\nsys.exit(3)")
    began = time.monotonic()
    assert ending(COMMAND) == 3
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_reaches_every_worker_once(
    workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    workers(
        "def stop(number, frame):\n"
        "    open(f'{rank}-{number}', 'x')\n"
        "    time.sleep(0.3)\n"
        "    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, stop)\n"
        "open(f'ready{rank}', 'x')\n"
        "time.sleep(60)"
    )

    def ask() -> None:
        while len(list(tmp_path.glob("ready*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask).start()
    before = signal.getsignal(number)
    assert ending(COMMAND) == 128 + number
    assert signal.getsignal(number) is before
    assert sorted(path.name for path in tmp_path.iterdir() if "-" in path.name) == [f"0-{number}", f"1-{number}"]


@pytest.mark.slow
def test_workers_end_with_their_launcher_and_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('imported from the current folder')")
    small = "--data=digits --model=vgg5 --width=0.25 --epochs=500 --batch-size=32 --device=cpu --logger=none --out=run"
    script = "import sys; sys.path.pop(0); from spikestill.cli import main; sys.exit(main())"
    launcher = subprocess.Popen(
        [sys.executable, "-c", script, "train", "ann", *small.split(), "--devices=2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for((tmp_path / "run" / "checkpoints" / "last.ckpt").exists)
    finally:
        launcher.kill()
    assert launcher.stderr is not None
    with launcher.stderr as stream:
        error = stream.read()  # until the last worker has closed it
    assert launcher.wait() == -signal.SIGKILL
    assert error == "spikestill: stopped; --resume continues from the last checkpoint\n"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_two_devices_stop_at_a_checkpoint(tmp_path: Path, number: int, status: int) -> None:
    small = "--data=digits --model=vgg5 --width=0.25 --epochs=500 --batch-size=32 --device=cpu --logger=none"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "spikestill.cli", "train", "ann", *small.split(), f"--out={tmp_path}", "--devices=2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "checkpoints" / "last.ckpt").exists)
    launcher.send_signal(number)
    _, error = launcher.communicate(timeout=60)
    assert (launcher.returncode, error) == (
        status,
        "spikestill: stopped; --resume continues from the last checkpoint\n",
    )


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


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
