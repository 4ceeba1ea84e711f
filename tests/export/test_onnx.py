from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import spikestill as ss
from spikestill.export import replay_onnx, to_onnx
from tests.convert import networks as converted
from tests.export import networks as own
from tests.graph import networks

RULES: dict[str, dict[str, Any]] = {
    "soft": {"reset": "soft"},
    "hard": {"reset": "hard"},
    "soft, leak first": {"reset": "soft", "order": "leak-then-subtract"},
    "hard, leak first": {"reset": "hard", "order": "leak-then-subtract"},
}


def outputs(path: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    session = onnxruntime.InferenceSession(path)
    logits, steps = session.run(["logits", "steps"], {"images": images.numpy()})
    return torch.from_numpy(logits), torch.from_numpy(steps)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("leak", [0.5, 1.0])
def test_every_neuron_gives_its_read_out_at_every_step(leak: float, rule: str, tmp_path: Path) -> None:
    snn = networks.spiking("residual", ss.LIF(leak, 0.15, **RULES[rule]), timesteps=5).eval()
    images = torch.rand(6, *networks.SHAPE)
    logits, steps = outputs(to_onnx(snn, tmp_path / "student.onnx"), images)
    with torch.no_grad():
        torch.testing.assert_close(steps, snn.unroll(images))
        torch.testing.assert_close(logits, snn(images))
    assert steps.std(0).max() > 1e-3


@pytest.mark.parametrize("name", ["dense", "grouped", "shared", "max pooling", "average pooling", "linear"])
def test_networks_come_out_as_they_are(name: str, tmp_path: Path) -> None:
    snn = networks.spiking(name).eval()
    found = replay_onnx(to_onnx(snn, tmp_path / "student.onnx"), snn, torch.rand(6, *networks.SHAPE))
    assert (found.differing, found.images) == (0, 6)
    assert found.logits < 1e-5


@pytest.mark.parametrize("name", ["map on a shortcut", "the same signal twice", "padding that does not count"])
def test_what_has_no_word_of_its_own_comes_out(name: str, tmp_path: Path) -> None:
    snn = own.spiking(own.EXACT[name]())
    assert replay_onnx(to_onnx(snn, tmp_path / "student.onnx"), snn, torch.rand(4, *own.SHAPE)).logits < 1e-5


@pytest.mark.parametrize("method", ["shift", "calibrate"])
def test_a_converted_network_with_initial_potentials(method: str, tmp_path: Path) -> None:
    ann, snn = converted.pair("identity shortcut")
    ss.convert(snn, ann, [converted.images()], method=method)
    found = replay_onnx(to_onnx(snn, tmp_path / "student.onnx"), snn, torch.rand(4, *own.SHAPE))
    assert found.differing == 0
    assert found.logits < 1e-4


def test_a_maximum_by_a_function(tmp_path: Path) -> None:
    made = own.between(lambda self, x: torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1))()
    snn = own.spiking(made)
    assert replay_onnx(to_onnx(snn, tmp_path / "student.onnx"), snn, torch.rand(4, *own.SHAPE)).logits < 1e-5


def test_encoded_input_goes_in_where_the_encoder_is_outside(tmp_path: Path) -> None:
    for encoder, images in ((ss.Poisson(seed=1), torch.rand(3, 3, 8, 8)), (ss.Events(), torch.rand(4, 3, 3, 8, 8))):
        snn = networks.spiking("residual", encoder=encoder).eval()
        path = to_onnx(snn, tmp_path / "student.onnx")
        assert replay_onnx(path, snn, images).logits < 1e-5
        (given,) = onnxruntime.InferenceSession(path).get_inputs()
        assert given.shape == [4, "batch", 3, 8, 8]


def test_what_does_not_change_is_computed_once_and_weights_are_stored_once(tmp_path: Path) -> None:
    snn = networks.spiking("residual", timesteps=3).eval()
    short, long = (onnx.load(to_onnx(snn, tmp_path / f"{steps}.onnx", timesteps=steps)) for steps in (3, 12))
    convolutions = [sum(node.op_type == "Conv" for node in model.graph.node) for model in (short, long)]
    assert convolutions == [1 + 3 * 6, 1 + 12 * 6]
    names = [{tensor.name for tensor in model.graph.initializer} for model in (short, long)]
    assert names[0] == names[1]
    assert short.producer_name == "spikestill"
    onnx.checker.check_model(long, full_check=True)


def test_another_number_of_steps_and_another_shape(tmp_path: Path) -> None:
    snn = networks.spiking("residual").eval()
    images = torch.rand(2, 3, 10, 12)
    _, steps = outputs(to_onnx(snn, tmp_path / "student.onnx", input_shape=(3, 10, 12), timesteps=7), images)
    with torch.no_grad():
        torch.testing.assert_close(steps, snn.unroll(images, 7))
    with pytest.raises(ss.InputError, match="number of time steps must be at least 1, not 0"):
        to_onnx(snn, tmp_path / "student.onnx", timesteps=0)


def test_differing_predictions_are_counted(tmp_path: Path) -> None:
    snn, other = networks.spiking("residual").eval(), networks.spiking("residual").eval()
    images = torch.rand(16, *networks.SHAPE)
    found = replay_onnx(to_onnx(other, tmp_path / "student.onnx"), snn, images)
    with torch.no_grad():
        expected = int((snn(images).argmax(1) != other(images).argmax(1)).sum())
    assert found.differing == expected > 0
    assert str(found).startswith(f"{expected} of 16 predictions differ (logits by at most")


def test_a_damaged_file_and_a_refused_layer_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(b"nothing")
    snn = networks.spiking("plain").eval()
    with pytest.raises(ss.InputError, match="cannot read .*student.onnx") as caught:
        replay_onnx(path, snn, torch.rand(1, *networks.SHAPE))
    assert "\n" not in str(caught.value)
    with pytest.raises(ss.InputError, match=r"'2.up' \(Upsample\): no format has an equivalent"):
        to_onnx(own.spiking(own.REFUSED["upsampling"][0]()), path)
    assert path.read_bytes() == b"nothing"


def test_a_resnet20_comes_out(tmp_path: Path) -> None:
    snn = own.resnet20(ss.LIF(0.5, 1.0))
    images = torch.randn(4, 3, 32, 32)
    found = replay_onnx(to_onnx(snn, tmp_path / "student.onnx"), snn, images)
    assert found.differing == 0
    assert np.isfinite(found.logits)
