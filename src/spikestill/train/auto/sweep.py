"""The steps that train nothing: look at the ANN, and measure every conversion of it on validation images."""

from __future__ import annotations

import time
from typing import Any

from spikestill import graph
from spikestill.graph import Report
from spikestill.train.auto.candidates import Candidate
from spikestill.train.auto.context import Context
from spikestill.train.auto.planning import SweepPlan, plan_sweep, steps_to_read
from spikestill.train.auto.probe import seconds_per_image_step
from spikestill.train.auto.table import Row
from spikestill.types import InputError

__all__ = ["check_ann", "has_max_pool", "measure_ann", "measure_conversion", "plan", "rows_of"]

_IMAGES_FOR_ENERGY = 50
_MORE = 2 * _IMAGES_FOR_ENERGY
"""What they cost at 1, 2, 4, ... T steps, in images at T steps."""


def check_ann(context: Context) -> Report | None:
    """The report of ``check``; None where another student is named, so that the ANN need not become spiking.

    Raises:
        InputError: naming what is refused, and that a student is the way out.
    """
    ann, settings = context.ann, context.settings
    if settings.student is not None:
        return None
    report = graph.check(ann.network, ann.data.input_shape)
    if report.refused:
        reasons = "; ".join(f"{item.name} ({item.operation}): {item.remark}" for item in report.refused[:3])
        more = f"; and {len(report.refused) - 3} more" if len(report.refused) > 3 else ""
        raise InputError(
            f"{settings.ann} cannot become spiking ({reasons}{more}): name a student that it teaches, as in "
            "--student resnet20"
        )
    return report


def has_max_pool(report: Report) -> bool:
    """Whether there are maxima, which a conversion can only approximate."""
    return any(finding.verdict == "noted" and "maximum" in finding.remark for finding in report.findings)


def measure_ann(context: Context) -> dict[str, Any]:
    """The ANN's accuracy on the validation images.

    Raises:
        InputError: when it is near chance, since then its pixels are not those that it was trained on.
    """
    data, settings = context.ann.data, context.settings
    images = min(settings.images, len(data.validation))
    accuracy = context.measure(context.ann.network, context.validation(images))["accuracy"]
    chance = 1 / data.num_classes
    if accuracy <= chance + 0.1 * (1 - chance):
        raise InputError(
            f"the ANN {settings.ann} reaches {accuracy:.1%} of {images} validation images of {data.name} (chance: "
            f"{chance:.1%}): its pixels are probably scaled otherwise; it was shown mean {_numbers(data.mean)} and std "
            f"{_numbers(data.std)}, say with --mean and --std what it was trained with"
        )
    return {
        "accuracy": accuracy,
        "images": images,
        "data": data.name,
        "mean": list(data.mean),
        "std": list(data.std),
    }


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.3f}" for value in values)


def plan(context: Context, candidates: list[Candidate]) -> dict[str, Any]:
    """On how many images, and up to which T, the conversions are measured; from what one image step costs here."""
    settings = context.settings
    network = context.student(context.recipe(**candidates[0].fields))
    each = seconds_per_image_step(context, network)
    images = min(settings.images, len(context.ann.data.validation))
    found = plan_sweep(
        settings.budget, each, candidates=len(candidates), wanted=settings.timesteps, images=images, more=_MORE
    )
    return {"images": found.images, "longest": found.longest, "seconds_per_image_step": each}


def measure_conversion(context: Context, candidate: Candidate, sweep: SweepPlan, ann_accuracy: float) -> dict[str, Any]:
    """The rows of one conversion, at every T of the sweep; or why it is not possible."""
    began = time.monotonic()
    try:
        network = context.student(context.recipe(**candidate.fields))
    except InputError as error:
        return {"refused": str(error), "rows": []}
    seconds = time.monotonic() - began
    steps = steps_to_read(sweep.longest, context.settings.timesteps)
    figures = context.measure(network, context.validation(sweep.images), steps)
    few = context.validation(min(sweep.images, _IMAGES_FOR_ENERGY))
    costs = {step: context.measure(network, few, (step,)) for step in steps[:-1]} | {steps[-1]: figures}
    rows = [
        Row(
            candidate.name,
            step,
            (accuracy := figures["accuracy_by_timestep"][str(step)]),
            100 * (ann_accuracy - accuracy),
            costs[step]["spikes_per_neuron"],
            costs[step]["energy_nanojoules"],
            round(seconds, 1),
            sweep.images,
        ).as_json()
        for step in steps
    ]
    return {"rows": rows, "ann_energy_nanojoules": figures["ann_energy_nanojoules"]}


def rows_of(context: Context, network: Any, name: str, *, images: int, precision: str, **known: Any) -> list[Row]:
    """The rows of a trained network at 1, 2, 4, ... and all of its time steps.

    Args:
        context: of the command.
        network: in evaluation mode.
        name: as the table shows it.
        images: of the validation part.
        precision: of its training.
        **known: accuracy of the ANN (``ann_accuracy``) and the ``seconds`` of the training.
    """
    rows = []
    wanted = context.settings.timesteps
    batches = context.validation(images)
    for step in steps_to_read(wanted, wanted):
        figures = context.measure(network, batches, (step,), precision)
        accuracy = figures["accuracy"]
        rows.append(
            Row(
                name,
                step,
                accuracy,
                100 * (known["ann_accuracy"] - accuracy),
                figures["spikes_per_neuron"],
                figures["energy_nanojoules"],
                known["seconds"],
                images,
                known.get("trained", True),
            )
        )
    return rows
