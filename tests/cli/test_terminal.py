"""Standard output that is closed, broken, full or narrow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikestill.cli import main
from spikestill.cli.terminal import Output, is_broken_pipe
from spikestill.runs import Run

SMALL = "--data=digits --model=vgg5 --width=0.25 --limit-train=96 --batch-size=32 --epochs=3 --device=cpu --logger=none"


def in_shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which ``$train`` trains a small network into ``run``."""
    told = {"train": f"{sys.executable} -m spikestill.cli train ann {SMALL} --out run"} | more
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=folder,
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("line", ["$train | head -n 1", "$train >&-", "$train >&- 2>&-", "$train <&- >&- 2>&-"])
def test_a_training_goes_on_when_nobody_listens(tmp_path: Path, line: str) -> None:
    ended = in_shell(line, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Run(tmp_path / "run").finished


@pytest.mark.slow
def test_a_full_disk_under_standard_output_is_said_at_the_end(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    ended = in_shell("$train > /dev/full", tmp_path)
    assert Run(tmp_path / "run").finished
    assert ended.returncode == 2
    assert ended.stderr == "spikestill: cannot write to standard output: No space left on device\n"


@pytest.mark.slow
def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    ended = in_shell(f"{sys.executable} -m spikestill.cli list Grüße", tmp_path, PYTHONIOENCODING="ascii")
    assert ended.returncode == 2
    assert "Gr\\xfc\\xdfe" in ended.stderr


def test_a_name_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ann", "--out", os.fsdecode(b"runs/\xff")]) == 2
    assert capsys.readouterr().err == "spikestill: 'runs/\\udcff' is not valid UTF-8: rename it\n"


def test_a_pipe_that_breaks_is_told_from_a_full_disk(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    broken = Output(writer)
    assert broken.write(b"lost") == broken.write(b"lost too ") - 5 == 4
    assert is_broken_pipe(broken)
    os.close(writer)
    with (tmp_path / "file").open("wb") as file:
        output = Output(file.fileno())
        assert output.write(b"kept") == 4
        assert output.error is None
    assert (tmp_path / "file").read_bytes() == b"kept"
