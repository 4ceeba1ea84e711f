"""``python -m benchmarks``: every comparison in a fresh process, then tables and figures.

A comparison that is finished is kept in the output folder and not repeated, unless it is asked for under other
conditions, or ``--fresh``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.comparison import ALLOCATION, Job, write_json
from benchmarks.contestants import INFERENCE, TRAINING
from benchmarks.figures import draw
from benchmarks.networks import NETWORKS
from benchmarks.report import as_markdown, conditions, tables
from benchmarks.setting import PRECISIONS, Setting
from spikestill.cli.tables import print_rows

TASKS = ("training", "inference", "memory")
TIMESTEPS = {"vgg": (1, 2, 4, 8, 16), "resnet18": (4, 8, 16)}
# Compiled snnTorch takes minutes to compile for little; it can be asked for. The ANN needs no time steps.
CONTESTANTS = {
    "training": tuple(name for name in TRAINING if name != "snntorch-compiled"),
    "inference": tuple(INFERENCE),
    "memory": (
        *("spikestill-rate", "spikestill-rate-recomputed", "spikestill-bptt"),
        *("spikingjelly", "spikingjelly-compiled", "two-pass"),
    ),
}
SNNTORCH_UP_TO = 4  # time steps, unless asked for: what a loop over time takes is known from there on
QUICK = {
    "training": ("spikestill-rate", "spikestill-bptt", "spikingjelly", "snntorch", "two-pass", "ann"),
    "inference": ("spikestill", "spikestill-folded", "spikingjelly", "snntorch", "ann"),
    "memory": ("spikestill-rate", "spikingjelly"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = _parsed(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    jobs = list(_jobs(options))
    for index, job in enumerate(jobs, start=1):
        print(f"[{index}/{len(jobs)}] {_name(job)}", end=" ", flush=True)
        result = _result(job, options.out, options.fresh)
        if result is not None:
            results.append(result)
    if not results:
        sys.exit("no comparison ran")
    _report(results, options.out)


def _report(results: Sequence[dict[str, Any]], folder: Path) -> None:
    made = tables(results)
    print("\n".join(conditions(results)))
    for table in made:
        print_rows(table.title, table.header, table.rows)
    write_json(folder / "results.json", list(results))
    (folder / "results.md").write_text(as_markdown(results, made, draw(results, folder)), encoding="utf-8")
    print(f"results.json, results.md and the figures are in {folder}")


def _result(job: Job, folder: Path, fresh: bool) -> dict[str, Any] | None:
    """The kept result of a job, or a new one from a process of its own; None if that failed."""
    path = folder / f"{_name(job)}.json"
    if path.exists() and not fresh:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["job"] == job:
            print("kept")
            return kept
    write_json(path.with_suffix(".job"), job)
    environment = os.environ | ALLOCATION[job["task"]]
    command = [sys.executable, "-m", "benchmarks.comparison", str(path.with_suffix(".job")), str(path)]
    began = time.perf_counter()
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
    path.with_suffix(".job").unlink()
    print(f"{time.perf_counter() - began:.0f} s", end="")
    if code != 0:
        print(f", FAILED: see {path.with_suffix('.log')}")
        return None
    path.with_suffix(".log").unlink()
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    failed = [f"{name}: {entry['error']}" for name, entry in result["contestants"].items() if "error" in entry]
    print("".join(f"\n    {line}" for line in failed))
    return result


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    timing = {"seconds": options.seconds, "least": options.least_rounds, "most": options.rounds}
    for task in options.tasks:
        for network in options.memory_networks if task == "memory" else options.networks:
            for precision in options.precisions[:1] if task == "memory" else options.precisions:
                for timesteps in _timesteps(options, task, network):
                    setting = Setting(
                        network,
                        timesteps,
                        precision,
                        batch=options.batch,
                        width=options.width,
                        image_size=options.image_size,
                        device=options.device,
                        threads=options.threads,
                    )
                    names = _asked(options, task, timesteps)
                    for entrants in [[name] for name in names] if task == "memory" else [names]:
                        yield {"task": task, "setting": asdict(setting), "contestants": entrants, "timing": timing}


def _timesteps(options: argparse.Namespace, task: str, network: str) -> Sequence[int]:
    if task == "inference":
        return options.inference_timesteps
    if task == "memory":
        return options.memory_timesteps
    return options.timesteps or TIMESTEPS[network]


def _asked(options: argparse.Namespace, task: str, timesteps: int) -> list[str]:
    chosen = QUICK[task] if options.quick else CONTESTANTS[task]
    if not options.contestants:
        return [name for name in chosen if name != "snntorch" or timesteps <= SNNTORCH_UP_TO]
    known = INFERENCE if task == "inference" else TRAINING
    return [name for name in known if name in options.contestants]


def _name(job: Job) -> str:
    setting = job["setting"]
    name = f"{job['task']}-{setting['network']}-{setting['precision']}-T{setting['timesteps']}"
    return f"{name}-{job['contestants'][0]}" if job["task"] == "memory" else name


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--tasks", type=_among(TASKS), default=list(TASKS), help="of training, inference, memory")
    add("--networks", type=_among(NETWORKS), default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    add("--timesteps", type=_numbers, help="of training (default: 1,2,4,8,16 for vgg, 4,8,16 for resnet18)")
    add("--inference-timesteps", type=_numbers, default=[4], help="default: 4")
    add("--memory-timesteps", type=_numbers, default=[4, 8, 16], help="default: 4,8,16")
    add("--memory-networks", type=_among(NETWORKS), default=["vgg"], help="default: vgg, in the first precision")
    add("--precisions", type=_among(PRECISIONS), default=list(PRECISIONS), help="default: float32,bf16")
    known = list(dict.fromkeys([*TRAINING, *INFERENCE]))
    add("--contestants", type=_among(known), help=f"of {', '.join(known)}")
    add("--batch", type=int, default=32, help="images a batch (default: 32)")
    add("--width", type=float, default=1.0, help="factor on the channels (default: 1)")
    add("--image-size", type=int, default=32, help="height and width in pixels (default: 32)")
    add("--rounds", type=int, default=9, help="the most times each is measured (default: 9)")
    add("--least-rounds", type=int, default=3, help="the fewest (default: 3)")
    add("--seconds", type=float, default=20.0, help="no further round begins after these (default: 20)")
    add("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch (default: its own choice)")
    add("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the results (default: runs/benchmarks)")
    add("--fresh", action="store_true", help="measure again what is there")
    add("--quick", action="store_true", help="tiny and without compilers, to see that all runs: no results")
    options = parser.parse_args(arguments)
    if options.quick:
        for name, value in {"batch": 4, "width": 0.125, "rounds": 2, "least_rounds": 2, "seconds": 1.0}.items():
            setattr(options, name, value)
        options.timesteps, options.inference_timesteps, options.memory_timesteps = [4], [2], [2, 4]
        if options.out == parser.get_default("out"):
            options.out = Path("runs/benchmarks-quick")
    return options


def _among(known: Sequence[str]) -> Any:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
        return text.split(",")

    return names


def _numbers(text: str) -> list[int]:
    numbers = [int(number) for number in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("a number of time steps is at least 1")
    return numbers


if __name__ == "__main__":
    main()
