from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import spikestill as ss
from spikestill.export import folded, from_nir, replay, to_nir
from spikestill.graph import SpikingNetwork
from tests.convert import networks as converted
from tests.export import networks as own
from tests.graph import networks

RULES = {
    "soft": {"reset": "soft"},
    "hard": {"reset": "hard"},
    "soft, leak first": {"reset": "soft", "order": "leak-then-subtract"},
    "hard, leak first": {"reset": "hard", "order": "leak-then-subtract"},
}


def there_and_back(snn: SpikingNetwork, folder: Path) -> SpikingNetwork:
    return from_nir(to_nir(snn).write(folder / "student.nir"))


def assert_replays(snn: SpikingNetwork, folder: Path, images: Tensor) -> None:
    found = replay(folded(snn), there_and_back(snn, folder), images)
    assert found.places > 100
    assert found.differing == found.predictions_differing == found.logits == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leak", "rule"),
    [(0.5, "soft"), (0.9, "hard"), (1.0, "soft"), (0.9, "soft, leak first"), (0.5, "hard, leak first")],
)
def test_a_resnet20_replays_spike_for_spike(leak: float, rule: str, tmp_path: Path) -> None:
    snn = own.resnet20(ss.LIF(leak, 1.0, **RULES[rule]), timesteps=2)  # type: ignore[arg-type]
    images = torch.randn(1, 3, 32, 32)
    found = there_and_back(snn, tmp_path)
    # Folding rounds, so the network itself might fire otherwise in rare places; on these images it does not.
    compared = replay(snn, found, images)
    assert (compared.differing, compared.places) == (0, 376_832)
    firing: dict[str, float] = {}
    found.unroll(images, observe=lambda name, spikes: firing.__setitem__(name, spikes.mean().item()))
    assert len(firing) == 19
    assert all(0.005 < rate < 0.95 for rate in firing.values()), firing


@pytest.mark.parametrize("name", ["residual", "dense", "grouped", "shared", "same padding", "linear"])
def test_networks_replay(name: str, tmp_path: Path) -> None:
    assert_replays(networks.spiking(name).eval(), tmp_path, torch.rand(3, *networks.SHAPE))


@pytest.mark.parametrize("name", own.EXACT)
def test_what_nir_has_no_word_for_replays(name: str, tmp_path: Path) -> None:
    assert_replays(own.spiking(own.EXACT[name]()), tmp_path, torch.rand(3, *networks.SHAPE))


@pytest.mark.parametrize("method", ["threshold-balancing", "shift", "calibrate"])
@pytest.mark.parametrize("name", ["residual", *converted.OWN])
def test_converted_networks_replay(name: str, method: str, tmp_path: Path) -> None:
    ann, snn = converted.pair(name)
    ss.convert(snn, ann, [converted.images()], method=method)
    assert_replays(snn, tmp_path, torch.rand(3, *networks.SHAPE))


def test_initial_potentials_of_their_own_shape_replay(tmp_path: Path) -> None:
    snn = networks.spiking("plain").eval()
    for index, (_, neuron) in enumerate(snn.neurons()):
        neuron.set_initial(torch.rand(4, 1, 1) if index else torch.rand(4, 8, 8))
    assert_replays(snn, tmp_path, torch.rand(3, *networks.SHAPE))


def test_encoders_come_back(tmp_path: Path) -> None:
    poisson = networks.spiking("plain", encoder=ss.Poisson(scale=2.0, signed=False, seed=7)).eval()
    found = there_and_back(poisson, tmp_path).encoder
    assert isinstance(found, ss.Poisson)
    assert (found.scale, found.signed, found.seed) == (2.0, False, 7)
    unseeded = there_and_back(networks.spiking("plain", encoder=ss.Poisson()), tmp_path).encoder
    assert isinstance(unseeded, ss.Poisson)
    assert unseeded.seed is None
    events = networks.spiking("plain", encoder=ss.Events()).eval()
    assert isinstance(there_and_back(events, tmp_path).encoder, ss.Events)
    for snn, images in ((poisson, torch.rand(2, 3, 8, 8)), (events, torch.rand(4, 2, 3, 8, 8))):
        assert_replays(snn, tmp_path, images)


