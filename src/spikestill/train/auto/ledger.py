"""``auto.json``: the outcome of every step, so that the same command goes on where the last one ended."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikestill.files import is_partial
from spikestill.runs import Run
from spikestill.train.auto.settings import Settings
from spikestill.types import InputError

__all__ = ["Ledger"]

_FILE = "auto.json"
_WRITTEN = (_FILE, "table.csv", "report.html")


class Ledger:
    """The folder of one ``auto``, and what was found in it so far.

    Args:
        folder: where it lies.
        settings: what is asked for.
        overwrite: begin anew where something was found already.

    Raises:
        InputError: when the folder holds something else, or the outcome of other settings.
    """

    def __init__(self, folder: Path, settings: Settings, *, overwrite: bool = False) -> None:
        self.folder = folder
        self._run = Run(folder)
        self._since = time.monotonic()
        self._content: dict[str, Any] = {"settings": settings.as_json(), "steps": {}, "reasons": [], "seconds": 0.0}
        if not (folder / _FILE).exists():
            if folder.exists() and not (folder.is_dir() and all(map(is_partial, folder.iterdir()))):
                raise InputError(f"{folder} is neither empty nor of an earlier auto: choose another --out")
        elif overwrite:
            self._clear()
        else:
            self._continue(settings)

    def _continue(self, settings: Settings) -> None:
        content = self._run.read_json(_FILE)
        wanted = {"settings": dict, "steps": dict, "reasons": list, "seconds": int | float}
        if not all(isinstance(content.get(name), kind) for name, kind in wanted.items()):
            raise InputError(f"{self.folder / _FILE} is damaged: remove it, or take --overwrite")
        other = settings.differences(content["settings"])
        if other:
            raise InputError(
                f"{self.folder} was started with another {', '.join(other)}: give the same, choose another --out, or "
                "begin anew with --overwrite"
            )
        self._content = content

    @property
    def seconds(self) -> float:
        """How long it took up to the last step, all continuations together."""
        return float(self._content["seconds"])

    @property
    def reasons(self) -> list[str]:
        """Every choice and its reason, a sentence each."""
        return list(self._content["reasons"])

    def reason(self, text: str) -> None:
        """Keep why something was chosen; said again by a continued command, it is kept once."""
        if text not in self._content["reasons"]:
            self._content["reasons"].append(text)

    def find(self, name: str) -> Any:
        """The outcome of a step; None where it was not reached."""
        return self._content["steps"].get(name)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The outcome of a step: what is stored, or else what ``work`` returns (plain values), stored at once."""
        steps = self._content["steps"]
        if name not in steps:
            steps[name] = work()
            now = time.monotonic()
            self._content["seconds"] = round(self.seconds + now - self._since, 2)
            self._since = now
            self._run.write_json(_FILE, self._content)
        return steps[name]

    def write_table(self, rows: list[dict[str, Any]]) -> None:
        """Write the table beside it."""
        self._run.write_table("table.csv", rows)

    def _clear(self) -> None:
        """Remove what an earlier auto has left; it can be done again wherever it is cut short."""
        for path in self.folder.iterdir():
            if (path / "recipe.yaml").exists() and not path.is_symlink():
                Run(path).clear()
                if not any(path.iterdir()):
                    shutil.rmtree(path)
        for name in reversed(_WRITTEN):
            (self.folder / name).unlink(missing_ok=True)
