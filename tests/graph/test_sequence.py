from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from spikestill.graph import to_spiking
from spikestill.graph.sequence import SequenceRun, Signal, over_signals
from spikestill.nn import IF
from tests.graph.networks import SHAPE, spiking


def test_what_is_constant_in_time_is_computed_once() -> None:
    snn = spiking("residual").eval()
    batches: dict[str, int] = {}
    for name in ("0", "1", "3.conv1", "7"):
        snn.body.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: batches.update({name: len(args[0])})
        )
    snn(torch.randn(3, *SHAPE))
    assert batches == {"0": 3, "1": 3, "3.conv1": 12, "7": 12}


def test_a_function_of_moving_and_constant_signals_runs_on_all_steps() -> None:
    moving = Signal(torch.arange(6.0).view(6, 1), True)
    still = Signal(torch.tensor([[10.0], [20.0]]), False)
    total = over_signals(torch.add, (moving, still), {}, 3)
    assert total.moves
    assert total.value.flatten().tolist() == [10, 21, 12, 23, 14, 25]
    assert not over_signals(torch.add, (still, still), {"alpha": 2}, 3).moves
    both = over_signals(torch.cat, ([moving, still],), {"dim": 1}, 3)
    assert both.value[:, 1].tolist() == [10, 20, 10, 20, 10, 20]


def test_a_function_of_several_results_gives_several_signals() -> None:
    first, second = over_signals(torch.chunk, (Signal(torch.zeros(4, 6), True), 2), {"dim": 1}, 2)
    assert first.moves
    assert second.value.shape == (4, 3)


def test_a_function_of_parameters_alone_is_a_constant() -> None:
    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.offset = nn.ReLU(), nn.Parameter(torch.rand(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.relu(x) + self.offset * 2).flatten(1)

    ann = Offset()
    for gradient in ("bptt", "rate"):
        snn = to_spiking(ann, input_shape=SHAPE, timesteps=4, neuron=IF(1e6), gradient=gradient)
        logits = snn(torch.rand(2, *SHAPE))
        torch.testing.assert_close(logits, (2 * ann.offset.detach()).expand(2, *SHAPE).flatten(1))
        logits.sum().backward()
        torch.testing.assert_close(snn.body.offset.grad, torch.full((3, 1, 1), 2.0 * 2 * 64))


def test_dropout_draws_one_mask_for_all_steps() -> None:
    sequence = torch.rand(4, 5, 20) + 1
    dropped = SequenceRun(fx.symbolic_trace(nn.Sequential(nn.Dropout(0.5))), 4).sequence(sequence)
    kept = dropped != 0
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert 0 < int(kept.sum()) < kept.numel()
    torch.testing.assert_close(dropped[kept], 2 * sequence[kept])


@pytest.mark.parametrize("moves", [True, False])
def test_taps_are_in_time_whether_they_move_or_not(moves: bool) -> None:
    snn = spiking("plain", timesteps=3).eval()
    nodes: dict[fx.Node, str] = {node: str(node.target) for node in snn.body.graph.nodes if node.target in ("0", "2")}
    run = SequenceRun(snn.body, 3, taps=nodes)
    run.sequence(torch.randn(3 if moves else 1, 2, *SHAPE))
    assert {name: tuple(value.shape) for name, value in run.tapped.items()} == {
        "0": (3, 2, 4, 8, 8),
        "2": (3, 2, 4, 8, 8),
    }


def test_carries_go_from_call_to_call() -> None:
    snn = spiking("residual", timesteps=4).eval()
    frames = torch.randn(4, 2, *SHAPE)
    whole = SequenceRun(snn.body, 4).sequence(frames)
    carries: dict[str, Tensor] = {}
    parts = [SequenceRun(snn.body, 2, carries).sequence(part) for part in frames.split(2)]
    assert set(carries) == {name for name, _ in snn.neurons()}
    torch.testing.assert_close(torch.cat(parts), whole)
