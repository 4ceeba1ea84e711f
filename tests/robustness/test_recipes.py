"""A recipe that is valid field by field trains a step, or is refused in one line; nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikestill.data import DataSet, load
from spikestill.models import create
from spikestill.recipes import DistillRecipe, NetworkDescription, from_mapping
from spikestill.recipes.names import names, needs_teacher
from spikestill.train.loaders import make_batches
from spikestill.train.loop import _learner
from spikestill.types import InputError

NEURONS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["lif", "if"]),
        "leak": st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
        "threshold": st.sampled_from([0.5, 1.0, 2.0]),
        "reset": st.sampled_from(["soft", "hard"]),
        "order": st.sampled_from(["reset-then-leak", "leak-then-subtract"]),
        "detach_reset": st.booleans(),
        "learn": st.sampled_from([(), ("threshold",)]),
        "surrogate": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["sigmoid", "linear", "atan", "triangle", "rectangular"]),
                "options": st.sampled_from([{}, {}, {}, {"alpha": 2.0}]),
            }
        ),
    }
)
OBJECTIVES = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(names("objectives")),
            "weight": st.sampled_from([1.0, 0.5]),
            "options": st.sampled_from([{}, {}, {}, {"temperature": 2.0}, {"each_step": True}, {"tail": "trained"}]),
        }
    ),
    min_size=1,
    max_size=2,
)
RECIPES = st.fixed_dictionaries(
    {
        "student": st.sampled_from(["vgg5", "vgg5", "resnet20"]),
        "timesteps": st.integers(1, 4),
        "train_timesteps": st.sampled_from(["all", "anytime"]),
        "gradient": st.sampled_from(["rate", "bptt"]),
        "recompute": st.booleans(),
        "neuron": NEURONS,
        "encoder": st.sampled_from([{"name": "direct"}, {"name": "poisson"}, {"name": "events"}]),
        "max_pool": st.sampled_from(["keep", "average"]),
        "initialise": st.sampled_from(
            [
                "random",
                "random",
                "teacher-weights",
                "normalise",
                "threshold-balancing",
                "shift",
                "calibrate",
                "quantise",
            ]
        ),
        "objectives": OBJECTIVES,
        "ema": st.sampled_from([None, 0.9]),
        "precision": st.sampled_from(["float32", "bf16"]),
        "channels_last": st.booleans(),
    }
)
SMALL = {"method": "drawn", "width": 0.125, "batch_size": 4, "limit_train": 8, "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", limit_train=8, validation=4)


def step(fields: dict[str, Any], digits: DataSet) -> float:
    """One step, as ``execute`` comes to it; its loss."""
    wanted = fields.get("initialise", "random") != "random" or any(
        needs_teacher(term["name"]) for term in fields["objectives"]
    )
    recipe = from_mapping(DistillRecipe, {**SMALL, **fields, "teacher": "custom:ann" if wanted else None})
    description, cpu = NetworkDescription.of(recipe, digits), torch.device("cpu")
    ann = create(fields["student"], num_classes=10, in_channels=1, image_size=8, width=0.125).eval() if wanted else None
    batches = make_batches(recipe, digits, description, "train", cpu)
    learner = _learner(recipe, digits, description, None, ann, cpu, batches)
    images, labels, *known = next(iter(batches))
    loss, _, _ = learner.losses(learner.laid_out(images), labels, *known)
    loss.backward()
    return loss.item()


@given(fields=RECIPES)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_recipe_trains_or_is_refused_in_one_line(fields: dict[str, Any], digits: DataSet) -> None:
    refusal = ""
    try:
        step(fields, digits)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal


def test_the_plainest_recipe_trains(digits: DataSet) -> None:
    fields = {"student": "vgg5", "objectives": [{"name": "cross-entropy", "weight": 1.0, "options": {}}]}
    assert 1.0 < step(fields, digits) < 4.0
