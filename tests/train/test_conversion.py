"""Students that are converted from an ANN: as runs, rebuilt from their files, and trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spikestill.convert import names
from spikestill.graph import SpikingNetwork
from spikestill.recipes import AnnRecipe, Conversion, DistillRecipe, Encoder, NetworkDescription, Neuron, load
from spikestill.runs import Run
from spikestill.train import evaluate, train
from spikestill.types import InputError

StudentMaker = Callable[..., DistillRecipe]
METHODS = [name for name in names() if name != "quantise"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An ANN that knows something, with BatchNorm and biases."""
    out = tmp_path_factory.mktemp("source") / "run"
    fields = {"model": "vgg5", "width": 0.25, "epochs": 5, "optimiser": {"name": "adam", "lr": 0.003}}
    run = train(load(AnnRecipe, fields | {"device": "cpu", "out": str(out)}))
    assert run.read_json("result.json")["test_accuracy"] > 0.85
    return run


def converted(recipe: DistillRecipe, source: Run, method: str, **fields: object) -> DistillRecipe:
    fields = {"initialise": method, "source": str(source.folder), "epochs": 0, "neuron": Neuron(name="if")} | fields
    return dataclasses.replace(recipe, timesteps=64, **fields)  # type: ignore[arg-type]


def network(run: Run) -> SpikingNetwork:
    loaded = NetworkDescription.of_run(run).load(run)
    assert isinstance(loaded, SpikingNetwork)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_converted_network_is_a_run_that_is_rebuilt_from_its_files(
    student_recipe: StudentMaker, trained: Run, method: str
) -> None:
    run = train(converted(student_recipe(limit_train=None), trained, method))
    result = run.read_json("result.json")
    assert result["epochs"] == result["best_epoch"] == 0
    assert "training_peak_memory_mib" not in result  # nothing was trained
    assert result["test_synaptic_operations"] > 0
    assert len(result["test_accuracy_by_timestep"]) == 64
    # Below the ANN by what 64 steps cannot resolve, and five times chance.
    assert result["test_accuracy"] > 0.5
    assert evaluate(run.folder)["accuracy"] == result["test_accuracy"]
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(run).unroll(images, 20), network(run).unroll(images, 20))


@pytest.mark.slow
def test_the_options_reach_the_method(student_recipe: StudentMaker, trained: Run) -> None:
    by_layer = Conversion(options={"by": "layer"})
    recipe = converted(student_recipe(), trained, "threshold-balancing", conversion=by_layer)
    whole = network(train(recipe))
    options = {"by": "layer", "factor": 0.5}
    scaled = dataclasses.replace(recipe, out=f"{recipe.out}-2", conversion=Conversion(options=options))
    for (_, one), (_, half) in zip(whole.neurons(), network(train(scaled)).neurons(), strict=True):
        torch.testing.assert_close(half.threshold, one.threshold / 2)
    few = dataclasses.replace(recipe, out=f"{recipe.out}-3", conversion=dataclasses.replace(by_layer, images=1))
    (_, first), *_ = network(train(few)).neurons()
    assert first.threshold < next(whole.neurons())[1].threshold


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("threshold-balancing", {"by": "layer"}),
        ("shift", {"by": "layer"}),
        ("shift", {}),
        ("shift", {"batch_norm": "keep"}),
        ("best", {"batch_norm": "keep"}),
    ],
    ids=str,
)
def test_training_goes_on_from_the_conversion(
    student_recipe: StudentMaker, trained: Run, method: str, options: dict[str, object], gradient: str
) -> None:
    neuron = Neuron(leak=0.9, threshold=3.0, learn=("threshold",))
    conversion = Conversion(options=options)
    start = converted(student_recipe(), trained, method, neuron=neuron, gradient=gradient, conversion=conversion)
    start = dataclasses.replace(start, timesteps=8)
    begun = network(train(start))
    assert all(neuron.leak.item() == pytest.approx(0.9) for _, neuron in begun.neurons())
    thresholds = [neuron.threshold.item() for _, neuron in begun.neurons()]
    if "by" in options:
        assert len(set(thresholds) - {3.0}) == 4
    else:
        assert thresholds == pytest.approx([1.0] * 4)
    kept = any(isinstance(module, torch.nn.BatchNorm2d) for module in begun.body.modules())
    assert kept == ("batch_norm" in options)
    trained_on = dataclasses.replace(start, out=f"{start.out}-2", epochs=1, batch_size=32)
    run = train(trained_on)
    ended = network(run)
    assert [name for name, _ in ended.neurons()] == [name for name, _ in begun.neurons()]
    unmoved = [
        name for (name, a), b in zip(begun.named_parameters(), ended.parameters(), strict=True) if torch.equal(a, b)
    ]
    assert not unmoved
    assert run.read_json("result.json")["best_epoch"] == 1


