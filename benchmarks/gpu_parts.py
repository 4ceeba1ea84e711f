"""The parts of ``benchmarks.gpu``: each is a function that measures until its time is over."""

from __future__ import annotations

import argparse
import copy
import itertools
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import networks
from benchmarks.check import check
from benchmarks.contestants import Contestant, create
from benchmarks.gpu_job import Job
from benchmarks.gpu_kernels import compare_kernels
from benchmarks.gpu_record import Record
from benchmarks.gpu_resnet18 import train_resnet18
from benchmarks.measure import interleaved, peak_memory, spread
from spikestill.runs import environment

__all__ = ["run"]


def run(part: str, options: argparse.Namespace, record: Record) -> None:
    """Carry a part out."""
    warnings.filterwarnings("ignore")
    record.describe(_environment())
    if options.device == "cuda" and not torch.cuda.is_available():
        record.fail(part, part, "there is no GPU here: try --toy")
        return
    torch.backends.cudnn.benchmark = part != "memory"  # for everyone; what it tries takes memory
    end = time.monotonic() + options.seconds
    job = Job(part, record, options.device, options.toy, options.batch, options.data, end)
    with job.attempt(part):
        _PARTS[part](job)


def _environment() -> dict[str, Any]:
    described = environment()
    described.pop("command")
    if torch.cuda.is_available():
        described["cuda"] = torch.version.cuda
    return described


def _timesteps(job: Job) -> tuple[int, ...]:
    return (2,) if job.toy else (4, 8, 16)


def _training(job: Job) -> None:
    """A training step of ours, SpikingJelly as documented, two-pass and the ANN; first whether all spike alike."""
    names = ["spikestill-rate", "spikestill-bptt", "spikingjelly", "two-pass", "ann"]
    for network in networks.NETWORKS:
        with job.attempt(f"{network}: check"):
            _check(job, network, names)
    for timesteps in _timesteps(job):
        for network in networks.NETWORKS:
            _compared(job, "training", network, timesteps, names, 8.0)


def _check(job: Job, network: str, names: Sequence[str]) -> None:
    """Spikes and gradients of the contestants that can be imported, in float32 without shortened multiplications."""
    setting = job.setting(network, 4)
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        ann = networks.create(setting)
        for name in names:
            with job.attempt(f"{network}: check of {name}"):
                result = check("training", [name], ann, setting)[name]
                values = {"differing": sum(result["differing"]), "of": sum(result["compared"])}
                values |= {"gradient": result["gradient"]} if result["gradient"] is not None else {}
                job.record.add("the same network?", f"{network}, {name}", **values)
    finally:
        torch.backends.cudnn.allow_tf32 = kept


def _compared(job: Job, task: str, network: str, timesteps: int, names: Sequence[str], seconds: float) -> None:
    """Contestants in turns; a row for each that runs."""
    where = f"{network}, T = {timesteps}"
    if not job.has_time(where, seconds):
        return
    works: dict[str, Callable[[], object]] = {}
    with job.attempt(where):
        setting = job.setting(network, timesteps)
        ann = networks.create(setting)
        for name in names:
            with job.attempt(f"{where}, {name}"):
                works[name] = _ready(create(task, name, ann, setting), task)
        for name, times in interleaved(works, job.device, **job.timing).items():
            found = spread(times)
            values: dict[str, Any] = {"network": network, "T": timesteps, "contestant": name}
            values |= {"ms": 1e3 * found["median"], "lower": 1e3 * found["lower"], "upper": 1e3 * found["upper"]}
            job.record.add(job.part, f"{where}, {name}", **values, images_per_s=setting.batch / found["median"])
    works.clear()


def _ready(contestant: Contestant, task: str) -> Callable[[], object]:
    """The work, run so often that nothing is left to compile."""
    images, labels = contestant.setting.data()

    def work() -> object:
        return contestant.infer(images) if task == "inference" else contestant.step(images, labels)

    for _ in range(contestant.warm_ups + 2):
        work()
    return work


