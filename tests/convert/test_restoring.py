"""A converted network is rebuilt from plain values and its tensors, in another process as it were."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import spikestill as ss
from spikestill.convert import restore
from tests.convert.networks import ALL, images, pair
from tests.convert.test_convert import METHODS

OTHERS = {
    "balance-locally": {"passes": 3},
    "best": {},
    "calibrate": {"correct": "light", "timesteps": 8, "grid": 5},
    "normalise": {"percentile": 99.0},
    "threshold-balancing": {"timesteps": 20, "percentile": 99.7, "factor": 0.7},
    "shift": {},
}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in [*ALL, "max pooling"] for method in METHODS),
        ("residual", "best"),
        ("dense", "best"),
    ],
)
def test_the_rebuilt_network_is_the_converted_one(name: str, method: str) -> None:
    ann, snn = pair(name)
    fresh = copy.deepcopy(snn)
    inputs = images()
    ss.convert(snn, ann, [inputs], method, **OTHERS[method])
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.uniform_()
    restore(fresh, json.loads(json.dumps(snn.body.meta["converted"])))
    assert [node.name for node in fresh.body.graph.nodes] == [node.name for node in snn.body.graph.nodes]
    fresh.load_state_dict(snn.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.unroll(inputs, 12), snn.unroll(inputs, 12))
    with pytest.raises(ss.InputError, match=rf"is converted already \(by {method}\)"):
        ss.convert(fresh, ann, [inputs])


def test_a_description_of_another_network_is_refused_in_one_line() -> None:
    ann, snn = pair("identity shortcut")
    ss.convert(snn, ann, [images()], "normalise")
    other = pair("plain")[1]
    body = other.body
    with pytest.raises(ss.InputError, match="the description of the conversion does not fit the network") as caught:
        restore(other, snn.body.meta["converted"])
    assert "\n" not in str(caught.value)
    assert other.body is body


def test_a_description_can_name_no_other_function() -> None:
    ann, snn = pair("identity shortcut")
    fresh = copy.deepcopy(snn)
    ss.convert(snn, ann, [images()], "normalise")
    found = copy.deepcopy(snn.body.meta["converted"])
    next(node for node in found["changes"]["nodes"] if node["op"] == "call_function")["target"] = "os.system"
    with pytest.raises(ss.InputError, match="does not fit the network: 'os.system'"):
        restore(fresh, found)
