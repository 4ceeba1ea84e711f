"""The table of models, held to what it says; one test a model and column, so that processes can share them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.models import (
    CASES,
    COLUMNS,
    Case,
    neurons,
    relative_error,
    replayed,
    restored_difference,
    training_step,
)
from spikestill.types import InputError

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

REFUSED = {
    "torchvision:vgg11_bn": "cannot export 'avgpool'",
    "torchvision:vgg16_bn": "cannot export 'avgpool'",
    "torchvision:googlenet": "cannot export 'maxpool1'",
    "timm:vgg16_bn": "cannot export 'pre_logits'",
}

every_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.slow
@every_model
def test_every_activation_becomes_a_neuron_and_with_relu_again_nothing_has_changed(case: Case) -> None:
    layers, rewritten = neurons(case)
    assert layers >= 10
    assert rewritten <= layers
    assert restored_difference(case) == 0


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_training_step_reaches_every_parameter(case: Case, gradient: str) -> None:
    step = training_step(case, gradient)  # type: ignore[arg-type]
    assert math.isfinite(step.loss)
    assert not step.without_gradient
    assert step.unmoved < 0.05


@pytest.mark.slow
@every_model
def test_a_conversion_approaches_the_ann(case: Case) -> None:
    """An output of zeros is 100 % apart."""
    assert relative_error(case) < 0.9


@pytest.mark.slow
@every_model
def test_a_file_replays_spike_for_spike_or_is_refused_by_name(case: Case) -> None:
    if case.name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[case.name]):
            replayed(case)
    else:
        found = replayed(case)
        assert found.differing == 0
        assert found.places > 10_000


def test_the_page_shows_the_table_that_the_command_prints() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert f"| model | {' | '.join(COLUMNS)} |" in lines
    shown = [line.split("`")[1] for line in lines[lines.index("## What has been tried") :] if line.startswith("| `")]
    assert shown == [case.name for case in CASES]
