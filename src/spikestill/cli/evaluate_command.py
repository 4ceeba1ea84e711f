"""``spikestill evaluate RUN --timesteps 1,2,4``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from spikestill.cli.signature import call, numbers
from spikestill.cli.tables import print_accuracy

__all__ = ["evaluate_run", "run"]


def run(words: Sequence[str]) -> None:
    """Parse and evaluate."""
    call(evaluate_run, "evaluate", words)


def evaluate_run(
    run: str,
    timesteps: str | None = None,
    split: Literal["test", "validation"] = "test",
    data: str | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    precision: Literal["float32", "bf16"] | None = None,
) -> None:
    """Measure a run's network: accuracy at each number of time steps, and spikes.

    Args:
        run: a run folder.
        timesteps: the numbers of time steps to read the network out at, as in 1,2,4; by default all up to its own T.
        split: test or validation.
        data: other data than the run's, with the same classes.
        data_dir: where named data sets lie, if elsewhere than at training.
        device: cpu, cuda or auto.
        precision: float32 or bf16; by default that of the training.

    Raises:
        InputError: when run or data cannot be used, or do not fit each other.
    """
    from spikestill.train import evaluate

    steps = None if timesteps is None else numbers(timesteps, "--timesteps")
    result = evaluate(
        run, timesteps=steps, split=split, data=data, data_dir=data_dir, device=device, precision=precision
    )
    print_accuracy(f"{run} ({split}, {result['images']} images)", result)
