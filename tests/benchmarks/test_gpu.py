from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import gpu, gpu_kernels, gpu_parts, networks
from benchmarks.gpu_job import Job
from benchmarks.gpu_record import Record
from benchmarks.gpu_resnet18 import accuracy, train_for
from spikestill.data import Batches, load
from spikestill.dynamics import NeuronRule, plain
from spikestill.dynamics.layout import Channels


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def job(folder: Path, part: str, seconds: float = 60.0) -> Job:
    return Job(part, Record.begin(folder, []), "cpu", True, 4, "digits", time.monotonic() + seconds)


def test_what_is_measured_is_on_disk_at_once_and_as_tables(tmp_path: Path) -> None:
    record = Record.begin(tmp_path, ["python"])
    assert read(tmp_path)["measurements"] == []
    ms = {"spikestill-rate": 2.0, "spikestill-bptt": 4.0, "spikingjelly": 6.0, "ann": 1.5}
    for name, value in ms.items():
        record.add("training", f"vgg, T = 4, {name}", network="vgg", T=4, contestant=name, ms=value)
        assert read(tmp_path)["measurements"][-1]["values"]["ms"] == value
    record.add("fastest", "vgg, T = 1, ann-compiled", network="vgg", T=1, contestant="ann-compiled", ms=0.5)
    record.fail("graphs", "vgg", "no GPU")
    record.spent("training", 3.14159)
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| vgg, T = 4, spikingjelly | vgg | 4 | spikingjelly | 6 |" in page
    # Rate against SpikingJelly 3, BPTT 1.5; the floor is (4 + 2) / 3 of the faster ANN's 0.5 ms, so 2.
    assert "| vgg, T = 4 | 3 | 1.5 | 2 |" in page
    assert "- graphs, vgg: no GPU" in page
    again = Record.open(tmp_path)
    assert again.content["seconds"] == {"training": 3.1}
    again.add("memory", "x", MiB=1.0)
    assert len(read(tmp_path)["measurements"]) == 6
    assert not list(tmp_path.glob("*.part"))


def test_the_fused_passes_are_compared_with_the_plain_ones(tmp_path: Path) -> None:
    one = job(tmp_path, "kernels")
    gpu_kernels.compare_kernels(one)
    rows = [row for row in read(tmp_path)["measurements"] if row["part"] == "kernels"]
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        assert row["values"]["differing"] == 0
        assert row["values"]["potentials"] == 0
        assert row["values"]["gradients"] < (1e-2 if row["name"].startswith("bfloat16") else 1e-4)
    assert read(tmp_path)["failures"] == []


def test_a_pass_that_differs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

        @staticmethod
        def spikes(*arguments: Any) -> Any:
            spikes, last = plain.spikes(*arguments)
            spikes[0, 3] = 1 - spikes[0, 3]
            return spikes, last

    monkeypatch.setattr(gpu_kernels, "passes_for", lambda *arguments: Wrong())
    channels = Channels(4, 1)
    found = gpu_kernels.difference(job(tmp_path, "kernels"), NeuronRule(), torch.float32, 3, 16, channels)
    assert found["differing"] == 1
    monkeypatch.setattr(gpu_kernels, "passes_for", lambda *arguments: plain)
    with pytest.raises(RuntimeError, match="there are no fused passes"):
        gpu_kernels.difference(job(tmp_path, "kernels"), NeuronRule(), torch.float32, 3, 16, channels)


def test_what_fails_is_written_down_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gpu_parts.create

    def create(task: str, name: str, *arguments: Any) -> Any:
        if name == "spikingjelly":
            raise ModuleNotFoundError("No module named 'spikingjelly'\nfurther")
        return whole(task, name, *arguments)

    monkeypatch.setattr(gpu_parts, "create", create)
    gpu_parts._compared(job(tmp_path, "training"), "training", "vgg", 2, ["spikingjelly", "ann"], 0.0)
    content = read(tmp_path)
    (failure,) = content["failures"]
    assert failure["reason"] == "ModuleNotFoundError: No module named 'spikingjelly'"
    assert [row["values"]["contestant"] for row in content["measurements"]] == ["ann"]
    gpu_parts._graphs(job(tmp_path, "graphs"))
    assert {entry["reason"] for entry in read(tmp_path)["failures"]} == {"RuntimeError: CUDA graphs need a GPU"}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["training", "inference"])
def test_contestants_are_compared(part: str, tmp_path: Path) -> None:
    gpu_parts._PARTS[part](job(tmp_path, part, 600))
    content = read(tmp_path)
    assert content["failures"] == []
    rows = [row["values"] for row in content["measurements"] if row["part"] == part]
    assert {row["network"] for row in rows} == set(networks.NETWORKS)
    assert all(row["lower"] <= row["ms"] <= row["upper"] for row in rows)
    checks = [row["values"] for row in content["measurements"] if row["part"] == "the same network?"]
    assert all(row["differing"] == 0 for row in checks)


def test_nothing_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    gpu_parts._compared(job(tmp_path, "training", -1.0), "training", "vgg", 2, ["ann"], 0.0)
    content = read(tmp_path)
    assert content["measurements"] == []
    assert content["failures"][0]["reason"] == "no time was left"


def test_a_network_is_trained_for_its_time_at_a_rate_that_falls(tmp_path: Path) -> None:
    data = load("digits", validation=0)
    batches = Batches(data.train, batch_size=64, mean=data.mean, std=data.std, shuffle=True, drop_last=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    one = job(tmp_path, "resnet18")
    one.toy = False
    steps, seconds = train_for(one, network, None, batches, 0.5)
    assert steps > 10
    assert 0.5 <= seconds < 5
    test = Batches(data.test, batch_size=64, mean=data.mean, std=data.std)
    assert accuracy(one, network, test) > 0.5


def test_names_that_are_no_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "kernels,grafs"])
    assert "'grafs' is none of kernels, training" in capsys.readouterr().err
    assert set(gpu.PARTS) == set(gpu_parts._PARTS)


@pytest.mark.slow
def test_parts_at_toy_size_and_a_part_that_is_cut_off(tmp_path: Path) -> None:
    parts = "memory,resnet18"
    gpu.main(["--toy", "--minutes", "5", "--out", str(tmp_path / "whole"), "--parts", parts])
    content = read(tmp_path / "whole")
    measured = {row["part"] for row in content["measurements"]}
    assert measured == {"memory", "resnet18"}
    assert all(entry["reason"] == "no time was left" for entry in content["failures"])
    assert content["environment"]["cores"]
    options = gpu._parsed(["--toy", "--out", str(tmp_path / "whole")])
    gpu._run("memory", options, 60.0, 0.2, {})
    assert read(tmp_path / "whole")["failures"][-1]["reason"] == "cut off after 0 seconds"
    assert read(tmp_path / "whole")["measurements"] == content["measurements"]
