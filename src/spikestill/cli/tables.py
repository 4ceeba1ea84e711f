"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spikestill.text import visible

if TYPE_CHECKING:
    from rich.measure import Measurement
    from rich.table import Table

__all__ = ["print_accuracy", "print_rows"]

_MOST_COLUMNS = 6
_LONGEST_NAME = 9
_LONGEST_LINE = 1000


def print_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> None:
    """Print one table; the first ``texts`` columns are words, the others are figures, which are never broken up.

    Where a terminal is too narrow, names of columns are broken into lines, then words are folded; what is no terminal
    has lines of any length.
    """
    from rich.console import Console

    header = [visible(name) for name in header]
    rows = [[visible(cell) for cell in row] for row in rows]
    console = Console()
    table, width = _table(header, rows, texts), _LONGEST_LINE
    if console.is_terminal:
        if _widths(table).maximum > console.width:
            table = _table([*header[:texts], *map(_in_lines, header[texts:])], rows, texts)
        width = max(console.width, _widths(table).minimum)
    print(visible(title))
    Console(width=width, markup=False, emoji=False).print(table)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> Table:
    from rich.table import Table

    table = Table()
    for index, (name, *cells) in enumerate(zip(header, *rows, strict=True)):
        if index < texts:
            table.add_column(name, min_width=_longest(word for cell in (name, *cells) for word in cell.split()))
        else:
            longest = _longest([*name.splitlines(), *cells])
            table.add_column(name, justify="right", no_wrap=True, min_width=longest)
    for row in rows:
        table.add_row(*row)
    return table


def _widths(table: Table) -> Measurement:
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=_LONGEST_LINE, markup=False, emoji=False)
    return Measurement.get(console, console.options, table)


def _longest(parts: Iterable[str]) -> int:
    return max(map(len, parts), default=0)


def _in_lines(name: str) -> str:
    """A long name of a column, a word a line."""
    return name.replace(" ", "\n") if len(name) > _LONGEST_NAME else name


def print_accuracy(title: str, figures: Mapping[str, Any], prefix: str = "") -> None:
    """Print the figures of one network: accuracy, by time step where it spikes, its spikes and operations.

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
    if f"{prefix}synaptic_operations" in figures:
        _print_operations(figures, prefix)


def _print_operations(figures: Mapping[str, Any], prefix: str) -> None:
    """Print the operations and the energy of a spiking network beside those of its ANN, and what they leave out."""

    def row(network: str, *names: str) -> list[str]:
        *operations, energy = (figures[f"{prefix}{name}"] if name else None for name in names)
        millions = ["" if count is None else f"{count / 1e6:,.3f}" for count in operations]
        return [network, *millions, f"{energy:,.1f}"]

    rows = [
        row("SNN", "synaptic_operations", "multiply_accumulates", "energy_nanojoules"),
        row("ANN", "", "ann_multiply_accumulates", "ann_energy_nanojoules"),
    ]
    header = ("an image", "SynOps, millions", "MACs, millions", "energy, nJ")
    print_rows("operations of the layers, and their energy at 45 nm (an estimate)", header, rows)
    print(visible(f"not counted: {', '.join(figures[f'{prefix}operations_not_counted'])}"))


def _few(steps: Sequence[str]) -> list[str]:
    """The time steps that fit on a terminal: of many, the powers of two and the last."""
    if len(steps) <= _MOST_COLUMNS:
        return list(steps)
    powers = [step for step in steps[:-1] if int(step).bit_count() == 1]
    return [*powers[1 - _MOST_COLUMNS :], steps[-1]]
