"""Presets that convert or need no teacher, on real handwriting, to an accuracy that chance or a broken loss misses."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikestill.recipes import DistillRecipe, load
from spikestill.recipes.schema import AnnRecipe
from spikestill.runs import Run
from spikestill.train import train

pytestmark = pytest.mark.slow

SMALL = ["--data=digits", "--width=0.25", "--device=cpu"]
GRADIENT_ATTENTION = "--objectives=[{name: cross-entropy}, {name: gradient-attention}]"

# The ANN reaches about 95 %; what remains below it is what a few time steps resolve, and two epochs of training.
FLOORS: dict[str, tuple[str, list[str], float]] = {
    "conversion": ("conversion", ["--timesteps=64", "--student=vgg5"], 0.8),
    "conversion of Poisson spikes": (
        "conversion",
        ["--timesteps=64", "--student=vgg5", "--encoder.name=poisson"],
        0.75,
    ),
    "calibration": ("calibration", ["--timesteps=16", "--student=vgg5"], 0.8),
    "hybrid": ("hybrid", ["--timesteps=40", "--epochs=2"], 0.8),
    "hybrid under rate gradients": ("hybrid", ["--timesteps=40", "--epochs=2", "--gradient=rate"], 0.8),
    "hybrid with direct input": ("hybrid", ["--timesteps=20", "--epochs=2", "--encoder.name=direct"], 0.8),
    "hybrid distillation": ("hybrid-distillation", ["--timesteps=40", "--epochs=2", "--gradient=rate"], 0.8),
    "hybrid distillation with direct input": (
        "hybrid-distillation",
        ["--timesteps=20", "--epochs=2", "--encoder.name=direct"],
        0.8,
    ),
    "lasnn": ("lasnn", ["--timesteps=40", "--epochs=2"], 0.8),
    "lasnn, gradient attention": ("lasnn", ["--timesteps=40", "--epochs=2", GRADIENT_ATTENTION], 0.8),
    "lasnn under rate gradients": ("lasnn", ["--timesteps=40", "--epochs=2", "--gradient=rate"], 0.8),
    "lasnn with direct input": ("lasnn", ["--timesteps=20", "--epochs=2", "--encoder.name=direct"], 0.8),
    "lasnn, gradient attention, direct input, rate gradients": (
        "lasnn",
        ["--timesteps=20", "--epochs=2", "--encoder.name=direct", "--gradient=rate", GRADIENT_ATTENTION],
        0.8,
    ),
    "qcfs": ("qcfs", ["--student=vgg5"], 0.8),
    "diet-snn": ("diet-snn", ["--epochs=8"], 0.7),
    "self-distillation": ("self-distillation", ["--student=vgg5", "--epochs=15", "--optimiser.lr=0.05"], 0.8),
    "diet-snn under rate gradients": ("diet-snn", ["--epochs=8", "--gradient=rate"], 0.7),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stages are shared."""
    return tmp_path_factory.mktemp("presets")


def stage(folder: Path, recipe: DistillRecipe, name: str) -> list[str]:
    """The option that gives a stage, trained once for all presets that want the same."""
    wanted = recipe.stage(name)  # type: ignore[arg-type]
    if wanted is None:
        return []
    out = folder / f"{name}-{wanted.model}-{wanted.pixel_scale}-{wanted.batch_size}-{wanted.levels}"
    if not (out / "result.json").exists():
        fields = {
            field: getattr(wanted, field) for field in ("model", "model_options", "pixel_scale", "batch_size", "levels")
        }
        adam = {"epochs": 12, "optimiser": {"name": "adam", "lr": 0.003}}
        train(load(AnnRecipe, fields | adam, [*SMALL, f"--out={out}"]))
    assert Run.open(out).read_json("result.json")["test_accuracy"] > 0.9
    return [f"--{name}={out}"]


@pytest.mark.parametrize("case", FLOORS)
def test_a_preset_reaches_its_floor(case: str, folder: Path) -> None:
    method, words, floor = FLOORS[case]
    words = [*SMALL, *words, f"--out={folder / case.replace(' ', '-')}"]
    recipe = load(DistillRecipe, method, words)
    for name in ("source", "teacher"):
        words += stage(folder, recipe, name)
    result = train(load(DistillRecipe, method, words)).read_json("result.json")
    assert result["test_accuracy"] > floor


def test_label_distillation_learns_from_an_ann(folder: Path) -> None:
    (teacher,) = stage(folder, load(DistillRecipe, "hybrid", SMALL), "source")
    words = [*SMALL, teacher.replace("source", "teacher", 1), "--student=vgg5", "--epochs=8"]
    run = train(load(DistillRecipe, "label-distillation", [*words, f"--out={folder / 'label-distillation'}"]))
    assert run.read_json("result.json")["test_accuracy"] > 0.8


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
def test_spike_distillation_learns_from_a_spiking_run_under_both_gradients(folder: Path, encoder: str) -> None:
    steps = [*SMALL, "--timesteps=20", "--epochs=3", f"--encoder.name={encoder}"]
    words = [*steps, *stage(folder, load(DistillRecipe, "hybrid", steps), "source")]
    teacher = train(load(DistillRecipe, "hybrid", [*words, f"--out={folder / encoder}-teacher"]))
    for gradient in ("bptt", "rate"):
        out = folder / f"spike-distillation-{encoder}-{gradient}"
        options = [f"--gradient={gradient}", f"--teacher={teacher.folder}", f"--out={out}"]
        run = train(load(DistillRecipe, "spike-distillation", [*words, *options]))
        assert run.read_json("result.json")["test_accuracy"] > 0.8
        terms = [float(row["train_spikes"]) for row in run.read_table("metrics.csv")]
        assert 0 < terms[-1] < terms[0]
