"""``spikestill train RECIPE [--key value]``."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.cli.training import run_training

__all__ = ["run"]


def run(words: Sequence[str]) -> None:
    """Train an ANN.

    Raises:
        InputError: for wrong options, data or folders.
    """
    from spikestill.recipes import AnnRecipe

    run_training("train", AnnRecipe, words, default="ann")
