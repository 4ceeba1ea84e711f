"""One comparison, in a process of its own: ``python -m benchmarks.comparison JOB RESULT``."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks import networks
from benchmarks.check import check
from benchmarks.contestants import Contestant, create
from benchmarks.measure import interleaved, peak_memory, spread
from benchmarks.setting import Setting
from spikestill.runs import environment

__all__ = ["ALLOCATION", "Job", "run", "write_json"]

_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
_RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
ALLOCATION = {"training": _KEPT, "inference": _KEPT, "time": _KEPT, "memory": _RETURNED}
"""The C library's settings by what is measured. Time: freed blocks are kept for the next ones, which serves all
contestants. Memory: large blocks go back to the system at once, so that what is resident is what is in use."""

Job = dict[str, Any]
"""``task`` ("training", "inference" or "memory"), ``setting`` (of ``Setting``), ``contestants`` and ``timing`` (of
``interleaved``)."""


def run(job: Job) -> dict[str, Any]:
    """Carry a job out.

    Returns:
        The job, the environment, by layer which part of its neurons' time steps are ``spikes``, and by contestant
        ``time`` in seconds (see ``spread``) or ``memory`` in bytes, with
        ``check`` (see ``check.check``), ``first_loss`` of the first step and ``preparation`` in seconds, compiling
        included. A contestant that does not run here has an ``error`` instead.
    """
    setting = Setting(**job["setting"])
    torch.set_num_threads(setting.threads)
    result: dict[str, Any] = {"job": job, "environment": _environment(setting), "contestants": {}}
    ann = networks.create(setting)
    checks = {}
    if job["task"] != "memory":
        result["spikes"] = _spikes(ann, setting)
        checks = check(job["task"], job["contestants"], ann, setting)
    work: dict[str, Callable[[], object]] = {}
    for name in job["contestants"]:
        began = time.perf_counter()
        try:
            contestant = create("inference" if job["task"] == "inference" else "training", name, ann, setting)
            work[name], loss = _ready(contestant, job["task"])
        except Exception as error:
            result["contestants"][name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            continue
        seconds = time.perf_counter() - began
        result["contestants"][name] = {"first_loss": loss, "preparation": seconds, "check": checks.get(name)}
    if job["task"] == "memory":
        for name, one in work.items():
            result["contestants"][name]["memory"] = peak_memory(one, setting.device)
    else:
        for name, times in interleaved(work, setting.device, **job["timing"]).items():
            result["contestants"][name]["time"] = spread(times)
    return result


def _ready(contestant: Contestant, task: str) -> tuple[Callable[[], object], float | None]:
    """The work to measure, run so often that nothing is left to be compiled, and its first loss."""
    images, labels = contestant.setting.data()
    if task == "inference":
        for _ in range(contestant.warm_ups):
            contestant.infer(images)
        return lambda: contestant.infer(images), None
    losses = [float(contestant.step(images, labels)) for _ in range(contestant.warm_ups)]
    return lambda: contestant.step(images, labels), losses[0]


def _spikes(ann: torch.nn.Module, setting: Setting) -> list[float]:
    """What convolutions by events depend on, in the network as it is before the first step."""
    layers = create("training", "spikestill-bptt", ann, setting).spikes(setting.data()[0])
    return [layer.mean().item() for layer in layers]


def _environment(setting: Setting) -> dict[str, Any]:
    peers = {name: metadata.version(name) for name in ("spikingjelly", "snntorch")}
    described = environment()
    described["packages"] |= peers
    described.pop("command")
    return described | {
        "threads": torch.get_num_threads(),
        "openmp": {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")},
        "load": os.getloadavg()[0],
        "spikingjelly_kernel": _kernel(setting),
    }


def _kernel(setting: Setting) -> Any:
    """What SpikingJelly's LIF neurons are computed by on this device."""
    from spikingjelly.activation_based.functional import neuron_implementation

    return neuron_implementation("lif", torch.device(setting.device))


def write_json(path: Path, value: object) -> None:
    """Write a file that is whole or not there."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Carry out the job in the first file and write the result into the second."""
    warnings.filterwarnings("ignore")
    # Beyond its limit of recompilations torch.compile would go on uncompiled, without a word.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write_json(Path(sys.argv[2]), run(job))


if __name__ == "__main__":
    main()
