"""The ANN of quantised activations, and the spiking network that it becomes."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, fx, nn

import spikestill as ss
from spikestill.convert import quantised, quantised_structure, restore
from spikestill.graph import SpikingNetwork
from spikestill.nn import ClipFloorShift
from tests.convert.networks import ALL, images, pair, trained_like
from tests.convert.test_convert import activations, relative_error
from tests.graph.networks import SHAPE


def thresholds(network: nn.Module) -> dict[str, float]:
    return {
        name: module.threshold.item() for name, module in network.named_modules() if isinstance(module, ClipFloorShift)
    }


def fine_tune(network: fx.GraphModule, ann: nn.Module, inputs: Tensor, steps: int = 60) -> None:
    """Bring the logits nearer to those of the ANN that it was made of."""
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    wanted = ann(inputs).detach()
    network.eval()  # running statistics stay
    for _ in range(steps):
        optimiser.zero_grad()
        (network(inputs) - wanted).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("name", [*(name for name in ALL if name != "arithmetic"), "max pooling"])
def test_every_call_of_an_activation_is_quantised_under_the_neurons_name(name: str) -> None:
    ann, snn = pair(name)
    inputs = images()
    made = quantised(ann, inputs.split(3), levels=3, percentile=100.0)
    assert list(thresholds(made)) == list(dict(snn.neurons()))
    largest = [activation.max().item() for activation in activations(ann, inputs)]
    assert list(thresholds(made).values()) == pytest.approx(largest, rel=1e-5)
    weights = {key: value for key, value in made.state_dict().items() if not key.endswith("original")}
    assert all(torch.equal(value, ann.state_dict()[key]) for key, value in weights.items())


@pytest.mark.parametrize("name", ["residual", "shared", "dense"])
def test_it_computes_what_the_ann_does_in_levels(name: str) -> None:
    ann, inputs = trained_like(name), images()
    errors = []
    with torch.no_grad():
        for levels in (4, 32, 1024):
            made = quantised(ann, [inputs], levels=levels, percentile=100.0)
            errors.append(float((made(inputs) - ann(inputs)).abs().mean() / ann(inputs).abs().mean()))
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 1e-3


def test_the_ann_stays_as_it_is_and_modes_are_kept() -> None:
    ann = trained_like("residual").train()
    before = copy.deepcopy(ann.state_dict())
    made = quantised(ann, [images()])
    assert all(module.training for module in (*made.modules(), *ann.modules()))
    made(images()).sum().backward()
    with torch.no_grad():
        for parameter in made.parameters():
            assert parameter.grad is not None
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())
    evaluated = quantised(ann.eval(), [images()])
    kinds = (nn.BatchNorm2d, ClipFloorShift)
    assert not [module for module in evaluated.modules() if isinstance(module, kinds) and module.training]


def test_the_structure_is_built_without_images() -> None:
    ann, inputs = trained_like("residual"), images()
    made = quantised(ann, ((part, torch.zeros(len(part))) for part in inputs.split(3)), levels=2)
    empty = quantised_structure(trained_like("residual"), SHAPE, levels=2)
    assert set(thresholds(empty).values()) == {1.0}
    empty.load_state_dict(made.state_dict())
    with torch.no_grad():
        assert torch.equal(empty(inputs), made(inputs))


@pytest.mark.parametrize("levels", [1, 4, 16])
def test_one_hidden_layer_is_converted_exactly(levels: int) -> None:
    ann, inputs = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 5)), images(32)
    snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF(), timesteps=levels).eval()
    source = quantised(ann, [inputs], levels=levels, percentile=99.0)
    fine_tune(source, ann, inputs, steps=10)
    assert list(thresholds(source).values()) != list(thresholds(quantised(ann, [inputs], percentile=99.0)).values())
    ss.convert(snn, source, [inputs], "quantise")
    with torch.no_grad():
        torch.testing.assert_close(snn(inputs), source(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_deeper_networks_approach_it_with_as_many_levels_as_time_steps(name: str) -> None:
    errors = []
    for levels in (8, 32, 128):
        torch.manual_seed(0)
        inputs, (ann, snn) = images(), pair(name)
        source = quantised(ann, [inputs], levels=levels)
        ss.convert(snn, source, [inputs], "quantise")
        errors.append(relative_error(source, snn, inputs, levels))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.02


def test_neurons_have_the_learned_thresholds_and_start_half_way() -> None:
    ann, snn = pair("residual")
    source = quantised(ann, [images()])
    fine_tune(source, ann, images(), steps=5)
    ss.convert(snn, source, [images()], "quantise")
    assert {name: neuron.threshold.item() for name, neuron in snn.neurons()} == pytest.approx(thresholds(source))
    for _, neuron in snn.neurons():
        assert neuron.initial is not None
        assert neuron.initial.item() == pytest.approx(neuron.threshold.item() / 2)


@pytest.mark.slow
def test_two_time_steps_are_enough_after_fine_tuning_where_shift_fails() -> None:
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    inputs = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[order] / 16
    labels = torch.tensor(digits.target)[order]
    seen, unseen = slice(0, 1200), slice(1200, None)

    def train(network: nn.Module, steps: int, rate: float) -> None:
        optimiser = torch.optim.Adam(network.train().parameters(), lr=rate)
        for _ in range(steps):
            some = torch.randint(1200, (64,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(inputs[some]), labels[some]).backward()
            optimiser.step()
        network.eval()

    def wrong(network: nn.Module) -> float:
        with torch.no_grad():
            return float((network(inputs[unseen]).argmax(1) != labels[unseen]).float().mean())

    def converted(source: nn.Module, method: str) -> SpikingNetwork:
        snn = ss.to_spiking(ann, input_shape=(1, 8, 8), neuron=ss.IF(), timesteps=2).eval()
        options = {"by": "layer"} if method == "shift" else {}
        ss.convert(snn, source, [inputs[seen][:256]], method, **options)
        return snn

    ann = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)),
    )
    train(ann, 300, 1e-2)
    source = quantised(ann, [inputs[seen][:256]], levels=2)
    untuned, shifted = wrong(converted(source, "quantise")), wrong(converted(ann, "shift"))
    train(source, 100, 2e-3)
    tuned = wrong(converted(source, "quantise"))
    assert wrong(ann) < 0.03
    assert tuned < 0.06
    assert tuned < shifted / 3
    assert tuned < untuned <= shifted


@pytest.mark.parametrize("method", ["normalise", "threshold-balancing", "shift", "calibrate"])
def test_the_other_methods_take_a_quantised_ann_too(method: str) -> None:
    ann, snn = pair("plain")
    source = quantised(ann, [images()], levels=64, percentile=90.0)
    ss.convert(snn, source, [images()], method, **({"correct": "none"} if method == "calibrate" else {}))
    assert relative_error(source, snn, images(), 256) < 0.1


def test_the_rebuilt_network_is_the_converted_one() -> None:
    ann, snn = pair("identity shortcut")
    fresh, inputs = copy.deepcopy(snn), images()
    ss.convert(snn, quantised(ann, [inputs]), [inputs], "quantise")
    restore(fresh, json.loads(json.dumps(snn.body.meta["converted"])))
    fresh.load_state_dict(snn.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(inputs), snn(inputs))


def test_an_ann_without_quantised_activations_is_refused() -> None:
    ann, snn = pair("plain")
    message = "quantise needs an ANN of quantised activations, '2' is a ReLU: make one by spikestill.convert.quantised"
    with pytest.raises(ss.InputError, match=message):
        ss.convert(snn, ann, [images()], "quantise")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "the number of levels must be at least 1, not 0"),
        ({"percentile": 0.0}, r"percentile must lie in \(0, 100\], not 0.0"),
        ({"batches": []}, "conversion needs calibration images: there are none"),
        ({"batches": [torch.rand(2, 3, 2, 8, 8)]}, "the model does not run on images of 3x2x8x8"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ss.InputError, match=message) as caught:
        quantised(trained_like("plain"), options.pop("batches", [images()]), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_cannot_spike_or_is_not_driven_is_refused() -> None:
    with pytest.raises(ss.InputError, match=r"1 \(GELU\): not a rectifier"):
        quantised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), [images()])
    ann = trained_like("plain")
    with torch.no_grad():
        ann[3][0].bias.fill_(-1e3)  # type: ignore[index, union-attr]
    with pytest.raises(ss.InputError, match=r"'3.1' has no positive activation \(percentile 99.9\)"):
        quantised(ann, [images()])
