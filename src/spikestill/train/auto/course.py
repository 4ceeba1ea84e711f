"""The course of ``auto``, from top to bottom: look, convert, train if needed, choose, read the test set once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from spikestill.progress import duration
from spikestill.recipes import DistillRecipe
from spikestill.text import visible
from spikestill.train.auto.candidates import Candidate, conversions, random_start, starts, training_fields
from spikestill.train.auto.context import Context
from spikestill.train.auto.ledger import Ledger
from spikestill.train.auto.planning import SweepPlan
from spikestill.train.auto.result import recommendation
from spikestill.train.auto.sweep import check_ann, has_max_pool, measure_ann, measure_conversion, plan, rows_of
from spikestill.train.auto.table import Row, best_at, rows_from
from spikestill.train.auto.training import Training
from spikestill.types import InputError

__all__ = ["Course"]


class Course:
    """The steps of one ``auto``; each one's outcome is kept in the ledger.

    Args:
        context: networks, data and measurements.
        ledger: where outcomes are kept, and found again.
    """

    def __init__(self, context: Context, ledger: Ledger) -> None:
        self._context, self._ledger = context, ledger
        self._wanted, self._tolerance = context.settings.timesteps, context.settings.tolerance
        self._candidates: dict[str, Candidate] = {}

    def run(self) -> None:
        """Take every step that is not done yet."""
        report = check_ann(self._context)
        if report is None:
            self._context.recipe(**training_fields(random_start(), anytime=False))  # an unknown student is refused now
        ann = self._ledger.step("ann", lambda: measure_ann(self._context))
        if report is not None:
            self._ledger.step("check", lambda: str(report).splitlines())
            _say(str(report).splitlines()[-1])
        _say(f"the ANN: {ann['accuracy']:.2%} of {ann['images']} validation images of {ann['data']}")
        best = None
        if report is not None:
            best = self._convert(has_max_pool(report), ann)
        chosen, recipe = self._best_of(best, self._train(best, ann), ann)
        self._finish(chosen, recipe)

    @property
    def table(self) -> list[Row]:
        """Every row so far; a network that was measured again on more images stands there with those."""
        later = [self._ledger.find(name) for name in ("confirmed", "trained")]
        rows = [*self._rows_of_sweep, *(row for outcome in filter(None, later) for row in rows_from(outcome["rows"]))]
        return list({(row.method, row.timesteps): row for row in rows}.values())

    def _convert(self, max_pool: bool, ann: dict[str, Any]) -> Row:
        """Measure every conversion, and the best of them again on all images."""
        context, ledger = self._context, self._ledger
        found = conversions(has_max_pool=max_pool, levels=context.ann.levels)
        self._candidates = {candidate.name: candidate for candidate in found}
        if max_pool:
            ledger.reason(
                "the ANN takes maxima, which spikes approximate: every conversion is tried with every rule for them"
            )
        planned = ledger.step("sweep", lambda: self._plan_sweep(found, ann))
        sweep = SweepPlan(planned["images"], planned["longest"])
        for candidate in found:
            self._convert_one(candidate, sweep, planned)
        found_best = best_at(self._rows_of_sweep, self._wanted)
        if found_best is None:
            refusals = [ledger.find(f"conversion: {name}")["refused"] for name in self._candidates]
            raise InputError(f"no conversion of {context.settings.ann} is possible: {refusals[0]}")
        best = self._confirmed(found_best, ann)
        ledger.reason(
            f"of the conversions, {best.method} is the best at T = {self._wanted}: {best.accuracy:.2%} of "
            f"{best.images} validation images"
        )
        return best

    @property
    def _rows_of_sweep(self) -> list[Row]:
        outcomes = filter(None, (self._ledger.find(f"conversion: {name}") for name in self._candidates))
        return [row for outcome in outcomes for row in rows_from(outcome["rows"])]

    def _confirmed(self, best: Row, ann: dict[str, Any]) -> Row:
        """The best conversion on all the images that the ANN was measured on, if it saw fewer."""
        if best.images == ann["images"]:
            return best
        rows = self._ledger.step("confirmed", lambda: {"rows": self._measured_again(best, ann)})["rows"]
        again = best_at(rows_from(rows), self._wanted)
        assert again is not None
        return again

    def _plan_sweep(self, found: list[Candidate], ann: dict[str, Any]) -> dict[str, Any]:
        planned = plan(self._context, found)
        accuracy = ann["accuracy"]
        if planned["images"] < ann["images"]:
            batches = self._context.validation(planned["images"])
            accuracy = self._context.measure(self._context.ann.network, batches)["accuracy"]
        return planned | {"ann_accuracy": accuracy}

    def _convert_one(self, candidate: Candidate, sweep: SweepPlan, planned: dict[str, Any]) -> None:
        settings, ledger = self._context.settings, self._ledger

        def work() -> dict[str, Any]:
            if ledger.seconds > settings.budget / 2 and best_at(self._rows_of_sweep, self._wanted) is not None:
                return {"refused": "half of the budget was over", "rows": []}
            return measure_conversion(self._context, candidate, sweep, planned["ann_accuracy"])

        outcome = ledger.step(f"conversion: {candidate.name}", work)
        if "refused" in outcome:
            ledger.reason(f"{candidate.name} was left out: {outcome['refused']}")
            _say(f"{candidate.name}: left out, {outcome['refused']}")
            return
        accuracy = "  ".join(f"T = {row['timesteps']}: {row['accuracy']:.1%}" for row in outcome["rows"])
        _say(f"{candidate.name}: {accuracy}")

    def _measured_again(self, best: Row, ann: dict[str, Any]) -> list[dict[str, Any]]:
        network = self._context.student(self._context.recipe(**self._candidates[best.method].fields))
        known = {"ann_accuracy": ann["accuracy"], "seconds": best.seconds, "trained": False}
        rows = rows_of(self._context, network, best.method, images=ann["images"], precision="float32", **known)
        return [row.as_json() for row in rows]

    def _train(self, best: Row | None, ann: dict[str, Any]) -> tuple[Row, DistillRecipe] | None:
        """Train from the best start, if no conversion is good enough and the budget allows it."""
        ledger = self._ledger
        if best is not None and best.gap <= self._tolerance:
            ledger.reason(f"that is {best.gap:.2f} points below the ANN, within the tolerance: nothing is trained")
            return None
        if best is not None:
            ledger.reason(
                f"that is {best.gap:.2f} points below the ANN, more than the tolerance of {self._tolerance:g}: a "
                "student is trained"
            )
        candidate = None if best is None else self._candidates[best.method]
        training = Training(self._context, ledger, starts(candidate, levels=self._context.ann.levels), best, ann)
        trained = training.run()
        if trained is None:
            return None
        outcome, recipe = trained
        row = best_at(rows_from(outcome["rows"]), self._wanted)
        assert row is not None
        _say(f"{row.method}: {row.accuracy:.2%} of {row.images} validation images at T = {row.timesteps}")
        return row, recipe

    def _best_of(
        self, converted: Row | None, trained: tuple[Row, DistillRecipe] | None, ann: dict[str, Any]
    ) -> tuple[Row, DistillRecipe]:
        """The most accurate at the wanted T, on the validation images."""
        if trained is not None and (converted is None or trained[0].accuracy >= converted.accuracy):
            return trained
        if converted is None:
            budget = duration(self._context.settings.budget)
            raise InputError(
                f"the budget of {budget} leaves no time to train {self._context.settings.student}: raise --budget"
            )
        if trained is not None:
            self._ledger.reason("the trained student is less accurate than the conversion, which is therefore taken")
        fields = self._candidates[converted.method].fields
        recipe = self._context.recipe(
            **fields, method="conversion", epochs=0, out=str(self._context.folder / "conversion")
        )
        return converted, recipe

    def _finish(self, chosen: Row, recipe: DistillRecipe) -> None:
        context, ledger = self._context, self._ledger
        test = ledger.step("test", lambda: self._read_test(recipe))
        share = test["student_energy_nanojoules"] / max(test["ann_energy_nanojoules"], 1e-12)
        ledger.write_table([row.as_json() for row in self.table])
        sentence = recommendation(
            chosen,
            self.table,
            test=test,
            tolerance=self._tolerance,
            energy_share=share,
            run=str(context.folder / test["run"]),
        )
        ledger.step(
            "done",
            lambda: {"method": chosen.method, "recommendation": sentence, "table": [asdict(row) for row in self.table]},
        )

    def _read_test(self, recipe: DistillRecipe) -> dict[str, Any]:
        """The test set, once: the chosen student, by its run, and the ANN."""
        run = self._context.train(recipe, read_test=True)
        result = run.read_json("result.json")
        accuracy = self._context.measure(self._context.ann.network, self._context.test())["accuracy"]
        return {
            "run": run.folder.name,
            "student": result["test_accuracy"],
            "student_by_timestep": result["test_accuracy_by_timestep"],
            "ann": accuracy,
            "student_energy_nanojoules": result["test_energy_nanojoules"],
            "ann_energy_nanojoules": result["test_ann_energy_nanojoules"],
            "images": result["images"]["test"],
        }


def _say(text: str) -> None:
    print(visible(text), flush=True)
