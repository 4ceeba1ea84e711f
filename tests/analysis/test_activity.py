from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spikestill.analysis import LayerActivity, evaluate
from spikestill.graph import SpikingNetwork, to_spiking
from spikestill.nn import IF
from spikestill.types import InputError

SHAPE = (2, 1, 1)


def small() -> SpikingNetwork:
    """Two neurons without leak, threshold 1, each fed by its own pixel, and the two classes are their spikes."""
    ann = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    for layer in (ann[1], ann[3]):
        nn.init.eye_(layer.weight)
    return to_spiking(ann, neuron=IF(), timesteps=4, input_shape=SHAPE)


def batch(*pixels: tuple[float, float], labels: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(pixels).view(-1, *SHAPE), torch.tensor(labels)


class Twins:
    """As if another process had seen the same images."""

    def gathered(self, value: object) -> list[object]:
        return [value, value]

    def reduced(self, values: Tensor, how: str) -> Tensor:
        return 2 * values if how == "sum" else values


def test_what_several_processes_measure_is_put_together() -> None:
    """Everything is a mean, and stays; answers come batch by batch, each process's shard after the other's."""
    batches = [batch((0.5, 1.0), (0.0, 0.5), labels=[1, 1]), batch((0.75, 0.5), (0.0, 0.0), labels=[0, 1])]
    alone = evaluate(small(), batches)
    together = evaluate(small(), batches, processes=Twins())
    assert together.images == 2 * alone.images == 8
    assert together.answers.labels.tolist() == [1, 1, 1, 1, 0, 1, 0, 1]
    assert (together.accuracy, together.rates) == (alone.accuracy, alone.rates)
    assert together.spikes_per_neuron == alone.spikes_per_neuron
    assert together.operations.layers == alone.operations.layers


def test_accuracy_and_spikes_are_those_counted_by_hand() -> None:
    """Pixels 0.5 and 1 fire at steps 2, 4 and at 1 to 4; 0.75 at steps 2, 3 and 4; 0 never.

    The first image is class 1 at once. The second ties at step 1 (class 0 then) and is class 1 from step 2 on. The
    third is class 0: by ties up to step 2, then by its spikes. The fourth, which never fires, is class 0 by its tie.
    """
    batches = [
        batch((0.5, 1.0), (0.0, 0.5), labels=[1, 1]),
        batch((0.75, 0.5), (0.0, 0.0), labels=[0, 1]),
    ]
    result = evaluate(small(), batches, timesteps=(1, 2, 4))
    assert result.accuracy == {1: 0.5, 2: 0.75, 4: 0.75}
    spikes = (2 + 4) + (0 + 2) + (3 + 2) + 0
    assert result.spikes_per_neuron == pytest.approx(spikes / (4 * 2))
    assert result.rates == {"2": pytest.approx(spikes / (4 * 2 * 4))}
    assert (result.images, result.timesteps) == (4, 4)


def test_accuracy_is_that_of_the_running_mean() -> None:
    torch.manual_seed(3)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    snn = to_spiking(ann, neuron=IF(threshold=0.3), timesteps=3, input_shape=(3, 2, 2)).eval()
    batches = [(torch.randn(size, 3, 2, 2), torch.randint(4, (size,))) for size in (70, 50, 1)]
    result = evaluate(snn, batches)
    assert list(result.accuracy) == [1, 2, 3]
    with torch.no_grad():
        for t, share in result.accuracy.items():
            hits = [(snn.unroll(images, t).mean(0).argmax(1) == labels).float() for images, labels in batches]
            assert share == pytest.approx(float(torch.cat(hits).mean()))
    assert list(result.rates) == [name for name, _ in snn.neurons()]
    weighted = (16 * result.rates["2"] + 8 * result.rates["4"]) / 24
    assert result.spikes_per_neuron == pytest.approx(3 * weighted)


def test_more_steps_than_the_network_is_trained_with() -> None:
    result = evaluate(small(), [batch((0.25, 0.2), labels=[0])], timesteps=(8,))
    assert result.timesteps == 8
    assert result.spikes_per_neuron == pytest.approx((2 + 1) / 2)


def test_the_spikes_of_a_neuron_are_at_most_t() -> None:
    result = evaluate(small(), [batch((5.0, 5.0), labels=[0])])
    assert result.spikes_per_neuron == 4
    assert result.rates == {"2": 1.0}


def test_every_mode_is_as_before_and_nothing_is_learnt() -> None:
    ann = nn.Sequential(
        nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2, 2)
    )
    snn = to_spiking(ann, input_shape=SHAPE)
    snn.body.get_submodule("1").eval()
    modes = [module.training for module in snn.modules()]
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    batches = [batch((0.5, 1.0), (0.1, 0.7), labels=[1, 0])]
    first, second = (evaluate(snn, batches) for _ in range(2))
    assert first == second
    assert [module.training for module in snn.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in snn.state_dict().items())


def test_the_modes_are_put_back_after_an_error_too() -> None:
    snn = small().train()
    with pytest.raises(RuntimeError):
        evaluate(snn, [(torch.zeros(1, 9, 1, 1), torch.tensor([0]))])
    assert all(module.training for module in snn.modules())


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images to measure on"):
        evaluate(small(), [])


def test_numbers_of_steps_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="must be at least 1, not 0"):
        evaluate(small(), [], timesteps=(0, 2))


def test_silent_and_saturated_neurons_are_counted_by_layer() -> None:
    """Of four neurons one never fires, one always, one at every second step, one at 39 steps of 40."""
    counts = torch.tensor([[0, 40], [20, 39]])
    assert LayerActivity.of(counts, 40) == LayerActivity(
        neurons=4, rate=pytest.approx((40 + 20 + 39) / 160), silent=0.25, saturated=0.5
    )


def test_the_layers_are_those_of_a_loop_over_the_spikes() -> None:
    torch.manual_seed(5)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    snn = to_spiking(ann, neuron=IF(threshold=0.6), timesteps=3, input_shape=(3, 2, 2)).eval()
    images = torch.randn(9, 3, 2, 2)
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        snn.unroll(images, observe=seen.__setitem__)
    found = evaluate(snn, [(images[:5], torch.zeros(5)), (images[5:], torch.zeros(4))]).layers
    assert found.keys() == seen.keys()
    for name, spikes in seen.items():
        total = spikes.sum((0, 1))
        assert found[name].neurons == len(total)
        assert found[name].silent == pytest.approx(float((total == 0).float().mean()))
        assert found[name].rate == pytest.approx(float(spikes.mean()))
    assert 0 < found["2"].silent < 1
