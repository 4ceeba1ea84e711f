"""Thresholds by channel: the same function as the ANN's, one threshold in every layer, in every kind of network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import spikestill as ss
from spikestill.convert import restore
from spikestill.convert.values import HighestShare
from spikestill.export.replay import folded
from tests.convert.networks import ALL, images, pair
from tests.convert.test_convert import activations, relative_error
from tests.convert.test_normalise import Clipped
from tests.graph.networks import SHAPE

METHODS = {
    "shift": {},
    "normalise": {"percentile": 100.0},
    "threshold-balancing": {},
    "calibrate": {"correct": "none", "timesteps": 1000, "grid": 1},
    "balance-locally": {"passes": 2000},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*ALL, "max pooling"])
def test_every_layer_has_the_threshold_one_and_the_function_is_the_anns(name: str, method: str) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs], method, **METHODS[method])
    assert {neuron.threshold.item() for _, neuron in snn.neurons()} == {1.0}
    assert {neuron.initial.item() for _, neuron in snn.neurons() if neuron.initial is not None} == {0.5}
    if method in ("shift", "normalise", "calibrate"):
        with torch.no_grad():
            torch.testing.assert_close(Clipped(snn.body.eval()).run(inputs), ann(inputs), atol=1e-4, rtol=1e-4)
    else:
        assert relative_error(ann, snn, inputs, 256) < 0.06


@pytest.mark.parametrize("name", ["plain", "normalised", "residual", "dense", "grouped", "linear"])
def test_the_rate_of_the_most_active_unit_of_each_channel_is_one(name: str) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs], "shift")
    rates: dict[str, Tensor] = {}
    with torch.no_grad():
        snn.unroll(inputs, 8, lambda layer, spikes: rates.update({layer: spikes.mean(0)}))
    first = next(iter(rates.values()))
    activation = activations(ann, inputs)[0]
    largest = activation.movedim(1, 0).flatten(1).amax(1)
    scaled = activation / largest.reshape(1, -1, *[1] * (activation.dim() - 2)).clamp(min=1e-9)
    torch.testing.assert_close(first, (8 * scaled + 0.5 - 1e-6).floor().clamp(0, 8) / 8)


class Rearranged(nn.Module):
    """Everything that moves channels about: grouped, depthwise and transposed convolutions, splits, shuffles, views."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.norm, self.shuffle = nn.BatchNorm2d(6), nn.ChannelShuffle(2)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(5))
        self.hidden, self.head = nn.Linear(24, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relus[0](self.conv(x))
        x = self.relus[1](self.grouped(self.shuffle(x)))
        one, two = torch.chunk(x, 2, 1)
        x = self.relus[2](self.depthwise(torch.cat([two, one], 1)) + x)
        x = self.relus[3](self.norm(self.up(x)))
        x = nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1).reshape(-1, 24)
        return self.head(self.relus[4](self.hidden(x)))


@pytest.mark.parametrize("method", ["shift", "threshold-balancing"])
def test_rearrangements_rearrange_the_scale(method: str) -> None:
    torch.manual_seed(2)
    ann, inputs = Rearranged(), images(6)
    with torch.no_grad():
        ann(inputs)
        ann.eval()
    snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF(), timesteps=4).eval()
    ss.convert(snn, ann, [inputs], method)
    factors = [name for name, _ in snn.body.named_buffers() if "_for_" in name]
    assert len(factors) == 1, factors  # the identity shortcut alone
    assert relative_error(ann, snn, inputs, 1024) < 0.03


@pytest.mark.parametrize("name", ["identity shortcut", "residual", "dense", "gathering", "plain"])
def test_exports_see_one_threshold_and_replay(name: str, tmp_path) -> None:
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs], "shift", read_out_from=3)
    file = tmp_path / "network.nir"
    ss.export.to_nir(snn).write(file)
    assert ss.export.from_nir(file).read_out_from == 3
    replayed = ss.export.replay(folded(snn), ss.export.from_nir(file).eval(), inputs)
    assert replayed.differing <= 0.002 * replayed.places, str(replayed)
    pytest.importorskip("onnx")
    written = ss.export.to_onnx(snn, tmp_path / "network.onnx")
    assert ss.export.replay_onnx(written, snn, inputs).differing == 0


