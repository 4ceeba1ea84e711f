from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikestill as ss
from spikestill.convert import values
from spikestill.graph import SpikingNetwork
from tests.convert.networks import ALL, PUBLISHED, images, pair

STEPS = 40


def without_bias() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(80, 6), nn.ReLU(), nn.Linear(6, 2)),
    )


def neurons_of(current: Tensor, threshold: float) -> Tensor:
    """Integrate and fire, step by step: spikes ``[T, ...]`` of currents ``[T, ...]``."""
    potential, spikes = torch.zeros_like(current[0]), []
    for now in current:
        potential = potential + now
        spikes.append((potential >= threshold).to(now.dtype))
        potential = potential - threshold * spikes[-1]
    return torch.stack(spikes)


def brute_force(ann: nn.Sequential, inputs: Tensor, percentile: float = 100.0) -> list[float]:
    """The thresholds of a chain of layers, everything held in memory at once."""
    sequence, scale, found = inputs.expand(STEPS, *inputs.shape), 1.0, []
    with torch.no_grad():
        for layer in ann:
            if isinstance(layer, nn.ReLU):
                found.append(max(float(np.percentile(step.numpy(), percentile)) for step in sequence))
                scale *= found[-1]
                sequence = neurons_of(sequence, found[-1])
            elif getattr(layer, "bias", None) is not None:
                flat = layer(sequence.flatten(0, 1)) - layer.bias + layer.bias / scale
                sequence = flat.unflatten(0, (STEPS, -1))
            else:
                sequence = layer(sequence.flatten(0, 1)).unflatten(0, (STEPS, -1))
    return found


def thresholds(snn: SpikingNetwork) -> list[float]:
    return [neuron.threshold.item() for _, neuron in snn.neurons()]


def converted(ann: nn.Module, inputs: Tensor, **options: object) -> SpikingNetwork:
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF(threshold=0.7)).eval()
    ss.convert(snn, ann, [inputs], "threshold-balancing", **{"timesteps": STEPS, **PUBLISHED, **options})
    return snn


@pytest.mark.parametrize("percentile", [100.0, 99.0])
def test_thresholds_are_the_largest_currents(percentile: float) -> None:
    ann, inputs = without_bias(), images()
    snn = converted(ann, inputs, percentile=percentile)
    assert thresholds(snn) == pytest.approx(brute_force(ann, inputs, percentile), rel=1e-5)


def test_weights_are_untouched_and_biases_take_the_product_of_the_thresholds() -> None:
    ann, inputs = without_bias(), images()
    given = converted(ann, inputs)
    for key, value in ann.state_dict().items():
        if "weight" in key:
            assert torch.equal(given.body.state_dict()[key], value)
    first, second, third = thresholds(given)
    torch.testing.assert_close(given.body.state_dict()["5.bias"], ann[5].bias / (first * second))
    torch.testing.assert_close(given.body.state_dict()["7.bias"], ann[7].bias / (first * second * third))


def test_factor_scales_all_thresholds_of_the_whole_one_and_biases_follow() -> None:
    ann, inputs = without_bias(), images()
    whole, scaled = converted(ann, inputs), converted(ann, inputs, factor=0.7)
    assert thresholds(scaled) == pytest.approx([0.7 * value for value in thresholds(whole)])
    one, other = whole.body.state_dict(), scaled.body.state_dict()
    torch.testing.assert_close(other["7.bias"], one["7.bias"] / 0.7**3)
    assert all(torch.equal(one[key], other[key]) for key in one if "weight" in key)


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_the_read_out_alone_brings_the_logits_to_the_scale_of_the_ann(factor: float) -> None:
    ann, inputs = without_bias(), images()
    given = converted(ann, inputs, factor=factor, ann_logits=True)
    before = converted(ann, inputs, factor=factor)
    one, other = given.body.state_dict(), before.body.state_dict()
    assert [key for key in one if not torch.equal(one[key], other[key])] == ["7.weight", "7.bias"]
    product = float(np.prod(thresholds(given)))
    torch.testing.assert_close(given(inputs), before(inputs) * product)
    torch.testing.assert_close(one["7.bias"], ann[7].bias)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_logits_on_the_scale_of_the_ann_approach_its_own(name: str) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs], "threshold-balancing", timesteps=STEPS, ann_logits=True)
    with torch.no_grad():
        wanted = ann(inputs)
        torch.testing.assert_close(snn.eval().unroll(inputs, 1500).mean(0), wanted, atol=0.02 * wanted.std(), rtol=0)


