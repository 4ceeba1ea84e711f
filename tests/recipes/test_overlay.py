"""Mappings laid over those of a recipe: from the command line, a mapping of fields, and experiment files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikestill.recipes import AnnRecipe, DistillRecipe, as_mapping, load
from spikestill.recipes.experiment import load_experiment
from spikestill.recipes.overlay import overlaid
from spikestill.types import InputError

LEAVES = st.integers(0, 3) | st.booleans() | st.none() | st.text("ab", max_size=2)
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3))
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, min_size=1, max_size=3)


def paths(tree: Any, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every leaf by its path."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {path: leaf for name, entry in tree.items() for path, leaf in paths(entry, (*prefix, name)).items()}


@given(MAPPINGS, MAPPINGS)
def test_every_leaf_above_is_there_and_every_one_below_that_nothing_stands_on(below: Any, above: Any) -> None:
    merged = paths(overlaid(AnnRecipe, {"model_options": below}, {"model_options": above})["model_options"])
    expected = paths(above)
    for path, leaf in paths(below).items():
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in expected):
            expected[path] = leaf
    assert merged == expected


def test_what_is_laid_over_stays_as_it_is_and_an_empty_mapping_empties() -> None:
    below = {"optimiser": {"lr": 1, "name": "sgd"}, "model_options": {"bias": False, "a": {"b": 1}}, "epochs": 3}
    over = {"optimiser": {"lr": 2}, "model_options": {"dropout": 0.2, "a": {"c": 2}}}
    assert overlaid(AnnRecipe, below, over) == {
        "optimiser": {"lr": 2, "name": "sgd"},
        "model_options": {"bias": False, "dropout": 0.2, "a": {"b": 1, "c": 2}},
        "epochs": 3,
    }
    assert below["model_options"] == {"bias": False, "a": {"b": 1}}
    assert overlaid(AnnRecipe, below, {"model_options": {}, "optimiser": {}}) == below | {"model_options": {}}


OF_LASNN = {"bias": False, "batch_norm": False, "pooling": "average", "dropout": 0.2}
LAYER_WISE = {"by": "layer", "start": "rest"}


@pytest.mark.parametrize(
    ("source", "words", "read", "expected"),
    [
        ("lasnn", ["--model_options", "{dropout: 0.1}"], "model_options", OF_LASNN | {"dropout": 0.1}),
        ("lasnn", ["--model-options={dropout: 0.1}"], "model_options", OF_LASNN | {"dropout": 0.1}),
        ("lasnn", ["--model-options={}"], "model_options", {}),
        ("lasnn", ["--model_options={a: 1}", "--model_options={b: 2}"], "model_options", OF_LASNN | {"a": 1, "b": 2}),
        (
            "lasnn",
            ["--conversion.options", "{percentile: 99}"],
            "conversion",
            {"images": 64, "options": {"timesteps": 100, "percentile": 99, "ann_logits": True} | LAYER_WISE},
        ),
        (
            "lasnn",
            ["--conversion", "{images: 8, options: {timesteps: 3}}"],
            "conversion",
            {"images": 8, "options": {"timesteps": 3, "percentile": 99.7, "ann_logits": True} | LAYER_WISE},
        ),
        (
            "calibration",
            ["--conversion.images=9"],
            "conversion",
            {"images": 9, "options": {"correct": "light"} | LAYER_WISE},
        ),
        (
            "conversion",
            ["--stages.source", "{epochs: 60, optimiser: {lr: 0.2}}"],
            "stages",
            {
                "teacher": None,
                "source": {
                    "epochs": 60,
                    "batch_size": 128,
                    "optimiser": {"name": "sgd", "lr": 0.2},
                    "schedule": {"name": "cosine", "warmup": 1},
                },
            },
        ),
        ("conversion", ["--stages.source=null", "--source=runs/a"], "stages", {"teacher": None, "source": None}),
    ],
)
def test_a_mapping_on_the_command_line_keeps_what_it_does_not_name(
    source: str, words: list[str], read: str, expected: Any
) -> None:
    assert as_mapping(load(DistillRecipe, source, words))[read] == expected


def test_nested_fields_given_as_one_mapping_keep_the_others() -> None:
    recipe = load(DistillRecipe, "lasnn", ["--neuron", "{leak: 0.5, surrogate: {options: {gamma: 1.0}}}"])
    assert (recipe.neuron.leak, recipe.neuron.order) == (0.5, "leak-then-subtract")
    assert (recipe.neuron.surrogate.name, recipe.neuron.surrogate.options) == ("linear", {"gamma": 1.0})
    recipe = load(AnnRecipe, "ann", ["--optimiser={lr: 0.3}", "--optimiser.momentum", "0.5"])
    assert (recipe.optimiser.lr, recipe.optimiser.momentum, recipe.optimiser.weight_decay) == (0.3, 0.5, 5e-4)


@pytest.mark.parametrize(
    ("source", "words", "options"),
    [
        ("blockwise", ["--neuron.surrogate.name=sigmoid"], {"alpha": 4.0}),
        ("blockwise", ["--neuron.surrogate.name", "linear"], {}),
        ("blockwise", ["--neuron.surrogate.name", "atan"], {}),
        ("blockwise", ["--neuron.surrogate.options={gamma: 2.0}", "--neuron.surrogate.name=linear"], {"gamma": 2.0}),
        ("blockwise", ["--neuron.surrogate", "{name: linear, options: {gamma: 2.0}}"], {"gamma": 2.0}),
        ("blockwise", ["--neuron", "{surrogate: {name: linear}}"], {}),
    ],
)
def test_the_options_of_another_surrogate_go_with_its_name(
    source: str, words: list[str], options: dict[str, float]
) -> None:
    assert load(DistillRecipe, source, ["--teacher=t", *words]).neuron.surrogate.options == options


def test_the_options_of_another_encoder_or_conversion_go_with_its_name() -> None:
    mine = {"encoder": {"name": "poisson", "options": {"scale": 2.0}}}
    assert load(DistillRecipe, {"method": "m"} | mine, ["--encoder.name=direct"]).encoder.options == {}
    assert load(DistillRecipe, {"method": "m"} | mine, ["--encoder.name=poisson"]).encoder.options == {"scale": 2.0}
    shifted = load(DistillRecipe, "calibration", ["--initialise", "shift"]).conversion
    assert (shifted.images, shifted.options) == (256, {})
    words = ["--conversion.options={percentile: 99}", "--initialise=shift"]
    assert load(DistillRecipe, "calibration", words).conversion.options == {"percentile": 99}
    # The default's name counts as one, too.
    fields = {"method": "m", "neuron": {"surrogate": {"options": {"alpha": 2.0}}}}
    assert load(DistillRecipe, fields, ["--neuron.surrogate.name=linear"]).neuron.surrogate.options == {}
    assert load(DistillRecipe, fields, ["--neuron.surrogate.name=sigmoid"]).neuron.surrogate.options == {"alpha": 2.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--neuron={leek: 0.5}"], r"unknown option 'neuron\.leek': did you mean 'neuron\.leak'"),
        (["--stages.source=3"], 'option "stages.source"'),
        (["--model_options=[1]"], 'option "model_options"'),
        (["--model_options={a: "], 'option "model_options"'),
        (["--stages={source: {epoch: 3}}"], r"unknown option 'stages\.source\.epoch'"),
        (["--initialise=shifty"], 'option "initialise"'),
        (["--encoder.name"], "argument --encoder.name: expected one argument"),
    ],
)
def test_wrong_mappings_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(DistillRecipe, "lasnn", words)
    assert "\n" not in str(caught.value)


def test_experiment_files_and_stages_keep_what_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "common: {augmentation: {crop: 2, flip: false}, data: digits}\n"
        "students:\n"
        "  {stages: {source: {epochs: 2}}, model_options: {bias: true}, conversion: {options: {percentile: 9}}}\n"
        "runs:\n"
        "  a: {recipe: lasnn, model_options: {dropout: 0.5}, conversion: {options: {timesteps: 7}}}\n"
        "  b: {recipe: lasnn, initialise: normalise, stages: {source: {augmentation: {crop: 1}, out: b}}}\n"
    )
    runs = {run.name: run.recipe for run in load_experiment(path).runs}
    first, second = runs["a"], runs["b"]
    assert isinstance(first, DistillRecipe)
    assert isinstance(second, DistillRecipe)
    assert first.model_options == OF_LASNN | {"bias": True, "dropout": 0.5}
    assert first.conversion.options == {"timesteps": 7, "percentile": 9, "ann_logits": True} | LAYER_WISE
    assert first.stages.source is not None
    assert (first.stages.source["epochs"], first.stages.source["clip_gradient"]) == (2, 2.0)
    assert second.conversion.options == {}
    stage = runs["b (source)"]
    assert (stage.augmentation.crop, stage.augmentation.flip) == (1, False)