@pytest.mark.parametrize("name", ["identity shortcut", "plain"])
def test_spikingjelly_fires_as_a_converted_network_and_back(name: str) -> None:
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    ann, snn = pair(name)
    inputs = images()
    ss.convert(snn, ann, [inputs], "shift")
    other = ss.to_spikingjelly(snn)
    again = ss.from_spikingjelly(other, SHAPE, timesteps=8).eval()
    functional.reset_net(other)
    with torch.no_grad():
        steps = torch.stack([other(inputs) for _ in range(8)])
        torch.testing.assert_close(steps, snn.unroll(inputs))
        torch.testing.assert_close(again.unroll(inputs), snn.unroll(inputs))


def test_the_operations_of_a_converted_network_are_counted() -> None:
    ann, snn = pair("identity shortcut")
    inputs = images()
    ss.convert(snn, ann, [inputs], "shift")
    found = ss.analysis.evaluate(snn, [(inputs, torch.zeros(len(inputs), dtype=torch.long))])
    first, *others = found.operations.layers.values()
    assert first.multiply_accumulates == first.ann_multiply_accumulates
    assert all(layer.accumulates > 0 and layer.multiply_accumulates == 0 for layer in others)


@pytest.mark.parametrize("name", ["normalised", "residual", "gathering", "linear"])
def test_with_batch_norm_kept_the_spikes_are_those_of_the_folded_network(name: str) -> None:
    ann, snn = pair(name, gradient="rate")
    kept, inputs = copy.deepcopy(snn), images()
    fresh = copy.deepcopy(snn)
    ss.convert(snn, ann, [inputs], "shift")
    ss.convert(kept, ann, [inputs], "shift", batch_norm="keep")
    assert any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in kept.body.modules())
    counts: list[list[Tensor]] = [[], []]
    with torch.no_grad():
        for network, found in zip((snn, kept), counts, strict=True):
            network.eval().unroll(inputs, 8, lambda _, spikes, to=found: to.append(spikes))
    apart = sum(int((one != other).sum()) for one, other in zip(*counts, strict=True))
    assert apart <= 0.001 * sum(one.numel() for one in counts[0])
    restore(fresh, kept.body.meta["converted"])
    fresh.load_state_dict(kept.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(inputs), kept(inputs))
    kept.train()
    kept(inputs).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in kept.parameters())


def test_batch_norm_has_the_thresholds_in_weight_and_bias() -> None:
    ann, snn = pair("normalised")
    inputs = images()
    ss.convert(snn, ann, [inputs], "shift", batch_norm="keep")
    first = activations(ann, inputs)[0].amax((0, 2, 3))
    wanted, given = ann.state_dict(), snn.body.state_dict()
    torch.testing.assert_close(given["1.weight"], wanted["1.weight"] / first)
    torch.testing.assert_close(given["1.bias"], wanted["1.bias"] / first)
    torch.testing.assert_close(given["3.weight"], wanted["3.weight"] * first.view(1, -1, 1, 1))
    assert torch.equal(given["1.running_mean"], wanted["1.running_mean"])


def test_the_read_out_can_begin_later() -> None:
    ann, snn = pair("plain", timesteps=12)
    fresh, inputs = copy.deepcopy(snn), images()
    ss.convert(snn, ann, [inputs], "shift", read_out_from=5)
    with torch.no_grad():
        steps = snn.unroll(inputs)
        torch.testing.assert_close(snn(inputs), steps[4:].mean(0))
        labels = torch.zeros(len(inputs), dtype=torch.long)
        found = ss.analysis.evaluate(snn, [(inputs, labels)]).answers.predicted
    assert torch.equal(found[3], steps[:4].mean(0).argmax(1))
    assert torch.equal(found[6], steps[4:7].mean(0).argmax(1))
    restore(fresh, snn.body.meta["converted"])
    assert fresh.read_out_from == 5
    snn.gradient = "rate"
    with pytest.raises(ss.InputError, match="set read_out_from to 1 to train"):
        snn.train()(inputs)
    with pytest.raises(ss.InputError, match="read_out_from must lie between 1 and T = 8, not 9"):
        ss.convert(pair("plain")[1], ann, [inputs], read_out_from=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "map"}, "by must be 'channel' or 'layer', not 'map'"),
        ({"start": "top"}, "start must be 'half' or 'rest', not 'top'"),
        ({"max_pool": "average"}, "max_pool must be 'gate' or 'keep', not 'average'"),
        ({"batch_norm": "drop"}, "batch_norm must be 'fold' or 'keep', not 'drop'"),
    ],
)
@pytest.mark.parametrize("method", ["best", *METHODS])
def test_wrong_options_are_refused(method: str, options: dict[str, object], message: str) -> None:
    ann, snn = pair("plain")
    with pytest.raises(ss.InputError, match=message):
        ss.convert(snn, ann, [images()], method, **options)


