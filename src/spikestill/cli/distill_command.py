"""``spikestill distill RECIPE | --method NAME [--key value]``."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.cli.training import run_training

__all__ = ["run"]


def run(words: Sequence[str]) -> None:
    """Train a spiking student.

    Raises:
        InputError: for wrong options, data, teachers or folders.
    """
    from spikestill.recipes import DistillRecipe

    run_training("distill", DistillRecipe, words, default=None)
