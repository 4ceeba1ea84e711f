"""The benchmark of conversion runs, on a network that is hardly trained."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conversion import NETWORKS, Case, Row, best_of, our_accuracy, their_accuracy, their_recipes


@pytest.mark.parametrize("name", NETWORKS)
def test_both_converters_run_on_every_network(name: str) -> None:
    recipes = pytest.importorskip("spikingjelly.activation_based.ann2snn") and their_recipes
    torch.manual_seed(0)
    calibration = list(torch.rand(8, 1, 8, 8).split(4))
    case = Case(name, NETWORKS[name]().eval(), calibration, torch.rand(5, 1, 8, 8), torch.randint(10, (5,)))
    ours, _ = our_accuracy(case, (1, 3), method="shift")
    theirs, _ = their_accuracy(case, (1, 3), recipes(calibration)["SpikingJelly, 99.9 % by channel, half"])
    assert set(ours) == set(theirs) == {1, 3}
    assert all(0 <= value <= 100 for value in (*ours.values(), *theirs.values()))


def test_the_best_of_several_is_taken_cell_by_cell() -> None:
    rows = [Row("x", "SpikingJelly, a", {1: 10.0, 2: 30.0}, 0.0), Row("x", "SpikingJelly, b", {1: 20.0, 2: 25.0}, 0.0)]
    assert best_of(rows, "SpikingJelly") == {1: 20.0, 2: 30.0}
