"""The training that ``auto`` plans: which start, in what precision, for how long, from measured seconds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from spikestill.recipes import DistillRecipe
from spikestill.runs import Run
from spikestill.text import visible
from spikestill.train.auto.candidates import Start, training_fields, without_blockwise
from spikestill.train.auto.context import Context
from spikestill.train.auto.ledger import Ledger
from spikestill.train.auto.planning import plan_training, plan_trials
from spikestill.train.auto.probe import faster_layout, seconds_per_image_step, seconds_per_step
from spikestill.train.auto.sweep import rows_of
from spikestill.train.auto.table import Row
from spikestill.types import InputError

__all__ = ["Training"]

_GOOD_ENOUGH = 0.8
"""Without time for trials, a conversion of at least this share of the ANN's accuracy is the start."""

_LEAST_SHARE_OF_PROBE = 0.25
"""A trial's steps are never taken to be faster than this share of the probe's: what it ran beside has noise."""


_NOT_FINITE = "the loss is not finite"
"""What a training says when it ends for that reason."""


class Training:
    """One training within a budget.

    Args:
        context: networks, data and measurements.
        ledger: where outcomes are kept.
        starts: what it may start from, the first of them where nothing else decides.
        best: the best conversion's row.
        ann: the outcome of measuring the ANN.
    """

    def __init__(
        self, context: Context, ledger: Ledger, starts: list[Start], best: Row | None, ann: dict[str, Any]
    ) -> None:
        self._context, self._ledger, self._best, self._ann = context, ledger, best, ann
        self._starts = {start.key: start for start in starts}

    def run(self) -> tuple[dict[str, Any], DistillRecipe] | None:
        """The outcome (its rows) and the recipe; None where the budget leaves too little time."""
        ledger = self._ledger
        probe = ledger.step("probe", self._probe)
        for reason in probe["reasons"]:
            ledger.reason(reason)
        start, per_step = self._choose_start(probe)
        planned = ledger.step("plan", lambda: self._plan(probe, per_step))
        if planned["training"] is None:
            ledger.reason(
                f"nothing is trained: {planned['left']:.0f} seconds of the budget are left, too few at "
                f"{per_step:.2f} a step; a longer --budget would train"
            )
            return None
        course = planned["training"]
        of = "all images" if course["images"] is None else f"{course['images']} images"
        text = (
            f"{course['epochs']} epochs of {of} ({course['steps']} steps of {per_step:.3f} s) fit into the "
            f"{planned['left']:.0f} seconds that are left, with {planned['kept']:.0f} kept for validation and test"
        )
        ledger.reason(text)
        print(visible(text), flush=True)
        recipe = self._recipe(start, probe, epochs=course["epochs"], images=course["images"], folder="trained")
        outcome = ledger.step("trained", lambda: self._train(recipe, start))
        if not outcome["rows"]:
            ledger.reason(f"the training ended without a student: {outcome['refused']}")
            return None
        return outcome, recipe

    def _recipe(
        self, start: Start, probe: dict[str, Any], *, epochs: int, images: int | None, folder: str
    ) -> DistillRecipe:
        fields = self._fields(start, blockwise=probe["blockwise"]) | probe["layout"]
        fields |= {"epochs": epochs, "out": str(self._context.folder / folder)}
        return self._context.recipe(**fields, **({} if images is None else {"limit_train": images}))

    def _fields(self, start: Start, *, blockwise: bool) -> dict[str, Any]:
        fields = training_fields(start, anytime=self._context.settings.anytime)
        return fields if blockwise else without_blockwise(fields)

    def _probe(self) -> dict[str, Any]:
        """Seconds of a step from every start, in the faster precision, and whether the networks can be cut."""
        context, reasons, blockwise = self._context, [], True
        first, *others = self._starts.values()
        try:
            found = faster_layout(context, context.recipe(**self._fields(first, blockwise=True)))
        except InputError as error:
            blockwise = False
            try:
                found = faster_layout(context, context.recipe(**self._fields(first, blockwise=False)))
            except InputError:
                raise error from None
            reasons.append(
                f"the student learns from labels and logits alone, since block-wise replacement refused: {error}"
            )
        if len(found["seconds"]) > 1:
            measured = ", ".join(f"{name} {seconds:.3f}" for name, seconds in found["seconds"].items())
            reasons.append(f"it is trained in {found['layout']['precision']}: seconds of a step were {measured}")
        per_step = {first.key: found["seconds_per_step"]}
        for start in others:
            recipe = context.recipe(**self._fields(start, blockwise=blockwise), **found["layout"])
            per_step[start.key] = seconds_per_step(context, recipe)
        recipe = context.recipe(**self._fields(first, blockwise=blockwise), **found["layout"])
        each = seconds_per_image_step(context, context.student(recipe), recipe.precision)
        return {
            "layout": found["layout"],
            "blockwise": blockwise,
            "seconds_per_step": per_step,
            "seconds_per_image_step": each,
            "reasons": reasons,
        }

    @property
    def _left(self) -> float:
        return self._context.settings.budget - self._ledger.seconds

    def _choose_start(self, probe: dict[str, Any]) -> tuple[Start, float]:
        """The start that a short trial favours, and the seconds of a step from it."""
        ledger, starts, seconds = self._ledger, self._starts, probe["seconds_per_step"]
        images, batch = len(self._context.ann.data.train), self._context.settings.batch_size
        epoch = max(images // batch, 1)
        steps = ledger.step(
            "trials", lambda: plan_trials(self._left, max(seconds.values()), starts=len(starts), epoch=epoch)
        )
        if steps == 0:
            start = self._start_without_trial()
            return start, seconds[start.key]
        outcomes = {key: self._trial(start, probe, steps) for key, start in starts.items()}
        best = max(outcomes, key=lambda key: outcomes[key]["accuracy"])
        listed = ", ".join(f"{outcomes[key]['accuracy']:.2%} from {starts[key].name}" for key in outcomes)
        ledger.reason(f"the training starts from {starts[best].name}: after {steps} steps on trial, {listed}")
        measured = (outcomes[best]["seconds"] - self._validation_seconds(probe)) / steps
        return starts[best], max(measured, _LEAST_SHARE_OF_PROBE * seconds[best])

    def _start_without_trial(self) -> Start:
        first, *others = self._starts.values()
        if not others or self._best is None:
            return first
        start = first if self._best.accuracy >= _GOOD_ENOUGH * self._ann["accuracy"] else others[0]
        self._ledger.reason(
            f"the training starts from {start.name}, without a trial for want of time: the conversion has "
            f"{self._best.accuracy / self._ann['accuracy']:.0%} of the ANN's accuracy"
        )
        return start

    def _trial(self, start: Start, probe: dict[str, Any], steps: int) -> dict[str, Any]:
        outcome: dict[str, Any] = self._ledger.step(f"trial: {start.key}", lambda: self._try(start, probe, steps))
        return outcome

    def _try(self, start: Start, probe: dict[str, Any], steps: int) -> dict[str, Any]:
        print(visible(f"on trial, {steps} steps from {start.name}:"), flush=True)
        images = steps * self._context.settings.batch_size
        recipe = self._recipe(start, probe, epochs=1, images=images, folder=f"trial-{start.key}")
        trained = self._trained(recipe)
        if isinstance(trained, str):
            return {"accuracy": 0.0, "seconds": 0.0, "steps": steps, "refused": trained}
        row = trained.read_table("metrics.csv")[-1]
        return {"accuracy": float(row["validation_accuracy"]), "seconds": float(row["seconds"]), "steps": steps}

    def _trained(self, recipe: DistillRecipe) -> Run | str:
        """The run, trained; or why a loss that is not finite ended it, since there is a conversion to fall back on."""
        try:
            return self._context.train(recipe, read_test=False)
        except InputError as error:
            if _NOT_FINITE not in str(error):
                raise
            return str(error)

    def _validation_seconds(self, probe: dict[str, Any]) -> float:
        images = len(self._context.ann.data.validation)
        return float(probe["seconds_per_image_step"]) * images * self._context.settings.timesteps

    def _plan(self, probe: dict[str, Any], per_step: float) -> dict[str, Any]:
        settings, data = self._context.settings, self._context.ann.data
        # 1 + 2 + 4 + ... + T steps of every validation image; T of every test image, seen twice (figures, evidence).
        image_steps = 2 * settings.timesteps * (self._ann["images"] + len(data.test))
        kept = image_steps * probe["seconds_per_image_step"]
        left = self._left
        planned = plan_training(
            left,
            seconds_per_step=per_step,
            seconds_per_validation=self._validation_seconds(probe),
            seconds_at_the_end=kept,
            images=len(data.train),
            batch_size=settings.batch_size,
            most_epochs=settings.epochs,
        )
        return {"left": left, "kept": kept, "training": None if planned is None else asdict(planned)}

    def _train(self, recipe: DistillRecipe, start: Start) -> dict[str, Any]:
        run = self._trained(recipe)
        if isinstance(run, str):
            return {"rows": [], "refused": run}
        name = f"trained from {start.name}"
        seconds = float(run.read_table("metrics.csv")[-1]["seconds"])
        rows = rows_of(
            self._context,
            self._context.trained(recipe, run),
            name,
            images=self._ann["images"],
            precision=recipe.precision,
            ann_accuracy=self._ann["accuracy"],
            seconds=seconds,
        )
        return {"rows": [row.as_json() for row in rows]}