def test_a_channel_that_no_image_drives_takes_the_layers_threshold() -> None:
    ann, snn = pair("plain")
    with torch.no_grad():
        ann[0].bias[0] = -1e3  # type: ignore[index, union-attr]
    inputs = images()
    ss.convert(snn, ann, [inputs], "shift")
    largest = activations(ann, inputs)[0].max()
    torch.testing.assert_close(snn.body.get_submodule("0").weight[0], ann[0].weight[0] / largest)  # type: ignore[index]


def test_percentiles_of_rows_in_parts() -> None:
    values = torch.rand(3, 101)
    share = HighestShare(101, 80.0)
    for part in values.split(17, 1):
        share.add(part)
    for percentile in (80.0, 93.5, 100.0):
        wanted = torch.quantile(values.double(), percentile / 100, dim=1)
        torch.testing.assert_close(share.percentiles(percentile), wanted)


def test_local_balancing_by_the_formula_and_by_spikingjelly() -> None:
    recipes = pytest.importorskip("spikingjelly.activation_based.ann2snn.recipes")
    from spikingjelly.activation_based.ann2snn import Converter

    torch.manual_seed(4)
    ann = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(20, 3)),
    ).eval()
    batches = list(images(12).split(4))
    snn = ss.to_spiking(ann, input_shape=SHAPE, neuron=ss.IF(), timesteps=16).eval()
    ss.convert(snn, ann, batches, "balance-locally", passes=1)
    other = Converter(recipe=recipes.LocalThresholdBalancingRecipe(batches)).convert(copy.deepcopy(ann)).eval()
    theirs = [value for name, value in other.state_dict().items() if name.endswith("scaler1.scale")]
    ours = [
        (ann[0].weight * 1.0)[:, 0, 0, 0]
        * (ann[1].weight / (ann[1].running_var + ann[1].eps).sqrt())  # type: ignore[operator, index]
        / snn.body.get_submodule("0").weight[:, 0, 0, 0],  # type: ignore[index]
        ann[3].weight[:, 0, 0, 0] * theirs[0][0] / snn.body.get_submodule("3").weight[:, 0, 0, 0],  # type: ignore[index]
    ]
    for one, judged in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, judged, rtol=1e-4, atol=1e-6)


def test_best_keeps_what_agrees_best_and_writes_down_the_scores() -> None:
    ann, snn = pair("residual", timesteps=4)
    inputs = images(24)
    ss.convert(snn, ann, inputs.split(8))
    notes = snn.body.meta["converted"]
    scores = [row["divergence"] for row in notes["candidates"]]
    assert scores == sorted(scores)
    assert notes["chosen"] == notes["candidates"][0]["candidate"]
    assert snn.read_out_from == notes["candidates"][0]["read_out_from"] == notes["read_out_from"]
    assert len({row["candidate"] for row in notes["candidates"]}) == 18
    plain = pair("residual", timesteps=4)[1]
    ss.convert(plain, ann, inputs.split(8), "normalise", by="layer", start="rest")
    assert relative_error(ann, snn, inputs, 4) < relative_error(ann, plain, inputs, 4)


@pytest.mark.parametrize("count", [1, 2])
def test_best_of_hardly_any_images(count: int) -> None:
    ann, snn = pair("plain")
    ss.convert(snn, ann, [images(count)])
    with pytest.raises(ss.InputError, match="folds must be at least 2, not 1"):
        ss.convert(pair("plain")[1], ann, [images()], folds=1)
