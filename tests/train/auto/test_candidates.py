from __future__ import annotations

from typing import Any

import pytest

from spikestill.recipes import DistillRecipe, load
from spikestill.train.auto import candidates
from spikestill.train.auto.candidates import conversions, random_start, starts, training_fields, without_blockwise

TEACHER = {"teacher": "runs/ann", "student": "vgg5"}


def recipe(**fields: Any) -> DistillRecipe:
    return load(DistillRecipe, {"method": "auto", "epochs": 1, "objectives": [{"name": "logits"}]} | TEACHER | fields)


@pytest.mark.parametrize("has_max_pool", [False, True])
def test_every_candidate_is_a_recipe_and_has_a_name_of_its_own(has_max_pool: bool) -> None:
    found = conversions(has_max_pool=has_max_pool, levels=None)
    assert len({candidate.name for candidate in found}) == len(found) >= 6
    for candidate in found:
        assert recipe(**candidate.fields).converts
        assert recipe(**candidate.fields).neuron.name == "if"
    rules = [candidate.fields["max_pool"] for candidate in found]
    assert set(rules) == ({"keep", "average"} if has_max_pool else {"keep"})
    assert rules == sorted(rules, reverse=True)  # averages last


def test_a_method_that_recipes_do_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_METHODS", (("new", "unheard-of", {}), ("shift", "shift", {})))
    assert [one.name for one in conversions(has_max_pool=False, levels=None)] == ["shift"]


def test_a_quantised_ann_has_the_one_conversion_that_it_was_trained_for() -> None:
    (only,) = conversions(has_max_pool=False, levels=4)
    assert only.fields["initialise"] == "quantise"
    assert "weights" not in {start.key for start in starts(only, levels=4)}


def test_a_training_starts_from_the_best_conversion_or_the_weights() -> None:
    best = conversions(has_max_pool=False, levels=None)[0]
    found = {start.key: recipe(**training_fields(start, anytime=True)) for start in starts(best, levels=None)}
    assert (found["conversion"].initialise, found["conversion"].neuron.name) == (best.fields["initialise"], "if")
    assert found["conversion"].optimiser.lr == 0.001
    assert (found["weights"].initialise, found["weights"].neuron.leak) == ("teacher-weights", 0.2)
    assert found["weights"].optimiser.lr == 0.003
    for one in found.values():
        assert one.train_timesteps == "anytime"
        assert (one.gradient, one.schedule.name, one.schedule.warmup) == ("rate", "cosine", 0)
        assert [(term.name, term.weight) for term in one.objectives] == [
            ("cross-entropy", 1.0),
            ("logits", 0.3),
            ("blockwise", 0.5),
        ]


def test_another_student_starts_from_random_weights() -> None:
    (only,) = starts(None, levels=None)
    assert only == random_start()
    fields = without_blockwise(training_fields(only, anytime=False))
    assert [term["name"] for term in fields["objectives"]] == ["cross-entropy", "logits"]
    assert recipe(**fields).train_timesteps == "all"


def test_new_options_of_conversion_are_tried_where_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_takes", lambda _: True)
    found = conversions(has_max_pool=True, levels=None)
    assert found[0].fields["conversion"]["options"]["max_pool"] == "gate"
    kept = next(start for start in starts(found[0], levels=None) if start.key == "kept")
    assert kept.fields["conversion"]["options"]["batch_norm"] == "keep"
    assert "batch_norm" not in found[0].fields["conversion"]["options"]
