from __future__ import annotations

import pytest

from spikestill.data import progress
from spikestill.data.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00 min"), (61.4, "1:01 min"), (3599.4, "59:59 min"), (3600, "1:00 h"), (100 * 3600, "100:00 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_a_line_a_minute_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress("indexing train", 400, "shards")
    for done in range(1, 401):
        now[0] += 0.5
        shown.show(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "indexing train: 121 of 400 shards, 2:20 min left",
        "indexing train: 242 of 400 shards, 1:19 min left",
        "indexing train: 363 of 400 shards, 0:18 min left",
        "indexing train: 400 of 400 shards",
    ]
