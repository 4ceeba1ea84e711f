from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spikestill.train.auto.result import recommendation
from spikestill.train.auto.table import Row, best_at, pareto_front, rows_from, shortest_within


def row(method: str, timesteps: int, accuracy: float, energy: float, *, trained: bool = False) -> Row:
    return Row(method, timesteps, accuracy, 100 * (0.9 - accuracy), 0.5, energy, 1.0, 100, trained)


TABLE = [row("a", 1, 0.5, 10), row("a", 4, 0.8, 40), row("b", 4, 0.8, 30), row("b", 8, 0.895, 60)]


def test_the_best_at_a_step_is_the_most_accurate_and_then_the_cheapest() -> None:
    best = best_at(TABLE, 4)
    assert best is not None
    assert best.method == "b"
    assert best_at(TABLE, 2) is None


def test_the_shortest_within_the_tolerance() -> None:
    found = shortest_within(TABLE, 10.1)
    assert found is not None
    assert (found.method, found.timesteps) == ("b", 4)
    assert shortest_within(TABLE, 0.1) is None


def test_a_row_is_read_back() -> None:
    assert rows_from([one.as_json() for one in TABLE]) == TABLE


rows = st.lists(st.builds(row, st.just("m"), st.integers(1, 4), st.sampled_from([0.1, 0.5, 0.9]), st.integers(1, 5)))


@given(rows)
def test_the_front_is_what_no_other_row_beats(table: list[Row]) -> None:
    front = pareto_front(table)
    points = {(one.accuracy, one.energy_nanojoules) for one in table}
    unbeaten = {
        point
        for point in points
        if not any(other != point and other[0] >= point[0] and other[1] <= point[1] for other in points)
    }
    assert {(one.accuracy, one.energy_nanojoules) for one in front} == unbeaten
    assert len(front) == len(unbeaten)


def test_a_recommendation_within_the_tolerance_names_a_shorter_one() -> None:
    table = [row("s", 2, 0.895, 10, trained=True), row("s", 4, 0.898, 20, trained=True)]
    said = recommendation(
        table[1], table, test={"ann": 0.9, "student": 0.89}, tolerance=1.0, energy_share=0.25, run="runs/x"
    )
    assert said == (
        "take runs/x (s): 89.0% of the test images at T = 4, 1.0 points below the ANN's 90.0%, with 25% of the ANN's "
        "energy; on validation images T = 2 is within 1 points already."
    )


def test_a_recommendation_that_misses_the_tolerance_says_what_would_reach_it() -> None:
    said = recommendation(
        TABLE[1], TABLE, test={"ann": 0.9, "student": 0.91}, tolerance=1.0, energy_share=0.25, run="runs/x"
    )
    assert "at T = 4, the ANN reaches 90.0%" in said
    assert "the tolerance of 1 points is not reached" in said
    assert said.endswith("without training, b is within it at T = 8.")
