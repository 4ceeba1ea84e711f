import json
from dataclasses import asdict

import pytest
import torch

from benchmarks import events, networks
from benchmarks.__main__ import main
from benchmarks.check import check, similarity
from benchmarks.comparison import run
from benchmarks.contestants import INFERENCE, TRAINING, create
from benchmarks.figures import draw
from benchmarks.measure import interleaved, peak_memory, spread
from benchmarks.report import as_markdown, tables
from benchmarks.setting import Setting
from spikestill.dynamics import spike_convolution

TINY = Setting("vgg", timesteps=3, batch=3, width=1 / 16, image_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("network", networks.NETWORKS)
@pytest.mark.parametrize("task", ["training", "inference"])
def test_all_contestants_compute_the_same_network(task: str, network: str) -> None:
    setting = Setting(network, timesteps=3, batch=3, width=1 / 8, image_size=16)
    names = list(TRAINING if task == "training" else INFERENCE)
    results = check(task, names, networks.create(setting), setting)
    assert {name: sum(result["differing"]) for name, result in results.items()} == dict.fromkeys(names, 0)
    assert all(result["same"] for result in results.values())
    for name, result in results.items():
        assert (sum(result["compared"]) > 0) is not name.startswith("ann")


@pytest.mark.parametrize("name", [name for name, kind in TRAINING.items() if kind.twin and "compiled" not in name])
def test_gradients_agree_with_the_statistics_of_the_batch(name: str) -> None:
    ann, batch = networks.create(TINY), TINY.data()
    assert similarity(name, TRAINING[name].twin, ann, TINY, batch, frozen=False) == pytest.approx(1, abs=1e-6)


def test_check_sees_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.two_pass.THRESHOLD", 0.9)
    results = check("training", ["two-pass", "spikingjelly"], networks.create(TINY), TINY)
    assert not results["two-pass"]["same"]
    assert results["spikingjelly"]["same"]


@pytest.mark.parametrize("name", [name for name in TRAINING if "compiled" not in name])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_step_trains(name: str, precision: str) -> None:
    setting = Setting("vgg", timesteps=2, precision=precision, batch=3, width=1 / 16, image_size=8)
    contestant = create("training", name, networks.create(setting), setting)
    batch = setting.data()
    losses = [float(contestant.step(*batch)) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_compiled_contestants_leave_no_batchnorm_in_inference() -> None:
    ann = networks.create(TINY)
    for name, kind in INFERENCE.items():
        modules = create("inference", name, ann, TINY).net.modules()
        norms = [module for module in modules if "BatchNorm" in type(module).__name__]
        assert bool(norms) is not kind.folds


@pytest.mark.slow
def test_interleaved_takes_turns() -> None:
    order: list[str] = []
    times = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, "cpu", seconds=0, least=2, most=5
    )
    assert order == ["a", "b", "a", "b"]
    assert [len(times["a"]), len(times["b"])] == [2, 2]
    assert len(interleaved({"a": lambda: None}, "cpu", seconds=60, least=1, most=3)["a"]) == 3


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "lower": 2.0, "upper": 4.0, "rounds": 5}
    assert spread([2.0]) == {"median": 2.0, "lower": 2.0, "upper": 2.0, "rounds": 1}


def test_peak_memory_sees_a_large_block() -> None:
    assert 60 * 2**20 < peak_memory(lambda: torch.ones(16 * 2**20).sum(), "cpu") < 200 * 2**20


@pytest.mark.slow
def test_tables_and_page_of_a_run(tmp_path) -> None:
    timing = {"seconds": 0.0, "least": 2, "most": 2}
    training = ["spikestill-rate", "spikingjelly", "two-pass", "ann"]
    results = [
        run({"task": task, "setting": asdict(TINY), "contestants": names, "timing": timing})
        for task, names in (("training", training), ("inference", ["spikestill", "snntorch"]), ("memory", ["ann"]))
    ]
    losses = [results[0]["contestants"][name]["first_loss"] for name in training[:3]]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert json.loads(json.dumps(results)) == results
    by_title = {table.title.split(",")[0].split(":")[0].split("?")[0]: table for table in tables(results)}
    ratio = results[0]["contestants"]["spikingjelly"]["time"]["median"]
    ratio /= results[0]["contestants"]["spikestill-rate"]["time"]["median"]
    rows = {row[0]: row[1] for table in tables(results) for row in table.rows}
    assert rows["spikingjelly / spikestill-rate"] == f"{ratio:.2f}"
    assert list(by_title) == ["Training step", "Inference", "Peak memory of a training step", "The same network"]
    assert all(row[-1] == "yes" for row in by_title["The same network"].rows)
    page = as_markdown(results, tables(results), draw(results, tmp_path))
    assert "| two-pass / spikestill-rate |" in page
    layers = results[0]["spikes"]
    assert f"spikes, vgg, T = 3: {min(layers):.0%} to {max(layers):.0%}" in page
    assert all(0 < layer < 1 for layer in layers)
    assert (tmp_path / "time.png").exists()
    assert (tmp_path / "memory.png").exists()


@pytest.mark.slow
def test_convolutions_by_events_beside_dense_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spike_convolution, "_MOST_SPIKES", spike_convolution._MOST_SPIKES)
    monkeypatch.setattr(events, "LAYERS", ((64, 8),))
    events.main(["--densities", "0.1", "--images", "8", "--seconds", "0"])
    printed = capsys.readouterr().out
    assert printed.count("64, 8 x 8") == 4
    for pair in (events.forward, events.gradient):
        dense, by_events = (work() for work in pair((8, 64, 8, 8), 0.1, torch.float32))
        dense = dense[1] if isinstance(dense, tuple) else dense
        torch.testing.assert_close(dense, by_events, rtol=1e-4, atol=1e-4)


def test_finished_comparisons_are_kept(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    setting = Setting("vgg", timesteps=1, batch=2, width=1 / 16, image_size=8, threads=1)
    timing = {"seconds": 0.0, "least": 1, "most": 1}
    job = {"task": "training", "setting": asdict(setting), "contestants": ["ann"], "timing": timing}
    (tmp_path / "training-vgg-float32-T1.json").write_text(json.dumps(run(job)), encoding="utf-8")
    options = "--tasks training --networks vgg --timesteps 1 --precisions float32 --contestants ann --batch 2"
    options += " --width 0.0625 --image-size 8 --seconds 0 --least-rounds 1 --rounds 1 --device cpu --threads 1"
    main([*options.split(), "--out", str(tmp_path)])
    assert "kept" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))[0]["job"] == job
    assert (tmp_path / "results.md").exists()


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--networks", "vgg,lenet"])
    assert "'lenet' is none of vgg, resnet18" in capsys.readouterr().err
