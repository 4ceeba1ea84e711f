"""Anytime training: a drawn number of time steps for every training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from spikestill.graph import SpikingNetwork
from spikestill.recipes import Anytime, DistillRecipe
from spikestill.runs import Run
from spikestill.train import train
from spikestill.train.anytime import draw_timesteps
from tests.train.test_guidance import GUIDED, prepared, resumed_after

StudentMaker = Callable[..., DistillRecipe]
ANYTIME = {"train_timesteps": "anytime", "timesteps": 4}


@given(
    st.integers(1, 9),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**40),
    st.integers(1, 500).flatmap(lambda steps: st.tuples(st.integers(0, steps - 1), st.just(steps))),
)
def test_the_draw_lies_in_1_to_t(timesteps: int, full: float, final: float, seed: int, at: tuple[int, int]) -> None:
    drawn = draw_timesteps(Anytime(full=full, final=final), timesteps, seed=seed, step=at[0], steps=at[1])
    assert 1 <= drawn <= timesteps
    if full == 1 or at[0] >= round((1 - final) * at[1]):
        assert drawn == timesteps


def test_t_is_drawn_with_its_probability_and_the_others_share_the_rest() -> None:
    steps = 8000
    drawn = [draw_timesteps(Anytime(final=0.0), 4, seed=1, step=step, steps=steps) for step in range(steps)]
    counts = Counter(drawn)
    for timesteps, share in ((4, 1 / 2), (3, 1 / 6), (2, 1 / 6), (1, 1 / 6)):
        assert counts[timesteps] / steps == pytest.approx(share, abs=4 * (share * (1 - share) / steps) ** 0.5)
    assert Counter(drawn[::2]) != Counter(drawn[1::2])
    other = [draw_timesteps(Anytime(final=0.0), 4, seed=2, step=step, steps=steps) for step in range(50)]
    assert other != drawn[:50]


def test_the_last_share_of_the_training_runs_all_steps() -> None:
    drawn = [draw_timesteps(Anytime(full=0.0), 4, seed=0, step=step, steps=100) for step in range(100)]
    assert drawn[80:] == [4] * 20
    assert max(drawn[:80]) == 3


def steps_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Takes note of the number of time steps of every training step."""
    seen: list[int] = []
    plain = SpikingNetwork.record

    def noted(self: SpikingNetwork, images: Any, taps: Any = (), timesteps: int | None = None) -> Any:
        if self.training:
            seen.append(self.timesteps if timesteps is None else timesteps)
        return plain(self, images, taps, timesteps)

    monkeypatch.setattr(SpikingNetwork, "record", noted)
    return seen


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_student_learns_anytime_and_its_metrics_say_the_mean_number_of_steps(
    student_recipe: StudentMaker, teacher: Run, monkeypatch: pytest.MonkeyPatch, gradient: str
) -> None:
    seen = steps_run(monkeypatch)
    run = train(student_recipe(teacher=str(teacher.folder), objectives=GUIDED, gradient=gradient, **ANYTIME))
    assert seen == [draw_timesteps(Anytime(), 4, seed=0, step=step, steps=10) for step in range(10)]
    assert len(set(seen[:8])) > 1
    assert seen[8:] == [4, 4]
    rows = run.read_table("metrics.csv")
    for row, drawn in zip(rows, (seen[:5], seen[5:]), strict=True):
        assert float(row["train_timesteps"]) == pytest.approx(
            sum(drawn) / 5, rel=0.05
        )  # batches differ a little in size
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    terms = sum(w * float(rows[0][f"train_{n}"]) for n, w in (("cross-entropy", 1), ("logits", 1), ("blockwise", 0.5)))
    assert float(rows[0]["train_loss"]) == pytest.approx(terms, rel=1e-4)
    assert list(run.read_json("result.json")["test_accuracy_by_timestep"]) == ["1", "2", "3", "4"]


def test_an_ordinary_training_runs_all_steps(student_recipe: StudentMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = steps_run(monkeypatch)
    run = train(student_recipe(timesteps=3, epochs=1))
    assert seen == [3] * 5
    assert "train_timesteps" not in run.read_table("metrics.csv")[0]


def test_the_pieces_of_a_batch_have_one_number_of_steps(
    student_recipe: StudentMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_run(monkeypatch)
    train(student_recipe(accumulate=2, epochs=4, **ANYTIME))
    assert seen[::2] == seen[1::2] == [draw_timesteps(Anytime(), 4, seed=0, step=step, steps=20) for step in range(20)]


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("read_out", ["mean", "sum"])
def test_a_batch_with_t_drawn_is_one_of_a_network_of_that_t(
    student_recipe: StudentMaker, teacher: Run, gradient: str, read_out: str
) -> None:
    terms = [{"name": "cross-entropy", "options": {"read_out": read_out}}, *GUIDED[1:]]
    if gradient == "bptt":
        terms += [{"name": "own-ensemble"}, {"name": "selective"}]
    fields = {"teacher": str(teacher.folder), "objectives": terms, "gradient": gradient, "neuron": {"threshold": 0.3}}
    drawn = prepared(student_recipe(anytime={"full": 0.0, "final": 0.0}, **ANYTIME, **fields)).train()
    images, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    expected = draw_timesteps(Anytime(full=0.0, final=0.0), 4, seed=0, step=0, steps=10)
    fixed = prepared(student_recipe(timesteps=expected, **fields)).train()
    fixed.load_state_dict(drawn.state_dict())
    losses = []
    for learner in (drawn, fixed):
        loss, _, _ = learner.losses(images, labels)
        loss.backward()
        losses.append(loss.detach())
    assert expected < 4
    assert torch.equal(*losses)
    for (name, one), (_, two) in zip(drawn.named_parameters(), fixed.named_parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.equal(one.grad, two.grad), name  # type: ignore[arg-type]
    for one, two in zip(drawn.buffers(), fixed.buffers(), strict=True):
        assert torch.equal(one, two)


def test_a_resume_draws_the_same(
    student_recipe: StudentMaker, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = [{"name": "cross-entropy"}, {"name": "blockwise", "options": {"tail": "trained"}}, {"name": "branches"}]
    fields: dict[str, Any] = {"teacher": str(teacher.folder), "objectives": terms} | ANYTIME
    whole = train(student_recipe(out=str(tmp_path / "whole"), **fields))
    resumed = resumed_after(3, student_recipe(out=str(tmp_path / "broken"), **fields), monkeypatch)
    one, two = (load_file(run.folder / "student.safetensors") for run in (whole, resumed))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    figures = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_table("metrics.csv")]
        for run in (whole, resumed)
    ]
    assert figures[0] == figures[1]


def test_with_one_time_step_anytime_is_the_ordinary_training(student_recipe: StudentMaker, tmp_path: Path) -> None:
    runs = [
        train(student_recipe(timesteps=1, epochs=1, train_timesteps=mode, out=str(tmp_path / mode)))
        for mode in ("all", "anytime")
    ]
    one, two = (load_file(run.folder / "student.safetensors") for run in runs)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
