"""Figures: time and memory of a training step against the number of time steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw"]

Points = dict[str, dict[int, float]]
"""By contestant and T."""


def draw(results: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Draw what the results hold; the names of the pictures."""
    drawn = []
    for task, name, label, value in (
        ("training", "time.png", "ms a training step", _milliseconds),
        ("memory", "memory.png", "MiB at the peak of a training step", _mebibytes),
    ):
        panels = _panels([result for result in results if result["job"]["task"] == task], value)
        if panels:
            _draw(panels, label, folder / name)
            drawn.append(name)
    return drawn


def _panels(
    results: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float | None]
) -> dict[str, Points]:
    """By network and precision, what each contestant took."""
    panels: dict[str, Points] = {}
    for result in sorted(results, key=lambda result: result["job"]["setting"]["timesteps"]):
        setting = result["job"]["setting"]
        panel = panels.setdefault(f"{setting['network']}, {setting['precision']}", {})
        for name, entry in result["contestants"].items():
            taken = value(entry)
            if taken is not None:
                panel.setdefault(name, {})[setting["timesteps"]] = taken
    return panels


def _draw(panels: Mapping[str, Points], label: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels) + 2.5, 4), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    for axes, (title, points) in zip(every, panels.items(), strict=True):
        for index, name in enumerate(names):
            if name in points:
                dashed = "--" if name.endswith("-compiled") else "-"
                axes.plot(*zip(*points[name].items(), strict=True), dashed, color=f"C{index}", marker="o", label=name)
        axes.set(title=title, xlabel="time steps", ylabel=label, xscale="log", yscale="log")
        steps = sorted({step for taken in points.values() for step in taken})
        axes.set_xticks(steps, labels=[str(step) for step in steps])
        axes.xaxis.minorticks_off()
        axes.grid(alpha=0.3)
    handles = {handle.get_label(): handle for axes in every for handle in axes.get_lines()}
    figure.legend(handles=list(handles.values()), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=150)


def _milliseconds(entry: Mapping[str, Any]) -> float | None:
    return 1e3 * entry["time"]["median"] if "time" in entry else None


def _mebibytes(entry: Mapping[str, Any]) -> float | None:
    return max(entry["memory"] / 2**20, 0.1) if "memory" in entry else None
