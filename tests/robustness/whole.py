"""Whether every file of a run folder is whole, and whether two runs are the same run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["damaged", "differing", "leftovers"]

_OF_A_FINISHED_RUN = ("recipe.yaml", "environment.json")
_CLOCKS = ("training_seconds", "test_seconds", "training_peak_memory_mib")


def leftovers(folder: Path) -> list[Path]:
    """What a killed process left half written, under its temporary name."""
    return sorted(folder.rglob(".*.partial"))


def damaged(folder: Path) -> list[str]:
    """The files that are there and not whole, or should be there; temporary names do not count."""
    complaints = []
    for path in sorted(set(folder.rglob("*")) - set(leftovers(folder))):
        if path.is_dir():
            continue
        read = _READERS.get(path.suffix)
        if read is None:
            complaints.append(f"{path.name} is a stranger here")
            continue
        try:
            read(path)
        except Exception as error:  # whatever half a file can make its reader raise
            complaints.append(f"{path.name}: {type(error).__name__}: {error}")
    for result in folder.rglob("result.json"):  # of the run itself, and of its stages beside it
        names = (*_OF_A_FINISHED_RUN, *_of_network(result.parent), *_of_training(json.loads(result.read_text())))
        complaints += [f"{name} is missing" for name in names if not (result.parent / name).exists()]
    return complaints


def differing(folder: Path, reference: Path) -> list[str]:
    """The files in which two finished runs differ: weights and evidence by their bytes, figures but for the clocks."""
    found = [
        name
        for name in (*_of_network(reference), "analysis.json")
        if _content(folder / name) != _content(reference / name)
    ]
    for name, read in (("metrics.csv", _figures), ("result.json", _result)):
        if (reference / name).exists() and read(folder / name) != read(reference / name):
            found.append(name)
    return found


def _of_network(folder: Path) -> tuple[str, str]:
    kind = "student" if (folder / "student.safetensors").exists() else "model"
    return f"{kind}.json", f"{kind}.safetensors"


def _of_training(result: Mapping[str, Any]) -> tuple[str, ...]:
    return ("metrics.csv",) if result.get("epochs") else ()


def _content(path: Path) -> bytes:
    """The bytes, without where the run lies: beside it lie the networks that it learned from."""
    return path.read_bytes().replace(str(path.parent.parent).encode(), b"")


def _figures(path: Path) -> list[dict[str, str]]:
    """The rows of a table, each cell as it is written, without the clock."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def _result(path: Path) -> dict[str, Any]:
    return {name: value for name, value in json.loads(_content(path)).items() if name not in _CLOCKS}


def _mapping(value: object) -> None:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("no mapping")


def _json(path: Path) -> None:
    _mapping(json.loads(path.read_text(encoding="utf-8")))


def _yaml(path: Path) -> None:
    import yaml

    _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))


def _table(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file, strict=True))
    if not rows or {len(row) for row in rows} != {len(header)}:
        raise ValueError("rows of different lengths")
    [float(cell) for row in rows for cell in row]


def _safetensors(path: Path) -> None:
    from safetensors.torch import load_file

    _mapping(load_file(path))


def _checkpoint(path: Path) -> None:
    import torch

    _mapping(torch.load(path, map_location="cpu", weights_only=True))


def _page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("no end")


_READERS: Mapping[str, Callable[[Path], None]] = {
    ".json": _json,
    ".yaml": _yaml,
    ".csv": _table,
    ".safetensors": _safetensors,
    ".ckpt": _checkpoint,
    ".html": _page,
}
