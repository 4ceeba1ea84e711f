"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["print_accuracy", "print_rows"]

_MOST_COLUMNS = 6


def print_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table; the first column is text, the others are figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    print(title)
    Console().print(table)


def print_accuracy(title: str, figures: Mapping[str, Any], prefix: str = "") -> None:
    """Print the figures of one network: accuracy, by time step where it spikes, and its spikes.

    Args:
        title: above the table.
        figures: as ``train.evaluate`` gives them, or a run's ``result.json``.
        prefix: what the figures' names begin with there.
    """
    steps = figures.get(f"{prefix}accuracy_by_timestep")
    if steps is None:
        print_rows(title, ("", "accuracy"), [("ANN", f"{figures[f'{prefix}accuracy']:.2%}")])
        return
    shown = _few(list(steps))
    header = ["", *(f"t = {step}" for step in shown), "spikes per neuron"]
    row = ["SNN", *(f"{steps[step]:.2%}" for step in shown), f"{figures[f'{prefix}spikes_per_neuron']:.3f}"]
    print_rows(title, header, [row])


def _few(steps: Sequence[str]) -> list[str]:
    """The time steps that fit on a terminal: of many, the powers of two and the last."""
    if len(steps) <= _MOST_COLUMNS:
        return list(steps)
    powers = [step for step in steps[:-1] if int(step).bit_count() == 1]
    return [*powers[1 - _MOST_COLUMNS :], steps[-1]]
