"""What ``benchmarks.gpu`` has measured, on disk after every measurement: JSON, and the same as tables."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Record"]

Value = float | int | str


class Record:
    """Measurements and failures, in ``results.json`` and ``results.md`` of a folder.

    Args:
        folder: which.
        content: what the JSON file holds.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder, self.content = folder, content

    @classmethod
    def begin(cls, folder: Path, command: Sequence[str]) -> Record:
        """A new one, without measurements."""
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        content = {"command": list(command), "began": began, "measurements": [], "failures": [], "seconds": {}}
        record = cls(folder, content)
        record.write()
        return record

    @classmethod
    def open(cls, folder: Path) -> Record:
        """The one in a folder."""
        return cls(folder, json.loads((folder / "results.json").read_text(encoding="utf-8")))

    def describe(self, environment: Mapping[str, Any]) -> None:
        """Keep versions and hardware, once."""
        self.content.setdefault("environment", dict(environment))
        self.write()

    def add(self, part: str, name: str, **values: Value) -> None:
        """Keep a measurement: a row of the part's table, a value for each of its columns."""
        self.content["measurements"].append({"part": part, "name": name, "values": values})
        self.write()

    def fail(self, part: str, name: str, reason: str) -> None:
        """Keep why something was not measured."""
        self.content["failures"].append({"part": part, "name": name, "reason": reason})
        self.write()

    def spent(self, part: str, seconds: float) -> None:
        """Keep how long a part took."""
        self.content["seconds"][part] = round(seconds, 1)
        self.write()

    def write(self) -> None:
        """Both files, each whole or as before."""
        texts = {"results.json": json.dumps(self.content, indent=1) + "\n", "results.md": self._page()}
        for name, text in texts.items():
            part = self.folder / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(self.folder / name)

    def _page(self) -> str:
        lines = ["# On a GPU", "", f"Begun {self.content['began']}."]
        environment = self.content.get("environment", {})
        lines += ["", *(f"- {name}: {_said(value)}" for name, value in environment.items())] if environment else []
        for part in dict.fromkeys(row["part"] for row in self.content["measurements"]):
            rows = [row for row in self.content["measurements"] if row["part"] == part]
            lines += ["", f"## {part}", "", *_table(rows)]
        if ratios := _ratios(self.content["measurements"]):
            lines += ["", "## Training steps: how many times as long as ours", "", *_table(ratios)]
        if self.content["failures"]:
            lines += ["", "## Not measured", ""]
            lines += [f"- {entry['part']}, {entry['name']}: {entry['reason']}" for entry in self.content["failures"]]
        return "\n".join(lines) + "\n"


def _ratios(measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The others' medians over ours, by network and T; ours over the floor, (T + 2) / 3 steps of the ANN."""
    steps: dict[str, dict[str, float]] = {}
    floors: dict[str, float] = {}
    for row in measurements:
        values = row["values"]
        if row["part"] in ("training", "fastest") and "ms" in values:
            steps.setdefault(f"{values['network']}, T = {values['T']}", {})[values["contestant"]] = values["ms"]
            if values["contestant"].startswith("ann"):
                floors[values["network"]] = min(values["ms"], floors.get(values["network"], values["ms"]))
    found = []
    for name, medians in steps.items():
        network, _, timesteps = name.partition(", T = ")
        values = {
            f"{other} / {ours.removeprefix('spikestill-')}": medians[other] / medians[ours]
            for ours in ("spikestill-rate", "spikestill-bptt")
            for other in medians
            if ours in medians and not other.startswith(("spikestill", "ann"))
        }
        if network in floors and "spikestill-rate" in medians:
            values["rate / floor"] = medians["spikestill-rate"] / (floors[network] * (int(timesteps) + 2) / 3)
        if values:
            found.append({"name": name, "values": values})
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row["values"]))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in rows:
        cells = [_said(row["values"].get(column, "")) for column in columns]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return lines


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