@given(leak=st.floats(2**-10, 1, width=32), threshold=st.floats(2**-10, 2**10, width=32))
def test_a_leak_and_a_threshold_come_back_to_the_last_bit(leak: float, threshold: float) -> None:
    snn = own.spiking(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ss.LIF(leak, threshold), input_shape=(2,))
    logging.disable(logging.WARNING)
    try:
        ((_, neuron),) = from_nir(to_nir(snn)).neurons()
    finally:
        logging.disable(logging.NOTSET)
    ((_, before),) = snn.neurons()
    assert neuron.leak == before.leak
    assert neuron.threshold == before.threshold


def test_the_graph_is_flat_and_says_what_nir_has_no_field_for(tmp_path: Path) -> None:
    graph = to_nir(own.resnet20(ss.LIF(0.5, 1.0, "hard"), timesteps=6), input_shape=(3, 32, 32))
    assert isinstance(graph, nir.NIRGraph)
    read = nir.read(graph.write(tmp_path / "student.nir"))
    kinds = {type(node).__name__ for node in read.nodes.values()}
    assert kinds == {"Input", "Output", "Conv2d", "LIF", "AvgPool2d", "Flatten", "Affine"}
    said = {key: value for key, value in read.metadata.items() if key != "producer"}
    assert said.pop("input_shape").tolist() == [3, 32, 32]
    assert said == {
        "dt": 1e-4,
        "timesteps": 6,
        "reset": "hard",
        "order": "reset-then-leak",
        "comparison": ">=",
        "encoder": "direct",
        "read_out": "mean",
    }
    assert read.metadata["producer"].startswith("spikestill ")
    neuron = read.nodes["layer2_block1_relu"]
    for field in ("tau", "r", "v_leak", "v_reset", "v_threshold"):
        assert getattr(neuron, field).shape == (32, 16, 16)
    assert np.allclose(neuron.tau, 2e-4)
    assert np.allclose(neuron.r, 2.0)
    assert neuron.metadata["path"] == "layer2.block1.relu"
    arriving = sorted(start for start, end in read.edges if end == "layer2_block1_relu")
    assert arriving == ["layer2_block1_branch_conv2", "layer2_block1_shortcut_conv"]
    assert read.nodes["stem_conv"].bias.shape == (16,)
    assert [end for _, end in read.edges].count("output") == 1
    assert read.nodes["head_flatten"].start_dim == 0


def test_another_input_shape_than_the_one_it_was_made_with(tmp_path: Path) -> None:
    snn = networks.spiking("residual").eval()
    found = from_nir(to_nir(snn, input_shape=(3, 12, 10)).write(tmp_path / "student.nir"))
    assert replay(snn, found, torch.rand(2, 3, 12, 10)).differing == 0
    with pytest.raises(ss.InputError, match="does not run on images of 1x8x8"):
        to_nir(snn, input_shape=(1, 8, 8))


@pytest.mark.parametrize("rule", RULES)
def test_readers_that_would_compute_something_else_are_named(rule: str, caplog: pytest.LogCaptureFixture) -> None:
    snn = networks.spiking("plain", ss.LIF(0.5, 0.15, **RULES[rule])).eval()  # type: ignore[arg-type]
    to_nir(snn)
    said = caplog.text
    assert ("soft reset" in said) == (snn.neurons().__next__()[1].rule.reset == "soft")
    assert ("SpikingJelly, snnTorch" in said) == ("soft reset" in said)
    caplog.clear()
    next(iter(snn.neurons()))[1].set_initial(0.1)
    to_nir(snn)
    assert "initial membrane potentials" in caplog.text


def test_layers_of_different_rules_are_refused() -> None:
    snn = networks.spiking("plain")
    snn.body.set_submodule("2", ss.LIF(reset="hard"))
    with pytest.raises(ss.InputError, match="reset in 2 different ways"):
        to_nir(snn)


def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = to_nir(networks.spiking("plain")).write(tmp_path / "student.nir")
    before = path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(ss.InputError, match=r"cannot write .*student\.nir: No space left"):
        to_nir(networks.spiking("plain")).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------- damaged and foreign


def refused(source: Any, match: str, **given: Any) -> None:
    with pytest.raises(ss.InputError, match=match) as caught:
        from_nir(source, **given)
    assert "\n" not in str(caught.value)


