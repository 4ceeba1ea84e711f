"""Conversion without training, beside SpikingJelly's: ``python -m benchmarks.conversion`` prints the table.

The same trained ANN, the same calibration images and the same test images for all. Ours is converted for each T, as
``convert`` does by default; SpikingJelly's converter knows no T, so one conversion of each of its recipes is run at all
of them. Its recipes match ``nn.ReLU`` modules, of which these networks are made, and it fuses BatchNorm itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spikestill as ss
from spikestill.analysis.answers import Answers
from spikestill.data import Batches, load
from spikestill.types import InputError

__all__ = ["NETWORKS", "Case", "Row", "best_of", "digits_case", "our_accuracy", "their_accuracy", "trained"]

STEPS = (1, 2, 4, 8, 16, 32, 64)
OURS: dict[str, dict[str, Any]] = {
    "ours, default": {},
    "ours, shift 99": {"method": "shift", "percentile": 99.0},
    "ours, normalise 99.9": {"method": "normalise"},
    "ours, calibrate": {"method": "calibrate"},
    "ours, balance-locally": {"method": "balance-locally"},
    "ours, threshold-balancing": {"method": "threshold-balancing"},
}
_CALIBRATION = 256
_BATCH = 64


@dataclass(frozen=True)
class Case:
    """A trained ANN, with images to calibrate on and images to measure on."""

    name: str
    ann: nn.Module
    calibration: list[Tensor]
    images: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return tuple(self.images.shape[1:])


@dataclass(frozen=True)
class Row:
    """What one conversion reaches on one ANN.

    Attributes:
        case: the ANN.
        converter: whose conversion, and which.
        accuracy: percent of the test images, by T.
        seconds: of processor time that the conversion took (for ours, those for all T).
    """

    case: str
    converter: str
    accuracy: dict[int, float]
    seconds: float


def _digits_network(batch_norm: bool, maximum: bool) -> nn.Sequential:
    def block(channels: int, out: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(out)] if batch_norm else []
        return [nn.Conv2d(channels, out, 3, padding=1), *norm, nn.ReLU()]

    def pool() -> nn.Module:
        return nn.MaxPool2d(2) if maximum else nn.AvgPool2d(2)

    return nn.Sequential(
        *(*block(1, 16), *block(16, 16), pool(), *block(16, 32), *block(32, 32), pool()),
        *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits, average": lambda: _digits_network(False, False),
    "digits, maximum": lambda: _digits_network(False, True),
    "digits, BatchNorm, average": lambda: _digits_network(True, False),
    "digits, BatchNorm, maximum": lambda: _digits_network(True, True),
}


def trained(ann: nn.Module, images: Tensor, labels: Tensor, epochs: int = 12) -> nn.Module:
    """The ANN after a short course of Adam on the cross-entropy."""
    optimiser = torch.optim.Adam(ann.parameters(), lr=2e-3)
    ann.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(ann(images[chosen]), labels[chosen]).backward()
            optimiser.step()
    return ann.eval()


def digits_case(name: str, seed: int) -> Case:
    """A small network trained on scikit-learn's digits: 1097 images for training, 700 for the measure."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(seed))
    images = (torch.tensor(found.images, dtype=torch.float32)[order] / 16).unsqueeze(1)
    labels = torch.tensor(found.target)[order]
    torch.manual_seed(seed)
    ann = trained(NETWORKS[name](), images[:1097], labels[:1097])
    calibration = list(images[:_CALIBRATION].split(_BATCH))
    return Case(f"{name}, seed {seed}", ann, calibration, images[1097:], labels[1097:])


def run_case(folder: str, data: str, images: int) -> Case:
    """The ANN of a run folder, calibrated on training images and measured on the first test images."""
    from spikestill.recipes import NetworkDescription
    from spikestill.runs import Run

    run = Run.open(folder)
    description = NetworkDescription.of_run(run)
    found = load(data)

    def some(samples: Any, count: int) -> tuple[Tensor, Tensor]:
        part = samples.subset(torch.arange(min(count, len(samples))))
        pairs = list(Batches(part, batch_size=_BATCH, mean=description.mean, std=description.std))
        return torch.cat([batch for batch, _ in pairs]), torch.cat([labels for _, labels in pairs])

    calibration, _ = some(found.train, _CALIBRATION)
    measured, labels = some(found.test, images)
    return Case(f"{Path(folder).name}", description.load(run), list(calibration.split(_BATCH)), measured, labels)


def our_accuracy(case: Case, steps: Sequence[int], **options: Any) -> tuple[dict[int, float], float]:
    """Percent of the test images by T, with a conversion for each T; and the processor seconds these took."""
    found, seconds = {}, 0.0
    for timesteps in steps:
        snn = ss.to_spiking(case.ann, input_shape=case.shape, neuron=ss.IF(), timesteps=timesteps).eval()
        start = time.process_time()
        ss.convert(snn, case.ann, case.calibration, **options)
        seconds += time.process_time() - start
        with torch.no_grad():
            parts = [snn(images).argmax(1) for images in case.images.split(250)]
        found[timesteps] = 100 * float((torch.cat(parts) == case.labels).double().mean())
    return found, seconds