def _memory(job: Job) -> None:
    """Peak memory of a training step against T."""
    names = ["spikestill-rate", "spikestill-rate-recomputed", "spikestill-bptt", "spikingjelly", "two-pass"]
    sizes = [("vgg", 2), ("vgg", 3)] if job.toy else list(itertools.product(networks.NETWORKS, (4, 8, 16, 32)))
    for network, timesteps in sizes:
        setting = job.setting(network, timesteps)
        ann = networks.create(setting)
        for name in names:
            where = f"{network}, T = {timesteps}, {name}"
            if not job.has_time(where):
                return
            with job.attempt(where):
                mib = peak_memory(_ready(create("training", name, ann, setting), "training"), job.device) / 2**20
                values: dict[str, Any] = {"network": network, "T": timesteps, "contestant": name, "MiB": mib}
                job.record.add(job.part, where, **values)


def _graphs(job: Job) -> None:
    """CUDA graphs of inference and of a training step: whether they can be taken, what they give, how fast they are."""
    entrants = [("inference", "spikestill-folded"), ("training", "spikestill-rate"), ("training", "spikestill-bptt")]
    for network, (task, name) in itertools.product(networks.NETWORKS, entrants):
        where = f"{network}, {task}, {name}"
        if not job.has_time(where, 5.0):
            return
        with job.attempt(where):
            if job.device != "cuda":
                raise RuntimeError("CUDA graphs need a GPU")
            _graph(job, where, create(task, name, networks.create(job.setting(network, 4)), job.setting(network, 4)))


def _graph(job: Job, where: str, contestant: Contestant) -> None:
    images, labels = contestant.setting.data()
    trains = contestant.net.training

    def work() -> Tensor:
        return contestant.step(images, labels) if trains else contestant.infer(images)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    before = copy.deepcopy(contestant.net.state_dict()) if trains else {}
    expected = work().clone()
    if trains:  # a step back, so that the replay takes the same one
        contestant.net.load_state_dict(before)
        contestant.optimiser.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    graph.replay()
    torch.cuda.synchronize()
    differs = float((captured.float() - expected.float()).abs().max())
    found = interleaved({"eager": work, "replayed": graph.replay}, job.device, **job.timing)
    eager, replayed = (1e3 * spread(found[name])["median"] for name in ("eager", "replayed"))
    job.record.add(job.part, where, eager_ms=eager, replayed_ms=replayed, ratio=eager / replayed, difference=differs)


def _inference(job: Job) -> None:
    """Images a second."""
    for network in networks.NETWORKS:
        names = ["spikestill", "spikestill-folded", "spikingjelly", "ann"]
        _compared(job, "inference", network, 2 if job.toy else 4, names, 5.0)


def _fastest(job: Job) -> None:
    """The compiled contestants, beside ours: what each compiles may take a minute, so the most wanted come first."""
    for network in networks.NETWORKS:  # the unit of the floor
        _compared(job, "training", network, 1, ["ann-compiled"], 15.0)
    for timesteps, network in itertools.product(_timesteps(job), networks.NETWORKS):
        for name in ("spikingjelly-compiled", "two-pass-compiled"):
            _compared(job, "training", network, timesteps, [name], 25.0)
    for name in ("spikingjelly-compiled", "ann-compiled"):
        _compared(job, "inference", "vgg", 2 if job.toy else 4, [name], 20.0)


def _tests(job: Job) -> None:
    """The tests of the Triton kernels, which run on a GPU if there is one; they need pytest and hypothesis."""
    root = Path(__file__).resolve().parents[1]
    file = "tests/dynamics/test_triton_backend.py"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "ignore", file]
    if job.toy:
        command.append("--collect-only")
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False, timeout=max(job.left, 5.0)
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        job.record.fail(job.part, file, f"cut off after {said.count('.')} passed")
        return
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    job.record.add(job.part, file, status=done.returncode, says=lines[-1] if lines else "")


_PARTS: dict[str, Callable[[Job], None]] = {
    "kernels": compare_kernels,
    "training": _training,
    "memory": _memory,
    "graphs": _graphs,
    "inference": _inference,
    "resnet18": train_resnet18,
    "fastest": _fastest,
    "tests": _tests,
}
