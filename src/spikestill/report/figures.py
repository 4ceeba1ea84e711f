"""Figures, from run folders alone."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from spikestill.files import write_atomically
from spikestill.report.comparison import Row
from spikestill.text import plot_label
from spikestill.types import InputError

__all__ = ["accuracy_over_time"]


def accuracy_over_time(rows: Sequence[Row], path: Path) -> None:
    """Draw test accuracy against the number of time steps, a line a row, an ANN as a level; bars are one deviation.

    Args:
        rows: from ``compare``.
        path: of the picture; its ending (.png, .svg, .pdf) says which format.

    Raises:
        InputError: where matplotlib is missing, the ending is unknown, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'spikestill[report]'") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        if row.timesteps is None:
            level = 100 * statistics.mean(row.accuracy[1])
            axes.axhline(level, color="black", linestyle="--", linewidth=1, label=plot_label(row.method))
            continue
        steps = sorted(row.accuracy)
        means = [100 * statistics.mean(row.accuracy[step]) for step in steps]
        spread = [100 * statistics.stdev(values) if len(values := row.accuracy[step]) > 1 else 0.0 for step in steps]
        axes.errorbar(steps, means, yerr=spread, marker="o", capsize=3, label=plot_label(row.method))
    axes.set_xlabel("time steps")
    axes.set_ylabel("test accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path, content = path if path.suffix else path.with_suffix(".png"), io.BytesIO()
    try:
        figure.savefig(content, dpi=150, format=path.suffix[1:])
    except ValueError as error:
        raise InputError(f"cannot draw {path}: {str(error).splitlines()[0]}") from error
    write_atomically(path, content.getbuffer())
