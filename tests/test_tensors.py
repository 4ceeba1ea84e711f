"""Weights that are not finite are refused wherever a file's weights are taken or a network is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spikestill as ss
from spikestill import models, runs
from spikestill.cli import main
from spikestill.export import folded, replay, replay_onnx, to_nir, to_onnx
from spikestill.tensors import require_finite
from spikestill.types import InputError


def network() -> ss.SpikingNetwork:
    torch.manual_seed(0)
    ann = models.create("vgg5", num_classes=10, in_channels=1, image_size=8, width=0.125)
    return ss.to_spiking(ann, neuron=ss.LIF(0.5, 0.5), timesteps=2, input_shape=(1, 8, 8)).eval()


def spoil(snn: ss.SpikingNetwork, value: float = float("nan")) -> str:
    """Put a value into the last layer's bias, whose spikes nobody sees."""
    name, parameter = list(snn.body.named_parameters())[-1]
    with torch.no_grad():
        parameter.view(-1)[0] = value
    return name


def test_the_message_names_tensors_and_counts() -> None:
    values = {name: torch.tensor([1.0, float("nan"), float("-inf")]) for name in "abcde"}
    fine = {"count": torch.tensor(3), "weight": torch.ones(2), "nothing": torch.empty(0)}
    require_finite(fine, "it")
    with pytest.raises(InputError, match=r"^it holds .* not finite: 2 of 3 in 'a', 'b', 'c' and 2 more; take"):
        require_finite(fine | values, "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_is_not_exported(value: float, tmp_path: Path) -> None:
    snn = network()
    name = spoil(snn, value)
    for export in (lambda: to_nir(snn), lambda: to_onnx(snn, tmp_path / "a.onnx"), lambda: folded(snn)):
        with pytest.raises(InputError, match=f"the network holds values that are not finite: 1 of .* in '{name}'"):
            export()
    assert not list(tmp_path.iterdir())


def test_a_replay_without_finite_logits_is_no_success(tmp_path: Path) -> None:
    snn, images = network(), torch.randn(2, 1, 8, 8)
    file = to_onnx(snn, tmp_path / "a.onnx")
    other = folded(snn)
    spoil(other)
    found = replay(folded(snn), other, images)
    assert found.differing == 0  # every spike is the same
    assert found.predictions_differing == 2
    assert found.logits == float("inf")
    spoil(snn)
    for compare in (lambda: replay(snn, other, images), lambda: replay_onnx(file, snn, images)):
        with pytest.raises(InputError, match="the network's logits are not finite"):
            compare()


def test_a_file_of_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    ann = models.create("vgg5", num_classes=10, in_channels=1, image_size=8, width=0.125)
    state = {name: value.clone() for name, value in ann.state_dict().items()}
    first = next(iter(state))
    state[first].view(-1)[0] = float("nan")
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=f"bad.safetensors holds values that are not finite: 1 of .* in '{first}'"):
        models.load_weights(ann, tmp_path / "bad.safetensors", num_classes=10)


@pytest.mark.slow
def test_every_command_that_uses_a_run_s_weights_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--data=digits", "--epochs=1", "--limit-train=48", "--batch-size=24", "--width=0.125", "--logger=none"]
    assert main(["distill", "labels-only", "--student=vgg5", "--timesteps=2", "--out=run", "--device=cpu", *short]) == 0
    file = tmp_path / "run" / "student.safetensors"
    state = runs.read_weights(file)
    name = next(name for name, value in state.items() if value.is_floating_point() and value.numel() > 1)
    state[name].view(-1)[0] = float("inf")
    runs.write_weights(file, state)
    capsys.readouterr()
    export = ["export", "run", "--replay=noise"]
    for words in (["evaluate", "run"], ["verify", "run"], [*export, "--to=a.nir"], [*export, "--to=a.onnx"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"the network in run holds values that are not finite: 1 of {state[name].numel()} in '{name}'" in said
        assert said.count("\n") == 1
