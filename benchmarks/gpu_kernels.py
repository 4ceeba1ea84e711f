"""The part ``kernels`` of ``benchmarks.gpu``: the fused passes over a layer beside the plain ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.gpu_job import Job
from benchmarks.measure import interleaved, spread
from spikestill.dynamics import NeuronRule, plain
from spikestill.dynamics.backend import passes_for
from spikestill.dynamics.layout import Channels, FlatTerm

__all__ = ["compare_kernels", "difference"]


def compare_kernels(job: Job) -> None:
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
            worst = [difference(job, rule, dtype, timesteps, neurons, layout) for layout in layouts.values()]
            values = {column: max(one[column] for one in worst) for column in worst[0]}
            job.record.add(job.part, name, **values)


def difference(
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
