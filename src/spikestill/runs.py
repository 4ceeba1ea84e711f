"""The run folder: what a training leaves behind, and the only code that reads or writes it.

A run is a folder: ``recipe.yaml`` (fully resolved), ``environment.json``, ``metrics.csv``, ``checkpoints/``, the
weights (``student.safetensors`` of a spiking network, ``model.safetensors`` of an ANN) beside their description
(``student.json`` or ``model.json``), ``analysis.json`` and ``result.json``, which marks a finished run.

Every file is written to a temporary name, synchronised and renamed, so that a crash leaves the old file or the new one,
never half of one. Weights are read as safetensors only: nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from spikestill.files import is_partial, lock_path, open_folder, regular, write_atomically, writing
from spikestill.types import InputError
from spikestill.values import is_plain, read_yaml, require_shallow

__all__ = [
    "NETWORKS",
    "WITHOUT_MEANING",
    "HeldError",
    "Run",
    "environment",
    "read_metadata",
    "read_weights",
    "write_weights",
]

WITHOUT_MEANING = ("out", "device", "devices", "strategy", "checkpoint_minutes", "workers", "logger")
"""Fields of a recipe that say where and how a training runs, not what it computes: a resume may change them."""

NETWORKS = ("teacher", "source", "start")
"""Fields of a recipe that name another network: a run folder, a file of weights or a model."""

_FILES = (
    "recipe.yaml",
    "environment.json",
    "metrics.csv",
    "student.safetensors",
    "student.json",
    "model.safetensors",
    "model.json",
    "analysis.json",
    "result.json",
    "report.html",
    "mlflow.db",
)

_OF_LOGGERS = ("tensorboard", "wandb")
"""Folders in which live loggers keep what they have shown."""


_METADATA = "spikestill"


class HeldError(InputError):
    """Another process works on the run."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @classmethod
    def refuse_used(cls, folder: str | Path, *, resume: bool = False, overwrite: bool = False) -> Run:
        """The run at ``folder``, when a training may be written there; nothing is touched yet.

        Args:
            folder: an empty or absent folder, or a run folder together with one of the two permissions.
            resume: an unfinished run may be continued, a finished one is left as it is.
            overwrite: an earlier run may be replaced.

        Raises:
            InputError: when the folder holds a run, or other files, and no permission covers that; and for a run that
                goes on and has a link in it which would be followed.
        """
        run = cls(Path(folder))
        if run.folder.exists() and not run.folder.is_dir():
            raise InputError(f"{run.folder} is a file, not a folder: choose another --out")
        # A process that was killed in its first write leaves no more than that file under its temporary name.
        if not run.folder.exists() or all(is_partial(path) for path in run.folder.iterdir()):
            return run
        if not (run.folder / "recipe.yaml").exists():
            raise InputError(f"{run.folder} is neither empty nor a run folder: choose another --out")
        if not overwrite:
            run._check_links()
        if not (resume or overwrite):
            state = "a finished run" if run.finished else "an unfinished run"
            way_out = "continue it with --resume, replace it with --overwrite, or choose another --out"
            raise InputError(f"{run.folder} holds {state}: {way_out}")
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The finished run at ``folder``.

        Raises:
            InputError: when there is none, or when it has not been finished.
        """
        run = cls(Path(folder))
        if not (run.folder / "recipe.yaml").exists():
            raise InputError(f"{run.folder} is no run folder (it has no recipe.yaml)")
        if run.kind is None:
            raise InputError(f"the run at {run.folder} has no weights yet: finish it with --resume")
        return run

    @property
    def finished(self) -> bool:
        """Whether the training ended and its result was written."""
        return (self.folder / "result.json").exists()

    @property
    def kind(self) -> str | None:
        """``student`` for a spiking network, ``model`` for an ANN, None before the weights were written."""
        return next((kind for kind in ("student", "model") if (self.folder / f"{kind}.json").exists()), None)

    @property
    def checkpoints(self) -> Path:
        """Where the training's own checkpoints lie (for resuming; not needed to use the network)."""
        return self.folder / "checkpoints"

    @property
    def weights_file(self) -> Path | None:
        """Where the weights are; None before they were written, and where they were left out."""
        path = self.folder / f"{self.kind}.safetensors"
        return path if path.is_file() else None

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the weights: what a run is, wherever it lies; None where there are none."""
        if self.weights_file is None:
            return None
        with self.weights_file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def held(self, *, wait: bool) -> Iterator[bool]:
        """Hold the folder for this process, so that two do not train one run; a process that ends lets it go.

        Where the system knows no such locks (Windows, some network folders) nothing is held.

        Args:
            wait: for another process that holds it, to let it go.

        Yields:
            Whether no other process holds it.

        Raises:
            InputError: when the folder cannot be made.
        """
        if sys.platform == "win32" or self.folder.is_file():  # a file is refused where the folder is looked into
            yield True
            return
        new = [folder for folder in self.folder.parents if not folder.exists()]
        with writing(self.folder):
            handle = lock_path(self.folder, lambda: open_folder(self.folder), wait=wait)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                with contextlib.suppress(OSError):  # only where nothing was written into it
                    for folder in (self.folder, *new):
                        folder.rmdir()  # while the lock is held: whoever waits for it finds that the folder is gone
                os.close(handle)

    def _check_links(self) -> None:
        """Refuse links out of the folder where files are not written under a temporary name and renamed."""
        written_into = (self.checkpoints, *(self.folder / name for name in (*_OF_LOGGERS, "mlflow.db")))
        inside = self.folder.resolve()
        for place in written_into:
            for path in (place, *(() if place.is_symlink() else place.rglob("*"))):
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    raise InputError(
                        f"{path} is a link that leads out of the run folder: remove it, nothing follows it"
                    )

    def clear(self) -> None:
        """Remove an earlier run's files; anything else in the folder stays, and what a link in it leads to.

        What makes it a finished run goes first and what makes it a run last: wherever this is cut short, the folder can
        be cleared again.
        """
        with writing(self.folder):
            recipe, *others = _FILES
            for name in reversed(others):
                (self.folder / name).unlink(missing_ok=True)
            for folder in (self.checkpoints, *(self.folder / name for name in _OF_LOGGERS)):
                if folder.is_symlink():
                    folder.unlink()
                shutil.rmtree(folder, ignore_errors=True)
            (self.folder / recipe).unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write one text file atomically.

        Raises:
            InputError: when it cannot be written, and for a name in it that is not valid UTF-8.
        """
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            culprit = ascii(text[max(error.start - 20, 0) : error.end + 20])
            raise InputError(f"cannot write {name}: a name is not valid UTF-8 (near {culprit}): rename it") from error
        write_atomically(self.folder / name, content)

    def write_json(self, name: str, value: Mapping[str, Any], indent: int | None = 2) -> None:
        """Write one JSON file atomically; without an ``indent``, all in one line."""
        self.write_text(name, json.dumps(value, indent=indent) + "\n")

    def write_yaml(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one YAML file atomically, keys in the given order."""
        self.write_text(name, yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True))

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one CSV file atomically; the first row gives the columns."""
        text = io.StringIO()
        if rows:
            table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        self.write_text(name, text.getvalue())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one JSON file.

        Raises:
            InputError: when it is missing or not a JSON object.
        """
        return self._read(name, json.loads)

    def read_yaml(self, name: str) -> dict[str, Any]:
        """Read one YAML file (safe loader).

        Raises:
            InputError: when it is missing or not a YAML mapping of plain values.
        """
        fields = self._read(name, read_yaml)
        if not is_plain(fields):
            raise InputError(f"{self.folder / name} is damaged: it holds more than texts, numbers, lists and mappings")
        return fields

    def read_table(self, name: str) -> list[dict[str, str]]:
        """Read one CSV file as written by :meth:`write_table`.

        Raises:
            InputError: when it is missing or no table.
        """
        path = self.folder / name
        try:
            with regular(path).open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, csv.Error) as error:
            raise InputError(f"{path} is damaged: {error}") from error

    def write_network(
        self,
        kind: str,
        state: Mapping[str, Tensor],
        description: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write weights (``<kind>.safetensors``) and what rebuilds their network (``<kind>.json``)."""
        write_weights(self.folder / f"{kind}.safetensors", state, metadata)
        self.write_json(f"{kind}.json", description)

    def read_weights(self) -> dict[str, Tensor]:
        """The network's weights, on the CPU.

        Raises:
            InputError: when the file is missing or damaged.
        """
        return read_weights(self.folder / f"{self.kind}.safetensors")

    def _read(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        path = self.folder / name
        try:
            value = require_shallow(parse(regular(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
            raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error
        if not isinstance(value, dict):
            raise InputError(f"{path} is damaged: a mapping was expected")
        return value


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        path: of the file.
        state: the tensors by name.
        metadata: plain values about them, which :func:`read_metadata` gives back.

    Raises:
        InputError: when the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    # Safetensors refuses aliased and strided tensors; a copy per tensor makes channels_last weights plain.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    # Under one key: safetensors writes several in an order that differs from process to process.
    told = None if metadata is None else {_METADATA: json.dumps(dict(metadata))}
    write_atomically(path, save(plain, told))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, onto the CPU.

    Raises:
        InputError: when it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(regular(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {path}: {str(error).splitlines()[0]}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What :func:`write_weights` was told about the weights; nothing of files without it.

    Raises:
        InputError: when the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(path), framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {path}: {str(error).splitlines()[0]}") from error
    return found if isinstance(found, dict) else {}


def environment() -> dict[str, Any]:
    """Versions, commit and hardware, as ``environment.json`` keeps them."""
    from importlib import metadata

    packages = {}
    for name in ("spikestill", "torch", "torchvision", "lightning", "numpy", "timm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "packages": packages,
        "commit": _commit(),
        # The program by name: where it is installed is the user's own affair, and a run is made to be shown.
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the source tree this package runs from; None where there is no git or no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
