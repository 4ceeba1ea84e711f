from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import spikestill as ss
from spikestill.nn import LIF
from tests.convert.networks import ALL, PUBLISHED, images, pair
from tests.convert.test_convert import activations


class Clipped(fx.Interpreter):
    """A spiking graph with ``clip(x, 0, threshold) / threshold`` for every neuron: its limit for long times."""

    def call_module(self, target: object, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> Tensor:
        module = self.fetch_attr(str(target))
        if isinstance(module, LIF):
            return (args[0] / module.threshold).clamp(0, 1)
        return module(*args, **kwargs)


@pytest.mark.parametrize("name", [*ALL, "max pooling"])
@pytest.mark.parametrize("options", [{"percentile": 100.0}, {"based_on": "model"}], ids=["data", "model"])
def test_with_clipped_activations_the_function_is_the_anns(name: str, options: dict[str, object]) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs[:3], inputs[3:]], "normalise", **options)
    with torch.no_grad():
        torch.testing.assert_close(Clipped(snn.body.eval()).run(inputs), ann(inputs), atol=1e-4, rtol=1e-4)
    assert [neuron.threshold.item() for _, neuron in snn.neurons()] == [1.0] * len(list(snn.neurons()))


@pytest.mark.parametrize("percentile", [75.0, 99.0, 99.9, 100.0])
def test_the_percentile_is_that_of_all_activations(percentile: float) -> None:
    ann, snn = pair("plain")
    inputs = images()
    ss.convert(snn, ann, inputs.split(3), "normalise", percentile=percentile, **PUBLISHED)
    first, second = (np.percentile(value.numpy(), percentile) for value in activations(ann, inputs))
    wanted, given = ann.state_dict(), snn.body.state_dict()
    torch.testing.assert_close(given["0.weight"], wanted["0.weight"] / first)
    torch.testing.assert_close(given["0.bias"], wanted["0.bias"] / first)
    torch.testing.assert_close(given["3.0.weight"], wanted["3.0.weight"] * first / second)
    torch.testing.assert_close(given["6.weight"], wanted["6.weight"] * second)
    torch.testing.assert_close(given["6.bias"], wanted["6.bias"])


def test_model_based_scales_are_the_largest_sums_of_positive_weights() -> None:
    ann = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 2))
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF())
    inputs = images()
    inputs[0, 0, 0, 0] = 0.99999  # the largest
    ss.convert(snn, ann, [inputs], "normalise", based_on="model")
    with torch.no_grad():
        first = max(ann[0].weight[i].clamp(min=0).sum() * inputs.max() + ann[0].bias[i] for i in range(4))
        second = max(ann[3].weight[i].clamp(min=0).sum() * first + ann[3].bias[i] for i in range(6))
    torch.testing.assert_close(snn.body.get_submodule("0").weight, ann[0].weight / first)
    torch.testing.assert_close(snn.body.get_submodule("3").weight, ann[3].weight * first / second)
    torch.testing.assert_close(snn.body.get_submodule("5").weight, ann[5].weight * second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 0}, r"percentile must lie in \(0, 100\], not 0"),
        ({"percentile": 101.0}, r"percentile must lie in \(0, 100\], not 101"),
        ({"percentile": float("nan")}, r"percentile must lie in \(0, 100\], not nan"),
        ({"percentile": 1.0, "by": "layer"}, r"'2' has no positive activation \(percentile 1\)"),
        ({"based_on": "luck"}, "based_on must be 'data' or 'model', not 'luck'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    ann, snn = pair("plain")
    with pytest.raises(ss.InputError, match=message):
        ss.convert(snn, ann, [images()], "normalise", **options)
