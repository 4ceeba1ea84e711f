"""Small valid files of every format that is read, each with the reader that a command calls."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spikestill.recipes import DistillRecipe, NetworkDescription, load
from spikestill.recipes.names import presets
from spikestill.runs import Run
from tests.robustness.mutations import Kind

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        kind: what its files are made of.
        write: makes a valid file in an empty folder, with what belongs to it, and returns it.
        read: reads it as a command does.
    """

    kind: Kind
    write: Callable[[Path], Path]
    read: Callable[[Path], object]


def _write_recipe(folder: Path) -> Path:
    (folder / "mine.yaml").write_bytes(presets()["rate-bp"].read_bytes())
    return folder / "mine.yaml"


def _read_recipe(file: Path) -> object:
    return load(DistillRecipe, file)


_EXPERIMENT = """
seeds: [0, 1]
layout: table-2
common: {data: digits, width: 0.25}
students: {timesteps: 2}
runs:
  teacher: {recipe: ann, model: vgg5, seeds: [0]}
  vgg5/lasnn: {recipe: labels-only, student: vgg5, teacher: {run: teacher}, objectives: [{name: logits}]}
"""


def _write_experiment(folder: Path) -> Path:
    (folder / "mine.yaml").write_text(_EXPERIMENT)
    return folder / "mine.yaml"


def _read_experiment(file: Path) -> object:
    from spikestill.recipes.experiment import load_experiment

    return load_experiment(file)


def _run(folder: Path) -> Run:
    """A finished run: the files of a real one, made once."""
    from spikestill.train import train

    made = folder.parent / "a-run"
    if not made.exists():
        fields = {"width": 0.25, "limit_train": 96, "epochs": 1, "batch_size": 32, "device": "cpu", "logger": "none"}
        shared = {"method": "labels-only", "student": "vgg5", "timesteps": 2, "out": str(made)}
        train(load(DistillRecipe, {**fields, **shared}))
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return Run(folder)