@pytest.mark.slow
def test_a_resume_meets_the_same_conversion(student_recipe: StudentMaker, trained: Run, tmp_path: Path) -> None:
    source = train(
        dataclasses.replace(
            AnnRecipe(model="vgg5", width=0.25, epochs=1, batch_size=32, device="cpu", limit_train=160),
            pixel_scale="signed",
            out=str(tmp_path / "signed"),
        )
    )
    recipe = converted(
        student_recipe(), source, "normalise", encoder=Encoder(name="poisson"), epochs=2, gradient="rate", batch_size=32
    )
    whole = train(recipe)
    parts = dataclasses.replace(recipe, out=f"{recipe.out}-2", checkpoint_minutes=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikestill.train.callbacks.Journal.on_train_epoch_end", _stop)
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    resumed = train(parts, resume=True)
    first, second = whole.read_weights(), resumed.read_weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_pixels_must_be_scaled_alike(student_recipe: StudentMaker, trained: Run) -> None:
    recipe = converted(student_recipe(), trained, "normalise", encoder=Encoder(name="poisson"))
    with pytest.raises(
        InputError, match=r"pixels of another scale than the student's \(signed\): .*--pixel-scale signed"
    ):
        train(recipe)


def test_the_source_must_have_the_students_architecture(student_recipe: StudentMaker, trained: Run) -> None:
    recipe = converted(student_recipe(student="vgg7"), trained, "normalise")
    with pytest.raises(InputError, match="normalise needs an ANN of the student's architecture and width; vgg7 is"):
        train(recipe)
    with pytest.raises(InputError, match="the source 'absent' is no run folder"):
        train(dataclasses.replace(recipe, source="absent"))


def test_unknown_options_are_refused_before_the_run_is_begun(student_recipe: StudentMaker, trained: Run) -> None:
    recipe = converted(student_recipe(), trained, "shift", conversion=Conversion(options={"percentil": 99}))
    with pytest.raises(InputError, match="unknown option of method shift 'percentil': did you mean 'percentile'"):
        train(recipe)
    assert not Path(recipe.folder).exists()


def test_an_ann_of_quantised_activations_is_trained_rebuilt_and_converted(
    student_recipe: StudentMaker, trained: Run, tmp_path: Path
) -> None:
    fields = {"model": "vgg5", "width": 0.25, "epochs": 1, "device": "cpu", "start": str(trained.folder), "levels": 4}
    source = train(load(AnnRecipe, fields | {"optimiser": {"lr": 0.01}, "out": str(tmp_path / "quantised")}))
    stored = NetworkDescription.of_run(source)
    assert stored.levels == 4
    found = stored.load(source)
    thresholds = [value.item() for name, value in found.named_parameters() if "threshold" in name]
    assert len(thresholds) == 4
    run = train(converted(student_recipe(), source, "quantise"))
    assert evaluate(run.folder, timesteps=[4])["accuracy"] > 0.5
    with pytest.raises(InputError, match="quantise"):
        train(converted(student_recipe(out=str(tmp_path / "plain")), trained, "quantise"))


def test_a_start_of_another_architecture_is_refused(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the start .* is no vgg7 of this width"):
        train(load(AnnRecipe, {"model": "vgg7", "start": str(trained.folder), "out": str(tmp_path / "run")}))
