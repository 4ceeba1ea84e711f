"""``python -m benchmarks.loop``: what the training loop adds to a step, in milliseconds.

A network so small that its own step hardly counts is trained for the same epochs twice: by the Trainer, with progress,
figures and checkpoints as in every run, and by a bare loop over the same batches, losses and optimiser. The difference
a step does not depend on the network, so that its share of any other step follows.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from spikestill.recipes import DistillRecipe, NetworkDescription, load
from spikestill.runs import Run
from spikestill.train.callbacks import Journal
from spikestill.train.learner import Learner
from spikestill.train.loaders import load_data, make_batches, resolve_device
from spikestill.train.loop import _fit, _learner
from spikestill.train.processes import ALONE
from spikestill.train.provenance import Provenance

EPOCHS, ROUNDS, BATCH = 6, 5, 32


def main() -> None:
    """Print the time of a step in both loops."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            (_seconds(Path(folder) / str(i), bare=False), _seconds(Path(folder), bare=True)) for i in range(ROUNDS)
        ]
    ours, bare = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    added = statistics.median(1e3 * (one - other) for one, other in pairs)
    print(f"{torch.get_num_threads()} threads; a step in the Trainer {ours:.2f} ms, in a bare loop {bare:.2f} ms")
    print(f"the Trainer adds {added:.2f} ms a step")


def _seconds(folder: Path, bare: bool) -> float:
    """Of one step; the first run of a process warms up with an epoch of its own."""
    fields = {"student": "vgg5", "width": 0.125, "timesteps": 2, "epochs": EPOCHS, "batch_size": BATCH, "device": "cpu"}
    recipe = load(DistillRecipe, fields | {"method": "benchmark", "data": "digits", "out": str(folder)})
    device = resolve_device("cpu")
    data = load_data(recipe)
    description = NetworkDescription.of(recipe, data)
    batches, validation = (make_batches(recipe, data, description, part, device) for part in ("train", "validation"))
    learner = _learner(recipe, data, description, None, None, device, batches)
    _bare_epoch(learner, validation)
    learner = _learner(recipe, data, description, None, None, device, batches)
    began = time.perf_counter()
    if bare:
        for _ in range(EPOCHS):
            _bare_epoch(learner, validation)
    else:
        run = Run.refuse_used(folder, resume=False, overwrite=False)
        made_from = Provenance.of(recipe, data)
        journal = Journal(run, recipe.checkpoint_minutes, device, made_from, data.unreadable, ALONE)
        _fit(recipe, run, learner, journal, batches, validation, device, resume=False)
    return (time.perf_counter() - began) / (EPOCHS * len(batches))


def _bare_epoch(learner: Learner, validation: object) -> None:
    learner.train()
    optimiser = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    for images, labels in learner.batches:
        loss, _, _ = learner.losses(images, labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 2.0)
        optimiser.step()
    learner.eval()
    with torch.no_grad():
        for index, batch in enumerate(validation):  # type: ignore[arg-type, var-annotated]
            learner.validation_step(batch, index)
    learner.train()


if __name__ == "__main__":
    main()
