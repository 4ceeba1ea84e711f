from __future__ import annotations

import pytest

from spikestill.cli.tables import print_accuracy


@pytest.mark.parametrize(
    ("last", "shown"),
    [(4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 5, 6]), (7, [1, 2, 4, 7]), (2500, [128, 256, 512, 1024, 2048])],
)
def test_of_many_steps_the_last_and_powers_of_two_are_shown(
    last: int, shown: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"accuracy_by_timestep": {str(t): t / 5000 for t in range(1, last + 1)}, "spikes_per_neuron": 1.5}
    print_accuracy("title", figures)
    words = capsys.readouterr().out
    for step in {1, 3, last, *shown}:
        assert (f"t = {step} " in words) == (step in shown or step == last)
    assert "1.500" in words