def _file_of_run(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        return _run(folder).folder / name

    return write


def _read_network(file: Path) -> object:
    run = Run(file.parent)
    return NetworkDescription.of_run(run).load(run)


def _read_page(file: Path) -> object:
    from spikestill.report.page import rendered

    return rendered([str(file.parent)])


def _read_table(file: Path) -> object:
    from spikestill.report.layouts import laid_out

    return laid_out("plain", [str(file.parent)])


def _read_result(file: Path) -> object:
    """As ``report``, ``compare`` and, as far as it needs no images, ``verify`` do."""
    from spikestill.train import verify
    from spikestill.types import InputError

    (file.parent / "student.safetensors").unlink(missing_ok=True)
    refusals = []
    for read in (_read_page, _read_table, lambda file: verify(file.parent)):
        try:
            read(file)
        except InputError as error:  # the others must not stumble either
            refusals.append(error)
    if refusals:
        raise refusals[0]
    return None


def _read_checkpoint(file: Path) -> object:
    from spikestill.train.callbacks import AtomicCheckpoints

    return AtomicCheckpoints().load_checkpoint(file)


def _write_weights(folder: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": _network().state_dict()}, folder / "teacher.pth")
    return folder / "teacher.pth"


def _network() -> torch.nn.Module:
    from spikestill import models

    return models.create("vgg5", num_classes=10, in_channels=1, image_size=8, width=0.125)


def _read_weights(file: Path) -> object:
    from spikestill.models.weights import load_weights

    return load_weights(_network(), file, num_classes=10)


def _write_nir(folder: Path) -> Path:
    import spikestill as ss
    from spikestill.export import to_nir

    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(18, 3)
    )
    snn = ss.to_spiking(net, neuron=ss.LIF(0.5, 1.0), timesteps=2, input_shape=(1, 8, 8))
    return to_nir(snn).write(folder / "student.nir")


def _read_nir(file: Path) -> object:
    from spikestill.export import from_nir

    return from_nir(file)


def _picture(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="JPEG" if number % 2 else "PNG")
    return stream.getvalue()


def _write_parquet(folder: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    for part, count in (("train", 6), ("test", 2)):
        images = [{"bytes": _picture(number), "path": f"{number}.png"} for number in range(count)]
        table = pyarrow.table({"img": images, "label": [number % 2 for number in range(count)]})
        parquet.write_table(table, folder / f"{part}.parquet")
    return folder / "train.parquet"


def _read_parquet(file: Path) -> object:
    from spikestill import data

    return data.load(f"parquet:{file.parent}", validation=1)


def _write_shard(folder: Path) -> Path:
    file = folder / "imagenet-train-000000.tar"
    with tarfile.open(file, "w") as opened:
        for number in range(4):
            said = json.dumps({"label": number % 2}).encode()
            kinds = (("jpg", _picture(number)), ("json", said) if number % 2 else ("cls", b"0"))
            for kind, content in kinds:
                entry = tarfile.TarInfo(f"n0144076{number % 2}_{number}.{kind}")
                entry.size = len(content)
                opened.addfile(entry, io.BytesIO(content))
    return file


def _read_shard(file: Path) -> object:
    from spikestill.data.decode import decode
    from spikestill.data.shards import read_shards
    from spikestill.data.unreadable import Unreadable

    store, labels = read_shards([file], "reading", Unreadable(skip=False))
    return [decode(store.place(row), store.read(row)) for row in range(len(labels))]


def _write_picture(folder: Path) -> Path:
    (folder / "one.png").write_bytes(_picture(0))
    return folder / "one.png"


def _read_picture(file: Path) -> object:
    from spikestill.data.decode import decode

    return decode(str(file), file)


def _events(count: int = 60) -> np.ndarray:
    """Events ``[E, 4]``: column, row, polarity, time."""
    draw = np.random.default_rng(0)
    times = np.sort(draw.integers(0, 10**6, count))
    return np.stack([draw.integers(0, 128, count), draw.integers(0, 128, count), draw.integers(0, 2, count), times], 1)


def _write_gesture(folder: Path) -> Path:
    for part in ("Train", "Test"):
        user = folder / "DVSGesture" / f"ibmGesture{part}" / "user01_led"
        user.mkdir(parents=True)
        np.save(user / "0.npy", _events().astype(np.float64))
    return folder / "DVSGesture" / "ibmGestureTrain" / "user01_led" / "0.npy"


def _read_gesture(file: Path) -> object:
    from spikestill.data import EventFrames
    from spikestill.data.recordings import read_dvs_gesture

    return read_dvs_gesture(file.parents[2], EventFrames(frames=2, by="time"), 8)


def _write_aedat4(folder: Path) -> Path:
    from spikestill.data.aedat4_writing import aedat4
    from spikestill.data.frames import Recording
    from spikestill.data.recordings import _OBJECTS

    content = aedat4(Recording(*_events().T), sensor=128, source="DVS128", compress=False)
    for name in _OBJECTS:
        (folder / "CIFAR10DVS" / name).mkdir(parents=True)
        for number in range(2):
            (folder / "CIFAR10DVS" / name / f"{number}.aedat4").write_bytes(content)
    return folder / "CIFAR10DVS" / "airplane" / "0.aedat4"


def _read_aedat4(file: Path) -> object:
    from spikestill.data.aedat4 import Aedat4Decoder

    with Aedat4Decoder() as decode:
        return decode(file)


FORMATS = {
    "recipe": Format("yaml", _write_recipe, _read_recipe),
    "experiment": Format("yaml", _write_experiment, _read_experiment),
    "recipe of a run": Format("yaml", _file_of_run("recipe.yaml"), _read_result),
    "result": Format("json", _file_of_run("result.json"), _read_result),
    "analysis": Format("json", _file_of_run("analysis.json"), _read_page),
    "metrics": Format("table", _file_of_run("metrics.csv"), _read_result),
    "description": Format("json", _file_of_run("student.json"), _read_network),
    "weights": Format("bytes", _file_of_run("student.safetensors"), _read_network),
    "checkpoint": Format("bytes", _file_of_run("checkpoints/last.ckpt"), _read_checkpoint),
    "teacher weights": Format("bytes", _write_weights, _read_weights),
    "NIR": Format("bytes", _write_nir, _read_nir),
    "Parquet": Format("bytes", _write_parquet, _read_parquet),
    "tar shard": Format("bytes", _write_shard, _read_shard),
    "image": Format("bytes", _write_picture, _read_picture),
    "NumPy events": Format("bytes", _write_gesture, _read_gesture),
    "AEDAT4 events": Format("bytes", _write_aedat4, _read_aedat4),
}
"""By name, every format."""
