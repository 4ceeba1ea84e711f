"""Run folders for the page, made by hand: what a training writes, without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spikestill.report.evidence import (
    ConfidenceBin,
    EarlyExit,
    Evidence,
    Layer,
    MapPair,
    Mistake,
    Picture,
    RasterLayer,
    Sample,
    SpikeTrain,
    Teacher,
)
from spikestill.runs import Run

CLASSES = ("cat", "dog", "a class with a long name")
LAYERS = ("layer1.relu1", "layer2.relu1")


def picture(side: int = 8, channels: int = 1) -> Picture:
    generator = torch.Generator().manual_seed(side)
    pixels = torch.randint(256, (side, side, channels), generator=generator, dtype=torch.uint8)
    return Picture.of(pixels.numpy().tobytes(), (side, side), channels)


def evidence(classes: tuple[str, ...] = CLASSES, spikes: bool = True, **changed: Any) -> Evidence:
    count = len(classes)
    samples = tuple(Sample(picture(), label, (label + (label == 1)) % count, label) for label in range(count))
    fields: dict[str, Any] = {
        "images": 30 * count,
        "classes": classes,
        "confusion": tuple(tuple(28 if a == b else 1 for b in range(count)) for a in range(count)),
        "calibration_error": 0.034,
        "bins": (ConfidenceBin(0.42, 0.5, 10), ConfidenceBin(0.95, 0.9, 80)),
        "samples": samples,
        "attention": (MapPair("layer1", tuple(picture(4) for _ in samples)),),
        "mistakes": (Mistake(picture(12, 3), 1, 2 % count, 1, confidence=0.87),),
    }
    if spikes:
        train = SpikeTrain((0, 1, 1), (1, 3))
        fields |= {
            "timesteps": 4,
            "teacher": Teacher("runs/teacher", 0.97, 0.93),
            "early_exit": (EarlyExit(0.2, 1.0, 0.5), EarlyExit(0.8, 2.4, 0.91), EarlyExit(None, 4.0, 0.92)),
            "layers": tuple(Layer(name, 64, 0.2, 0.05, 0.0, 0.3) for name in LAYERS),
            "attention": (
                MapPair("layer1", tuple(picture(4) for _ in samples), "layer2", tuple(picture(2) for _ in samples)),
            ),
            "raster": (RasterLayer(LAYERS[0], (train, SpikeTrain((1, 0, 0), ()))),),
        }
    return Evidence(**(fields | changed))


def student(
    folder: Path,
    seed: int = 0,
    accuracy: float = 0.92,
    recorded: Evidence | None = None,
    rates: dict[str, float] | None = None,
    **changed: Any,
) -> str:
    """The run of a student of four time steps, with its evidence unless that is left out."""
    recipe: dict[str, Any] = {"method": "blockwise", "student": "vgg5", "data": "digits", "width": 1.0, "seed": seed}
    recipe |= {"timesteps": 4, "gradient": "rate", "encoder": {"name": "direct"}, "epochs": 3, "out": str(folder)}
    recipe |= {"initialise": "random", "teacher": "runs/teacher", "source": None, "objectives": [{"name": "blockwise"}]}
    operations = {"accumulates": 3e5, "multiply_accumulates": 1e4, "ann_multiply_accumulates": 4e5}
    figures: dict[str, Any] = {
        "test_accuracy": accuracy,
        "test_accuracy_by_timestep": {str(step): accuracy - 0.1 * (4 - step) for step in range(1, 5)},
        "test_spikes_per_neuron": 0.7,
        "test_rates": rates or dict.fromkeys(LAYERS, 0.2),
        "test_synaptic_operations": 6e5,
        "test_multiply_accumulates": 2e4,
        "test_ann_multiply_accumulates": 8e5,
        "test_energy_nanojoules": 632.0,
        "test_ann_energy_nanojoules": 3680.0,
        "test_operations_by_layer": {"layer1.conv1": operations, "layer2.conv1": operations},
        "test_operations_not_counted": ["LIF", "bias"],
    }
    return _written(folder, recipe | changed, figures, "student", recorded)


def ann(folder: Path, seed: int = 0, accuracy: float = 0.97, recorded: Evidence | None = None, **changed: Any) -> str:
    recipe = {"method": "ann", "model": "vgg5", "data": "digits", "width": 1.0, "seed": seed, "epochs": 3}
    return _written(folder, recipe | changed, {"test_accuracy": accuracy}, "model", recorded)


def _written(
    folder: Path, recipe: dict[str, Any], figures: dict[str, Any], kind: str, recorded: Evidence | None
) -> str:
    run = Run(folder)
    run.write_yaml("recipe.yaml", recipe)
    run.write_network(kind, {"weight": torch.zeros(1)}, {"model": "vgg5"})
    packages = {"torch": "2.15.0"}
    run.write_json("environment.json", {"python": "3.11.7", "packages": packages, "command": ["spikestill", "distill"]})
    rows = [
        {"epoch": epoch, "train_loss": 2 / epoch, "train_accuracy": 0.3 * epoch, "train_blockwise": 1 / epoch}
        | {"validation_loss": 2.2 / epoch, "validation_accuracy": 0.29 * epoch}
        for epoch in range(1, 4)
    ]
    run.write_table("metrics.csv", rows)
    if recorded is not None:
        recorded.write(run)
    shared = {"method": recipe["method"], "network": "vgg5", "seed": recipe["seed"], "training_seconds": 90.0}
    shared |= {"data": "digits", "images": {"train": 100, "validation": 10, "test": 90}, "parameters": 1234}
    run.write_json("result.json", shared | {"best_epoch": 3, "validation_accuracy": 0.87} | figures)
    return str(folder)
