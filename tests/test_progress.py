from __future__ import annotations

from collections.abc import Iterator

import pytest

from spikestill import progress
from spikestill.progress import Progress, duration, tracked


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves it."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


def taking(seconds: float, count: int, now: list[float]) -> Iterator[int]:
    for item in range(count):
        now[0] += seconds
        yield item


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00 min"), (61.4, "1:01 min"), (3599.4, "59:59 min"), (3600, "1:00 h"), (100 * 3600, "100:00 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_a_line_after_three_seconds_one_a_minute_and_a_last(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("indexing train", 400, "shards")
    for done in range(1, 401):
        now[0] += 0.5
        shown.show(done)
    assert capsys.readouterr().err.splitlines() == [
        "indexing train: 6 of 400 shards, 3:17 min left",
        "indexing train: 127 of 400 shards, 2:16 min left",
        "indexing train: 248 of 400 shards, 1:16 min left",
        "indexing train: 369 of 400 shards, 0:16 min left",
        "indexing train: 400 of 400 shards",
    ]


def test_what_takes_less_than_three_seconds_is_silent(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(taking(0.29, 10, now), "measuring", 10)) == list(range(10))
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line_that_is_written_over(
    now: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    for _ in tracked(taking(2.0, 3, now), "measuring", 3):
        pass
    assert capsys.readouterr().err == (
        "\rmeasuring: 2 of 3 batches, 0:02 min left\x1b[K\rmeasuring: 3 of 3 batches\x1b[K\n"
    )
    for item in tracked(taking(4.0, 3, now), "measuring", 3):
        if item == 1:
            break
    assert capsys.readouterr().err == "\rmeasuring: 1 of 3 batches, 0:08 min left\x1b[K\n"


def test_the_length_is_the_total_and_without_one_the_time_so_far_is_told(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in tracked([1, 2], "reading", unit="files"):
        now[0] += 5
    for _ in tracked(taking(5.0, 2, now), "reading", unit="files"):
        pass
    assert capsys.readouterr().err.splitlines() == [
        "reading: 1 of 2 files, 0:05 min left",
        "reading: 2 of 2 files",
        "reading: 1 files, 0:05 min so far",
    ]


def test_a_loop_within_another_is_silent(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in tracked([1, 2], "layers", unit="layers"):
        assert list(tracked(taking(4.0, 2, now), "within", 2)) == [0, 1]
    for _ in tracked(taking(4.0, 1, now), "after", 1):
        pass
    assert capsys.readouterr().err.splitlines() == [
        "layers: 1 of 2 layers, 0:08 min left",
        "layers: 2 of 2 layers",
        "after: 1 of 1 batches",
    ]


@pytest.mark.parametrize(
    ("environment", "is_said"),
    [
        ({}, True),
        ({"RANK": "1"}, True),
        ({"TORCHELASTIC_RUN_ID": "a", "RANK": "0"}, True),
        ({"TORCHELASTIC_RUN_ID": "a", "RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_of_several_processes_the_first_speaks(
    environment: dict[str, str],
    is_said: bool,
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for _ in tracked(taking(4.0, 1, now), "measuring", 1):
        pass
    assert (capsys.readouterr().err != "") == is_said
