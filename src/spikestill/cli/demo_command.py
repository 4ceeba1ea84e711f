"""``spikestill demo``: an ordinary training and ``auto``, on the embedded handwriting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from spikestill.cli.auto_command import print_result
from spikestill.cli.signature import call
from spikestill.text import visible

__all__ = ["demo", "run"]


def run(words: Sequence[str]) -> None:
    """Parse and show."""
    call(demo, "demo", words)


def demo(
    out: str = "runs/demo",
    timesteps: int = 4,
    tolerance: float = 0.5,
    epochs: int = 30,
    budget: str = "3m",
    seed: int = 0,
    overwrite: bool = True,
) -> None:
    """Train an ANN on scikit-learn's digits, and find the best spiking network of it.

    Args:
        out: the folder of the ANN's run (ann) and of what auto finds (auto).
        timesteps: T of the spiking network.
        tolerance: how many percentage points below the ANN are good enough.
        epochs: of the ANN, and the most of the student.
        budget: time for auto, such as 90s or 3m.
        seed: of both.
        overwrite: replace an earlier demo; false refuses to.

    Raises:
        InputError: when a folder is in use or cannot be written.
    """
    from spikestill.recipes import AnnRecipe, load
    from spikestill.train import auto, train

    began = time.monotonic()
    root = Path(out)
    words = ["--data=digits", "--model=vgg7", "--width=0.5", "--batch-size=32", "--optimiser.lr=0.05"]
    words += [f"--epochs={epochs}", f"--seed={seed}", f"--out={root / 'ann'}"]
    ann = train(load(AnnRecipe, "ann", words), overwrite=overwrite)
    result = auto(
        str(ann.folder),
        timesteps=timesteps,
        tolerance=tolerance,
        budget=budget,
        epochs=epochs,
        seed=seed,
        out=root / "auto",
        overwrite=overwrite,
    )
    print_result(result)
    print(visible(f"runs: {ann.folder}, {result.run.folder}  ({time.monotonic() - began:.0f} s)"))