def test_more_steps_only_raise_a_threshold_as_long_as_those_before_it_are_the_same() -> None:
    ann, inputs = without_bias(), images()
    short, long = thresholds(converted(ann, inputs, timesteps=3)), thresholds(converted(ann, inputs, timesteps=90))
    assert short[0] == long[0]
    assert short[1] < long[1]


def test_stem_is_what_comes_before_the_first_branch() -> None:
    ann, snn = pair("identity shortcut", neuron=ss.IF(threshold=0.7))
    _, whole = pair("identity shortcut")
    inputs = images()
    ss.convert(snn, ann, [inputs], "threshold-balancing", layers="stem", **PUBLISHED)
    ss.convert(whole, ann, [inputs], "threshold-balancing", **PUBLISHED)
    assert thresholds(snn)[0] == thresholds(whole)[0] != 0.7
    assert thresholds(snn)[1:] == pytest.approx([0.7] * 4)
    assert 0.7 not in thresholds(whole)


def test_align_false_adds_up_what_differs_as_it_is() -> None:
    ann, snn = pair("identity shortcut")
    _, aligned = pair("identity shortcut")
    inputs = images()
    ss.convert(snn, ann, [inputs], "threshold-balancing", align=False, **PUBLISHED)
    ss.convert(aligned, ann, [inputs], "threshold-balancing", **PUBLISHED)
    assert "mul" not in str(snn.body.graph)
    assert "mul" in str(aligned.body.graph)
    assert thresholds(snn)[:2] == thresholds(aligned)[:2]


def test_a_bounded_activation_bounds_the_threshold() -> None:
    ann = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Flatten(), nn.Linear(256, 3))
    with torch.no_grad():
        ann[0].weight.fill_(10)
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF())
    ss.convert(snn, ann, [images()], "threshold-balancing", **PUBLISHED)
    assert thresholds(snn) == [6.0]


@pytest.mark.parametrize("timesteps", [17, 160])
def test_time_is_streamed_in_chunks_that_change_nothing(monkeypatch: pytest.MonkeyPatch, timesteps: int) -> None:
    ann, inputs = without_bias(), images(2)
    sizes: list[int] = []
    run = values.SequenceRun.sequence

    def watched(self: object, encoded: Tensor) -> Tensor:
        result = run(self, encoded)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(values.SequenceRun, "sequence", watched)
    whole = thresholds(converted(ann, inputs, timesteps=timesteps))
    assert max(sizes) <= values.STEPS_AT_ONCE * 2 * 5 * 16  # of the largest layer that is run in time
    monkeypatch.setattr(values, "STEPS_AT_ONCE", 5)
    assert thresholds(converted(ann, inputs, timesteps=timesteps)) == pytest.approx(whole, rel=1e-6)
    monkeypatch.setattr(values, "STEPS_AT_ONCE", 1000)
    assert thresholds(converted(ann, inputs, timesteps=timesteps)) == pytest.approx(whole, rel=1e-6)


def test_an_encoder_of_ones_own_sees_all_steps_together() -> None:
    class Ramp(ss.Direct):
        constant = False

        def forward(self, batch: Tensor, timesteps: int) -> Tensor:
            return batch * torch.linspace(0, 2, timesteps).view(-1, 1, 1, 1, 1)

    ann, inputs = without_bias(), images()
    snn = ss.to_spiking(ann, input_shape=(3, 8, 8), neuron=ss.IF(), encoder=Ramp()).eval()
    ss.convert(snn, ann, [inputs], "threshold-balancing", timesteps=STEPS, **PUBLISHED)
    assert thresholds(snn)[0] == pytest.approx(2 * thresholds(converted(ann, inputs))[0], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 0}, "the number of time steps must be at least 1, not 0"),
        ({"percentile": -1}, r"percentile must lie in \(0, 100\], not -1"),
        ({"factor": 0.0}, "factor must be positive and finite, not 0.0"),
        ({"factor": float("inf")}, "factor must be positive and finite, not inf"),
        ({"layers": "some"}, "layers must be 'all' or 'stem', not 'some'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ss.InputError, match=message):
        converted(without_bias(), images(), **options)