def their_recipes(calibration: list[Tensor]) -> dict[str, Any]:
    """SpikingJelly's recipes, by name.

    Raises:
        InputError: where it is not installed.
    """
    try:
        from spikingjelly.activation_based.ann2snn import recipes
    except ImportError as error:
        raise InputError("SpikingJelly is not installed: pip install 'spikestill[peers]'") from error
    rate = recipes.RateCodingRecipe
    return {
        "SpikingJelly, largest of a layer": rate(calibration, mode="Max"),
        "SpikingJelly, 99.9 % of a layer": rate(calibration, mode="99.9%"),
        "SpikingJelly, 99.9 % by channel": rate(calibration, mode="99.9%", channel_wise=True),
        "SpikingJelly, largest by channel, half": rate(calibration, mode="Max", channel_wise=True, half_threshold=True),
        "SpikingJelly, 99.9 % by channel, half": rate(
            calibration, mode="99.9%", channel_wise=True, half_threshold=True
        ),
        "SpikingJelly, local balancing": recipes.LocalThresholdBalancingRecipe(calibration),
    }


def their_accuracy(case: Case, steps: Sequence[int], recipe: Any) -> tuple[dict[int, float], float]:
    """Percent of the test images by T, of one conversion by SpikingJelly; and the processor seconds that took."""
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.ann2snn import Converter

    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = Converter(recipe=recipe).convert(copy.deepcopy(case.ann)).eval()
    seconds = time.process_time() - start
    functional.set_step_mode(network, "s")
    answers = []
    for images, labels in zip(case.images.split(250), case.labels.split(250), strict=True):
        functional.reset_net(network)
        with torch.no_grad():
            read_outs = torch.stack([network(images) for _ in range(max(steps))])
        answers.append(Answers.of(read_outs, labels).correct.double().sum(1))
    shares = 100 * torch.stack(answers).sum(0) / len(case.labels)
    return {timesteps: float(shares[timesteps - 1]) for timesteps in steps}, seconds


def best_of(rows: Sequence[Row], whose: str) -> dict[int, float]:
    """The best accuracy at each T of all converters whose name begins so."""
    chosen = [row.accuracy for row in rows if row.converter.startswith(whose)]
    return {timesteps: max(accuracy[timesteps] for accuracy in chosen) for timesteps in chosen[0]}


def measure(case: Case, steps: Sequence[int], ours: Sequence[str], theirs: bool = True) -> list[Row]:
    """All rows of one ANN, its own first."""
    with torch.no_grad():
        predicted = torch.cat([case.ann(images).argmax(1) for images in case.images.split(250)])
    own = 100 * float((predicted == case.labels).double().mean())
    rows = [Row(case.name, "the ANN", dict.fromkeys(steps, own), 0.0)]
    for name in ours:
        rows.append(Row(case.name, name, *our_accuracy(case, steps, **OURS[name])))
        print(_line(rows[-1]), flush=True)
    for name, recipe in their_recipes(case.calibration).items() if theirs else ():
        rows.append(Row(case.name, name, *their_accuracy(case, steps, recipe)))
        print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Row) -> str:
    cells = " ".join(f"{value:6.2f}" for value in row.accuracy.values())
    return f"{row.converter:<40} {cells} {row.seconds:7.1f} s"


def _summary(rows: list[Row]) -> str:
    """In how many cells our default is ahead of SpikingJelly's best, and by how much it is behind at most."""
    behind, ahead, early = 0.0, 0, 0
    cases = dict.fromkeys(row.case for row in rows)
    for case in cases:
        of_case = [row for row in rows if row.case == case]
        mine, theirs = best_of(of_case, "ours, default"), best_of(of_case, "SpikingJelly")
        for timesteps, value in mine.items():
            behind = max(behind, theirs[timesteps] - value)
            if timesteps <= 8:
                early += 1
                ahead += value > theirs[timesteps]
    return (
        f"default against the best recipe of SpikingJelly in each cell: at most {behind:.2f} points behind; "
        f"ahead in {ahead} of {early} cells with T <= 8"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ours", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--run", help="the run folder of an ANN, in the place of the networks on digits")
    parser.add_argument("--data", default="digits", help="with --run: its data, as for spikestill train")
    parser.add_argument("--images", type=int, default=2000, help="with --run: test images to measure on")
    parser.add_argument("--out", help="a file for the table, in JSON")
    given = parser.parse_args()
    if given.run:
        cases = [run_case(given.run, given.data, given.images)]
    else:
        cases = [digits_case(name, seed) for name in NETWORKS for seed in given.seeds]
    rows: list[Row] = []
    for case in cases:
        print(f"\n{case.name}: test accuracy in percent at T = {', '.join(map(str, given.steps))}")
        rows += measure(case, given.steps, given.ours)
        print(_line(next(row for row in rows if row.case == case.name)))
    print("\n" + _summary(rows))
    if given.out:
        Path(given.out).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