def written(folder: Path, name: str = "residual") -> Path:
    return to_nir(networks.spiking(name, ss.LIF(0.5, 0.15, "hard")).eval()).write(folder / "student.nir")


def test_a_missing_file_and_another_file_are_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "student.nir", "cannot read .*student.nir: there is no such file")
    (tmp_path / "text.nir").write_text("not at all")
    refused(tmp_path / "text.nir", "text.nir is damaged or no NIR file")
    with h5py.File(tmp_path / "other.nir", "w") as file:
        file["weights"] = np.zeros(3)
    refused(tmp_path / "other.nir", "other.nir is damaged or no NIR file")


@pytest.mark.trial
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", "student.nir is damaged: the HDF5 library finds no end within 0.5 s"),
        ("import os; os.abort()", r"student.nir is damaged: it ends the process that reads it \(status -6\)"),
    ],
)
def test_a_file_that_its_library_does_not_survive_is_one_line(
    program: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    monkeypatch.setattr("spikestill.export.nir_file._TRIAL", program)
    monkeypatch.setattr("spikestill.export.nir_file._TRIAL_SECONDS", 0.5)
    refused(path, message)


@pytest.mark.trial
@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual"])
def test_numbers_that_lie_in_other_files_are_refused(kind: str, tmp_path: Path) -> None:
    path, secret = written(tmp_path), tmp_path / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["weight"] = np.zeros((2, 2))
    with h5py.File(path, "r+") as file:
        metadata = file["node"]
        if kind == "external link":
            metadata["stolen"] = h5py.ExternalLink(str(secret), "/weight")
        elif kind == "soft link":
            metadata["stolen"] = h5py.SoftLink("/version")
        elif kind == "external storage":
            metadata.create_dataset("stolen", (4,), "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout((2, 2), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "weight", (2, 2))
            metadata.create_virtual_dataset("stolen", layout)
    refused(path, "it holds a link .'stolen'" if "link" in kind else "the numbers of 'stolen' lie in other files")


@pytest.mark.trial
def test_a_group_that_holds_itself_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    with h5py.File(path, "r+") as file:
        file["node"]["again"] = file["node"]
    refused(path, "is damaged or no NIR file")


@pytest.mark.trial
def test_a_file_that_is_read_elsewhere_first(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert from_nir(path).timesteps > 0
    path.write_bytes(path.read_bytes()[:200])
    refused(path, "student.nir is damaged or no NIR file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_line(share: float, tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "student.nir is damaged or no NIR file")


def test_a_file_without_an_array_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    with h5py.File(path, "a") as file:
        del file["node/nodes/_0/weight"]
    refused(path, "student.nir is damaged or no NIR file: .*weight")


@pytest.mark.parametrize("dt", [1e-3, 5e-5, 2e-4])
def test_a_time_step_that_does_not_fit_the_neurons_is_refused(dt: float, tmp_path: Path) -> None:
    path = written(tmp_path)
    with h5py.File(path, "a") as file:
        file["node/metadata/dt"][()] = dt
    refused(path, rf"node '\w+' \(tau = 0.0002, r = 2\) does not fit dt = {dt:g} s")


@pytest.mark.parametrize("key", ["dt", "timesteps", "reset", "order"])
def test_missing_metadata_are_named(key: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    with h5py.File(path, "a") as file:
        del file["node/metadata"][key]
    refused(path, f"student.nir does not say its {key}: give what it leaves open, as in from_nir")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("dt", -1.0, "dt must be positive, not -1"),
        ("dt", "fast", "dt, timesteps and read_out_from must be numbers"),
        ("timesteps", 0, "number of time steps must be at least 1"),
        ("reset", "zero", "unknown reset 'zero'"),
        ("order", "never", "unknown order 'never'"),
        ("comparison", ">", "contradicts itself: order reset-then-leak does not fire at >"),
        ("encoder", "phase", "unknown encoder 'phase'"),
    ],
)
def test_metadata_that_make_no_sense_are_one_line(key: str, value: Any, match: str) -> None:
    graph = to_nir(networks.spiking("plain", ss.LIF(reset="hard")))
    graph.metadata[key] = value
    refused(graph, match)


def foreign(*nodes: nir.NIRNode) -> nir.NIRGraph:
    first = nir.Affine(np.ones((3, 2), np.float32), np.zeros(3, np.float32))
    return nir.NIRGraph.from_list(first, *nodes)


def leaky(**fields: Any) -> nir.LIF:
    full = {"tau": 2e-4, "r": 2.0, "v_leak": 0.0, "v_reset": 0.0, "v_threshold": 1.0, **fields}
    return nir.LIF(**{name: np.broadcast_to(np.array(value), 3).copy() for name, value in full.items()})


STATED = {"dt": 1e-4, "timesteps": 3, "reset": "hard", "order": "leak-then-subtract"}


def test_the_file_of_another_tool_is_read_by_what_is_stated() -> None:
    graph = foreign(leaky(v_threshold=2.5))
    refused(graph, "the NIR graph does not say its dt, timesteps, reset, order")
    snn = from_nir(graph, **STATED)
    # v_t = 0.5 v_{t-1} + x with x = 2: 2, 3 > 2.5 fires and resets, 2.
    assert snn.unroll(torch.ones(1, 2))[:, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert from_nir(graph, **{**STATED, "timesteps": 7}).timesteps == 7


def test_what_another_tool_means_otherwise_is_refused_by_node() -> None:
    refused(foreign(leaky(r=1.0)), r"node 'lif' \(tau = 0.0002, r = 1\) does not fit dt", **STATED)
    refused(foreign(leaky(v_threshold=[1.0, 2.0, 3.0])), "node 'lif' has 3 values of v_threshold", **STATED)
    refused(foreign(leaky(v_reset=-0.5)), "node 'lif' has v_reset = -0.5: only 0", **STATED)
    refused(foreign(leaky(v_leak=0.5)), "node 'lif' has v_leak = 0.5: only 0", **STATED)
    refused(foreign(leaky(tau=np.nan)), "node 'lif' has 1 values of tau: .*finite", **STATED)
    three = np.ones(3)
    others = (nir.LI(three, three, three), nir.Delay(three), nir.CubaLIF(*[three] * 5), foreign(leaky()))
    for other in others[:3]:
        refused(foreign(other), f"node '\\w+' is a {type(other).__name__}, which has no equivalent", **STATED)
    ends = {"in": nir.Input(np.array([2])), "inside": others[3], "out": nir.Output(np.array([3]))}
    nested = nir.NIRGraph(ends, [("in", "inside"), ("inside", "out")], type_check=False)
    refused(nested, "node 'inside' is a NIRGraph, which has no equivalent", **STATED)
    refused(nir.NIRGraph.from_list(nir.Flatten(np.array([2, 3, 4]), 1, -1)), "flattens only some of its axes", **STATED)


def test_what_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    refused(path, "student.nir says reset = hard, not soft: leave out reset", reset="soft")
    assert from_nir(path, timesteps=9, reset="hard").timesteps == 9


def test_a_recurrent_graph_is_refused() -> None:
    weight = np.ones((3, 3), np.float32)
    nodes = {"in": nir.Input(np.array([3])), "a": nir.Linear(weight), "b": leaky(), "out": nir.Output(np.array([3]))}
    edges = [("in", "a"), ("a", "b"), ("b", "a"), ("b", "out")]
    refused(nir.NIRGraph(nodes, edges, type_check=False), "is recurrent", **STATED)


def test_a_single_node_is_no_network(tmp_path: Path) -> None:
    nir.write(tmp_path / "node.nir", nir.Linear(np.ones((2, 2), np.float32)))
    refused(tmp_path / "node.nir", "node.nir is damaged or no NIR file")


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    with pytest.raises(ss.InputError, match=r"this needs nir .*pip install 'spikestill\[export\]'"):
        to_nir(networks.spiking("plain"))


# --------------------------------------------------------------------------------------------------- other readers


def by_spikingjelly(path: Path, snn: SpikingNetwork, images: Tensor) -> tuple[int, int]:
    """How many spikes differ in SpikingJelly's network of a file, and of how many."""
    pytest.importorskip("nirtorch")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange.from_nir")
    net, theirs = exchange.import_from_nir(path), {}
    names = {str(node.metadata["path"]): name for name, node in nir.read(path).nodes.items() if "path" in node.metadata}
    for path_of, name in names.items():
        spikes = theirs.setdefault(path_of, [])
        getattr(net, name).register_forward_hook(lambda _, __, given, spikes=spikes: spikes.append(given[0]))
    ours: dict[str, Tensor] = {}
    state = None
    with torch.no_grad():
        snn.unroll(images, observe=lambda name, spikes: ours.__setitem__(name, spikes.clone()))
        for _ in range(snn.timesteps):
            _, state = net(images, state)
    assert ours.keys() == theirs.keys()
    differing = sum(int((spikes != torch.stack(theirs[name])).sum()) for name, spikes in ours.items())
    return differing, sum(spikes.numel() for spikes in ours.values())


@pytest.mark.parametrize("leak", [0.9, 1.0])
def test_spikingjelly_replays_a_resnet20_with_hard_reset(leak: float, tmp_path: Path) -> None:
    snn = own.resnet20(ss.LIF(leak, 1.0, "hard"), timesteps=2)
    path = to_nir(snn).write(tmp_path / "student.nir")
    assert by_spikingjelly(path, snn, torch.randn(1, 3, 32, 32)) == (0, 376_832)


@pytest.mark.parametrize("name", ["dense", "grouped", "shared", "linear"])
def test_spikingjelly_replays_what_it_would_refuse_unfolded(name: str, tmp_path: Path) -> None:
    snn = networks.spiking(name, ss.LIF(0.5, 0.15, "hard")).eval()
    path = to_nir(snn).write(tmp_path / "student.nir")
    assert by_spikingjelly(path, snn, torch.rand(3, *networks.SHAPE))[0] == 0


def test_spikingjelly_does_ignore_a_soft_reset(tmp_path: Path) -> None:
    snn = networks.spiking("residual", ss.LIF(0.5, 0.15, "soft")).eval()
    path = to_nir(snn).write(tmp_path / "student.nir")
    assert by_spikingjelly(path, snn, torch.rand(3, *networks.SHAPE))[0] > 0


def by_snntorch(path: Path, image: Tensor, timesteps: int) -> Tensor:
    """The read-outs ``[T, K]`` of snnTorch's network of a file, for one image."""
    pytest.importorskip("nirtorch")
    importing = pytest.importorskip("snntorch.import_nir")
    with contextlib.redirect_stdout(io.StringIO()):
        net, state = importing.import_from_nir(nir.read(path)), None
    steps = []
    with torch.no_grad():
        for _ in range(timesteps):
            step, state = net(image, state)
            steps.append(step.reshape(-1))
    return torch.stack(steps)


@pytest.mark.parametrize("name", ["average pooling", "residual", "plain"])
def test_snntorch_replays_at_batch_1_but_for_a_soft_reset(name: str, tmp_path: Path) -> None:
    image = torch.rand(1, *networks.SHAPE)
    for reset in ("hard", "soft"):
        snn = networks.spiking(name, ss.LIF(0.5, 0.15, reset), timesteps=8).eval()  # type: ignore[arg-type]
        theirs = by_snntorch(to_nir(snn).write(tmp_path / "student.nir"), image, 8)
        with torch.no_grad():
            furthest = (theirs - snn.unroll(image)[:, 0]).abs().max()
        assert furthest < 1e-6 if reset == "hard" else furthest > 1e-3


def test_what_other_readers_refuse_they_refuse_aloud(tmp_path: Path) -> None:
    image = torch.rand(1, *networks.SHAPE)
    leakless = to_nir(networks.spiking("plain", ss.IF(0.15, "hard")).eval()).write(tmp_path / "leakless.nir")
    with pytest.raises(AssertionError, match="r != 1 not supported"):
        by_snntorch(leakless, image, 1)
    made = own.spiking(own.EXACT["map on a shortcut"](), ss.LIF(0.5, 0.15, "hard"))
    scaled = to_nir(made).write(tmp_path / "scaled.nir")
    with pytest.raises(ValueError, match="Unknown node type .*Scale"):
        by_snntorch(scaled, image, 1)
    with pytest.raises(ValueError, match="Unknown node type .*Scale"):
        by_spikingjelly(scaled, made, image)
