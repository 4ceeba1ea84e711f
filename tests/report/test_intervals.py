"""Intervals of shares, against published values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikestill.report.intervals import difference_interval, wilson
from spikestill.report.page import rendered
from tests.report.folders import evidence, student


@pytest.mark.parametrize(
    ("positive", "count", "low", "high"),  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(positive: int, count: int, low: float, high: float) -> None:
    assert wilson(positive / count, count) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),  # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_differences_as_published(first: tuple[int, int], second: tuple[int, int], low: float, high: float) -> None:
    shares = ((positive / count, count) for positive, count in (first, second))
    assert difference_interval(*shares) == pytest.approx((low, high), abs=6e-5)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**7))
def test_intervals_hold_what_was_found(first: float, second: float, count: int) -> None:
    low, high = wilson(first, count)
    assert 0 <= low <= first + 1e-12
    assert first - 1e-12 <= high <= 1
    low, high = difference_interval((first, count), (second, count))
    assert low - 1e-12 <= first - second <= high + 1e-12


def test_students_within_chance_are_not_ranked(tmp_path: Path) -> None:
    terms = [{"name": "cross-entropy"}]
    runs = [student(tmp_path / "a", accuracy=0.90), student(tmp_path / "b", accuracy=0.92, objectives=terms)]
    page = rendered(runs).replace("\N{NO-BREAK SPACE}", " ")
    assert "Of the students labels reaches the most, 92.0 %" in page
    assert "On 90 test images that is no difference from block-wise (95 % intervals)" in page
    assert "84.5\N{EN DASH}96.0" in page
    assert "The best student" not in page
    runs[0] = student(tmp_path / "c", accuracy=0.50)
    assert "The best student, labels, reaches 92.0 %" in rendered(runs).replace("\N{NO-BREAK SPACE}", " ")


def test_each_system_is_told_with_its_own_time_steps(tmp_path: Path) -> None:
    by_step = {str(step): 0.5 for step in range(1, 9)}
    fields = {"timesteps": 8, "objectives": [{"name": "cross-entropy"}]}
    long = student(tmp_path / "long", recorded=evidence(timesteps=8), **fields)
    from spikestill.runs import Run

    run = Run(Path(long))
    run.write_json("result.json", run.read_json("result.json") | {"test_accuracy_by_timestep": by_step})
    page = rendered([student(tmp_path / "short", recorded=evidence()), long]).replace("\N{NO-BREAK SPACE}", " ")
    assert "block-wise reaches 92.0 % after 4." in page
    assert "of 4 steps on average" in page
    assert "of 8 steps on average" not in page
