from __future__ import annotations

from typing import Any

import pytest

from spikestill.train.auto.settings import Settings, parse_budget
from spikestill.types import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("0.5h", 1800),
        ("45", 2700),
        (" 1.5M ", 90),
        (2, 120),
        (0.5, 30),
    ],
)
def test_a_budget_is_read_with_its_unit_and_a_number_alone_means_minutes(text: str | float, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "abc", "-5m", "0", "0s", "30 parsecs", "m", "1.2.3s", "5m1h", "2000h", "nan", True]
)
def test_what_is_no_budget_is_refused_with_an_example(text: str | float) -> None:
    with pytest.raises(InputError, match="the budget must be a time such as 90s, 30m, 2h or 1h30m"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"timesteps": 0}, r"timesteps must lie in \[1, 1024\], not 0"),
        ({"tolerance": -1.0}, r"tolerance must lie in \[0, 100\] percentage points, not -1"),
        ({"tolerance": float("nan")}, "tolerance must lie"),
        ({"images": 0}, "images must be at least 1, not 0"),
        ({"epochs": 0, "batch_size": 0}, "epochs must be at least 1, not 0; batch_size must be at least 1"),
        ({"width": 0.0}, "width must be positive"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"mean": (0.5,)}, "mean and std belong together"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "one finite number a channel"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be positive, not 0.0"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        Settings(ann="x", **fields)


def test_settings_differ_in_what_changes_the_outcome_alone() -> None:
    asked = Settings(ann="x", timesteps=4, mean=(0.5,), std=(0.5,), device="cpu")
    assert asked.differences(asked.as_json()) == []
    assert asked.differences(asked.as_json() | {"device": "cuda"}) == []
    assert asked.differences(asked.as_json() | {"timesteps": 2, "mean": [0.4]}) == ["mean", "timesteps"]
