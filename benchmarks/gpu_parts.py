"""The parts of ``benchmarks.gpu``: each is a function that measures until its time is over."""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikestill as ss
from benchmarks import networks
from benchmarks.check import check
from benchmarks.contestants import Contestant, create
from benchmarks.gpu_record import Record
from benchmarks.measure import interleaved, peak_memory, spread
from benchmarks.setting import Setting
from spikestill.dynamics import NeuronRule, plain
from spikestill.dynamics.backend import passes_for
from spikestill.dynamics.layout import Channels, FlatTerm
from spikestill.runs import environment

__all__ = ["run"]

_TIMING = {"seconds": 3.0, "least": 5, "most": 30}
_TOY_TIMING = {"seconds": 0.0, "least": 1, "most": 1}


@dataclass
class Job:
    """What a part is given.

    Attributes:
        part: its name.
        record: where it writes.
        device: cuda or cpu.
        toy: whether it only has to run.
        batch: images a batch.
        data: what ResNet-18 is trained on.
        end: of its time, by ``time.monotonic``.
    """

    part: str
    record: Record
    device: str
    toy: bool
    batch: int
    data: str
    end: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    @property
    def timing(self) -> dict[str, Any]:
        """Of ``interleaved``."""
        return _TOY_TIMING if self.toy else _TIMING

    def setting(self, network: str, timesteps: int) -> Setting:
        """A comparison's conditions: bf16."""
        size = {"batch": 4, "width": 1 / 16, "image_size": 8} if self.toy else {"batch": self.batch}
        return Setting(network, timesteps, "bf16", device=self.device, **size)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Something that may fail, which is then written down; what it held in memory is let go."""
        try:
            yield
        except Exception as error:
            said = str(error).strip().splitlines()
            self.record.fail(self.part, name, f"{type(error).__name__}: {said[0] if said else ''}")
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def has_time(self, name: str, seconds: float = 0.0) -> bool:
        """Whether so many seconds are left; if not, that is written down."""
        if self.left > (0.0 if self.toy else seconds):
            return True
        self.record.fail(self.part, name, "no time was left")
        return False


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


def _kernels(job: Job) -> None:
    """The speed of the fused passes, then their spikes, rates, eligibilities and gradients against the plain ones."""
    neurons, channels = (96, 4) if job.toy else (64 * 1024, 64)
    rules = [
        NeuronRule(reset, order, detach)  # type: ignore[arg-type]
        for reset, order, detach in itertools.product(
            ("soft", "hard"), ("reset-then-leak", "leak-then-subtract"), (True, False)
        )
    ]
    dtypes = (torch.float32, torch.bfloat16) if job.device == "cpu" else (torch.float32, torch.bfloat16, torch.float16)
    layouts = {"channels_last": Channels(channels, 1), "contiguous": Channels(channels, neurons // channels)}
    for timesteps in (4, 16):
        with job.attempt(f"speed, T = {timesteps}"):
            _speed(job, timesteps)
    for rule, dtype, timesteps in itertools.product(rules[:2] if job.toy else rules, dtypes, (4, 7)):
        how = f"{rule.reset}, {rule.order}, {'detached' if rule.detach_reset else 'kept'}"
        name = f"{str(dtype).removeprefix('torch.')}, T = {timesteps}, {how}"
        if not job.has_time(name):
            return
        with job.attempt(name):
            worst = [_difference(job, rule, dtype, timesteps, neurons, layout) for layout in layouts.values()]
            values = {column: max(one[column] for one in worst) for column in worst[0]}
            job.record.add(job.part, name, **values)


def _difference(
    job: Job, rule: NeuronRule, dtype: torch.dtype, timesteps: int, neurons: int, channels: Channels
) -> dict[str, float]:
    """Numbers of spikes that differ, and the largest differences of the rest relative to the largest value."""
    torch.manual_seed(timesteps)
    terms = [
        FlatTerm(
            values, torch.rand(channels.count).to(job.device) + 0.3, torch.randn(channels.count).to(job.device) / 2
        )
        for values in (torch.randn(timesteps, neurons).to(job.device, dtype) for _ in range(2))
    ]
    leak, threshold = torch.tensor([0.7, 1.2]).to(job.device).unbind()
    by_spikes = torch.randn(timesteps, neurons).to(job.device, dtype)
    fused = passes_for(terms[0].values, rule)
    if fused is plain:
        raise RuntimeError("there are no fused passes for this")
    neuron, found = (leak, threshold, timesteps, rule), []
    for backend in (fused, plain):
        spikes, last = backend.spikes(terms, channels, None, *neuron)
        rates = backend.rate(terms, channels, None, *neuron, True)
        back = backend.spikes_backward(by_spikes, None, terms, channels, None, *neuron, True)
        found.append((spikes, last, rates, back))
    (spikes, last, rates, back), (spikes_, last_, rates_, back_) = found
    return {
        "spikes": spikes.numel(),
        "differing": int((spikes != spikes_).sum()) + int((rates[0] != rates_[0]).sum()),
        "potentials": _relative([last], [last_]),
        "rates": _relative(rates[1:], rates_[1:]),
        "gradients": _relative(back, back_),
    }


def _relative(ours: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> float:
    worst = 0.0
    for one, other in zip(ours, others, strict=True):
        if one is not None and other is not None:
            largest = float(other.double().abs().max().clamp(min=1e-12))
            worst = max(worst, float((one.double() - other.double()).abs().max()) / largest)
    return worst


def _speed(job: Job, timesteps: int) -> None:
    """Of the neurons' pass under rate gradients in bf16: the bytes that it must move, over its time; and a copy's."""
    neurons = 512 if job.toy else 16 * 2**20
    values = torch.randn(timesteps, neurons, device=job.device).to(torch.bfloat16)
    channels, rule = Channels(64, 1), NeuronRule()
    terms = [FlatTerm(values, torch.ones(64, device=job.device), torch.zeros(64, device=job.device))]
    leak, threshold = torch.tensor([0.5, 1.0]).to(job.device).unbind()
    target = torch.empty_like(values)
    works: dict[str, Callable[[], object]] = {
        "rate": lambda: passes_for(values, rule).rate(terms, channels, None, leak, threshold, timesteps, rule, False),
        "copy": lambda: target.copy_(values),
    }
    moved = {"rate": 4 * timesteps * neurons + 6 * neurons, "copy": 4 * timesteps * neurons}
    for work in works.values():
        work()
    for name, times in interleaved(works, job.device, **job.timing).items():
        seconds = spread(times)["median"]
        job.record.add(
            "speed of the kernels", f"{name}, T = {timesteps}", ms=1e3 * seconds, GB_per_s=moved[name] / seconds / 1e9
        )


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


def _resnet18(job: Job) -> None:
    """ResNet-18 at CIFAR size for a while, and from its weights a student of four steps guided by it.

    Half of the time each; the learning rate rises for a fifth of it and then falls to zero. Each is tested once, with
    its last weights.
    """
    from spikestill.data import Augmentation, Batches, load

    data = load(job.data, validation=0)
    channels, size, _ = data.input_shape
    options: dict[str, Any] = {"width": 1 / 16} if job.toy else {}
    ann = ss.models.create(
        "resnet18", num_classes=data.num_classes, in_channels=channels, image_size=size, stem="cifar", **options
    )
    ann = ann.to(job.device).to(memory_format=torch.channels_last)
    batch = 32 if job.toy else 256
    common: dict[str, Any] = {"mean": data.mean, "std": data.std, "device": job.device}
    varied = Augmentation(crop=size // 8, flip=job.data != "digits")
    batches = Batches(data.train, batch_size=batch, shuffle=True, augmentation=varied, drop_last=True, **common)
    test = Batches(data.test, batch_size=batch, **common)
    seconds = job.left / 2 - (0 if job.toy else 6)
    for name in ("ann", "student"):
        network, teacher = ann, None
        if name == "student":
            teacher = copy.deepcopy(ann).eval()
            network = ss.to_spiking(ann, neuron=ss.LIF(0.2), timesteps=4, gradient="rate", input_shape=data.input_shape)
            network = network.to(job.device).to(memory_format=torch.channels_last)
        steps, spent = _trained(job, network, teacher, batches, seconds)
        values = {"epochs": steps * batch / len(data.train), "steps": steps, "seconds": spent}
        values |= {"images_per_s": steps * batch / spent, "test_accuracy": _accuracy(job, network, test)}
        job.record.add(job.part, f"{name}, {job.data.split('/')[-1]}", **values)


def _trained(
    job: Job, network: nn.Module, teacher: nn.Module | None, batches: Any, seconds: float
) -> tuple[int, float]:
    """Trains until so many seconds are over: how many steps, and how long."""
    peak = 0.4 if teacher is None else 0.05
    optimiser = torch.optim.SGD(network.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network.train()
    began, steps = time.monotonic(), 0
    while True:
        for images, labels in batches:
            share = 1.0 if job.toy and steps else (time.monotonic() - began) / max(seconds, 1e-3)
            if share >= 1:
                if job.device == "cuda":
                    torch.cuda.synchronize()
                return steps, time.monotonic() - began
            for group in optimiser.param_groups:
                group["lr"] = peak * min(share / 0.2, (1 - share) / 0.8)
            optimiser.zero_grad()
            with torch.autocast(job.device, torch.bfloat16):
                logits = network(images)
                guide = None if teacher is None else _asked(teacher, images)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=0.1 if teacher is None else 0.0)
            if guide is not None:
                loss = loss + 0.3 * 9 * functional.kl_div(
                    (logits.float() / 3).log_softmax(1), (guide.float() / 3).softmax(1), reduction="batchmean"
                )
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            steps += 1


@torch.no_grad()
def _asked(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def _accuracy(job: Job, network: nn.Module, batches: Any) -> float:
    network.eval()
    right = total = 0
    for images, labels in batches:
        with torch.autocast(job.device, torch.bfloat16):
            right += int((_asked(network, images).argmax(1) == labels).sum())
        total += len(labels)
    return right / total


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
    "kernels": _kernels,
    "training": _training,
    "memory": _memory,
    "graphs": _graphs,
    "inference": _inference,
    "resnet18": _resnet18,
    "fastest": _fastest,
    "tests": _tests,
}
