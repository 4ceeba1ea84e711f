"""``spikestill export RUN --to FILE``."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spikestill.cli.signature import call
from spikestill.recipes.words import spelled
from spikestill.text import visible
from spikestill.types import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from spikestill.graph import SpikingNetwork
    from spikestill.recipes import NetworkDescription
    from spikestill.runs import Run

__all__ = ["export_run", "run"]

_MOST_IMAGES = 10_000
_SUFFIXES = (".nir", ".onnx")


def run(words: Sequence[str]) -> None:
    """Parse and export."""
    call(export_run, "export", [f"{word}=true" if spelled(word) == "--hard_reset" else word for word in words])


def export_run(
    run: str,
    to: str = "",
    images: int = 4,
    replay: Literal["data", "noise"] = "data",
    data_dir: str | None = None,
    hard_reset: bool = False,
) -> None:
    """Write a run's spiking network for other tools, read the file back and replay it against the network.

    A NIR file must give every spike again, an ONNX file every prediction; where it does not, the exit status is 1.

    Args:
        run: a run folder.
        to: the file; its suffix says the format: .nir, or .onnx for the network unrolled over its time steps.
        images: how many are replayed.
        replay: on images of the run's validation data, or on seeded noise, which needs no data.
        data_dir: where named data sets lie, if elsewhere than at training.
        hard_reset: refuse a soft reset, which no other reader of NIR knows, in place of warning of it.

    Raises:
        InputError: for a run that holds no spiking network, a network that the format cannot express, data that cannot
            be read, and a file that cannot be written.
    """
    from spikestill.recipes import NetworkDescription
    from spikestill.runs import Run

    path = Path(to)
    if path.suffix not in _SUFFIXES:
        raise InputError(f"--to must name a file that ends in {' or '.join(_SUFFIXES)}, not '{to}'")
    if images < 1:
        raise InputError(f"--images must be at least 1, not {images}")
    if images > _MOST_IMAGES:
        raise InputError(f"--images must be at most {_MOST_IMAGES:,}, not {images}")
    opened = Run.open(run)
    if opened.kind != "student":
        raise InputError(f"{run} holds an ANN: only spiking networks are exported; make one by convert or distill")
    description = NetworkDescription.of_run(opened)
    network: SpikingNetwork = description.load(opened)  # type: ignore[assignment]
    if hard_reset:
        _require_hard_reset(network, opened)
    shown = (
        _noise(network, description, images) if replay == "noise" else _images(opened, description, images, data_dir)
    )
    is_right = _nir(network, path, shown) if path.suffix == ".nir" else _onnx(network, path, shown)
    if not is_right:
        print(visible(f"spikestill: {path} does not compute what the network does: do not use it"), file=sys.stderr)
        raise SystemExit(1)


def _nir(network: SpikingNetwork, path: Path, images: Tensor) -> bool:
    """Write, read back and compare, in two steps: what folding does, and what the file does."""
    from spikestill import export

    export.to_nir(network).write(path)
    folded = export.folded(network)
    by_file = export.replay(folded, export.from_nir(path), images)
    exact = copy.deepcopy(network).double()  # where rounding plays no part
    by_folding = export.replay(exact, export.folded(exact), images.double())
    by_rounding = export.replay(network, folded, images)
    print(visible(f"{path}: {by_file} between the file, read back, and the folded network"))
    counts = f"{by_folding.differing:,} spikes differ in double precision, {by_rounding.differing:,} in single"
    print(f"folding: {counts} between the folded network and the run's own")
    return by_file.differing == by_folding.differing == 0 and math.isfinite(by_file.logits)


def _onnx(network: SpikingNetwork, path: Path, images: Tensor) -> bool:
    from spikestill import export

    found = export.replay_onnx(export.to_onnx(network, path), network, images)
    what = f"between the file, run by onnxruntime, and the network at {network.timesteps} time steps"
    print(visible(f"{path}: {found} {what}"))
    return found.differing == 0


def _require_hard_reset(network: SpikingNetwork, run: Run) -> None:
    if any(neuron.rule.reset == "soft" for _, neuron in network.neurons()):
        folder = run.folder
        command = f"spikestill distill {folder / 'recipe.yaml'} --neuron.reset hard --out {folder}-hard"
        raise InputError(f"{folder} has a soft reset, which a hard one cannot stand for: train it so, by {command}")


def _images(run: Run, description: NetworkDescription, count: int, data_dir: str | None) -> Tensor:
    """The first images of the run's validation data, as the network takes them."""
    import torch

    from spikestill.train.loaders import load_data, make_batches
    from spikestill.train.measuring import recipe_of

    recipe = recipe_of(run, data_dir=data_dir)
    data = load_data(recipe)
    shape = data.input_shape
    if shape != description.input_shape:
        raise InputError(f"{run.folder} takes images {description.input_shape} (C, H, W), {recipe.data} has {shape}")
    for batch, _ in make_batches(recipe, data, description, "validation", torch.device("cpu")):
        return batch[:count]
    raise InputError(f"{recipe.data} has no validation images: give --replay noise")


def _noise(network: SpikingNetwork, description: NetworkDescription, count: int) -> Tensor:
    """Seeded noise, in the range of normalised images or as random events."""
    import torch

    from spikestill.nn import Events

    source = torch.Generator().manual_seed(0)
    if isinstance(network.encoder, Events):
        return (torch.rand(network.timesteps, count, *description.input_shape, generator=source) < 0.1).float()
    return torch.randn(count, *description.input_shape, generator=source)
