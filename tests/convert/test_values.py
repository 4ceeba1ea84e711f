from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestill.convert.values import HighestShare, percentile_of, up_to
from spikestill.graph.trace import calls
from tests.convert.networks import images, pair


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60),
    st.floats(0.01, 100),
    st.integers(1, 60),
)
def test_percentiles_are_those_of_numpy_whatever_the_parts(numbers: list[float], percentile: float, part: int) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    wanted = pytest.approx(np.percentile(numbers, percentile), rel=1e-9, abs=1e-9)
    highest = HighestShare(len(numbers), percentile)
    for some in values.split(part):
        highest.add(some)
    assert highest.percentile() == wanted
    assert percentile_of(values, percentile) == wanted


def test_only_the_highest_share_is_held() -> None:
    highest = HighestShare(100_000, 99.0)
    for some in torch.rand(100, 1000):
        highest.add(some)
    assert highest._kept is not None
    assert len(highest._kept) <= 1002


def test_the_part_of_a_graph_up_to_a_node_has_what_it_needs_and_nothing_else() -> None:
    _, snn = pair("residual")
    node = next(node for node in snn.body.graph.nodes if node.target == "3.shortcut")
    head = up_to(snn.body, node)
    assert [str(item.target) for item in calls(head.graph)] == ["0", "1", "2", "3.shortcut"]
    assert head.get_submodule("0") is snn.body.get_submodule("0")
    assert next(iter(head.graph.nodes)).op == "placeholder"
    assert images().shape == (8, 3, 8, 8)
