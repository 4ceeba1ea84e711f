"""The part ``resnet18`` of ``benchmarks.gpu``: training for a while, on data that travel with the checkout."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikestill as ss
from benchmarks.gpu_job import Job

__all__ = ["accuracy", "train_for", "train_resnet18"]


def train_resnet18(job: Job) -> None:
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
        steps, spent = train_for(job, network, teacher, batches, seconds)
        values = {"epochs": steps * batch / len(data.train), "steps": steps, "seconds": spent}
        values |= {"images_per_s": steps * batch / spent, "test_accuracy": accuracy(job, network, test)}
        job.record.add(job.part, f"{name}, {job.data.split('/')[-1]}", **values)


def train_for(
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


def accuracy(job: Job, network: nn.Module, batches: Any) -> float:
    network.eval()
    right = total = 0
    for images, labels in batches:
        with torch.autocast(job.device, torch.bfloat16):
            right += int((_asked(network, images).argmax(1) == labels).sum())
        total += len(labels)
    return right / total
