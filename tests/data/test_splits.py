from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestill.data.splits import balanced_subset, share_to_count, stratified_split
from spikestill.types import InputError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(lambda values: torch.tensor(values))
SEEDS = st.integers(0, 2**40)


@given(labels=LABELS, share=st.floats(0, 1), seed=SEEDS)
def test_split_is_disjoint_complete_stratified_and_repeatable(labels: torch.Tensor, share: float, seed: int) -> None:
    present, sizes = labels.unique(return_counts=True)
    count = min(round(share * len(labels)), len(labels) - len(present))
    stay, taken = stratified_split(labels, count, seed, "validation")
    assert len(taken) == count
    assert sorted([*stay.tolist(), *taken.tolist()]) == list(range(len(labels)))
    assert stay.tolist() == sorted(stay.tolist())
    again = stratified_split(labels, count, seed, "validation")
    assert torch.equal(stay, again[0])
    assert torch.equal(taken, again[1])
    # Every class keeps an image; where none was held back for that, each class's share is right to below one image.
    assert set(labels[stay].tolist()) == set(present.tolist())
    ideal = {int(value): count * int(size) / len(labels) for value, size in zip(present, sizes, strict=True)}
    if all(ideal[int(value)] <= int(size) - 1 for value, size in zip(present, sizes, strict=True)):
        for value in present.tolist():
            assert math.floor(ideal[value]) <= int((labels[taken] == value).sum()) <= math.ceil(ideal[value])


def test_split_depends_on_seed_and_purpose() -> None:
    labels = torch.arange(200) % 4
    choices = {
        tuple(stratified_split(labels, 40, *parts)[1].tolist())
        for parts in [(0, "a"), (1, "a"), (0, "b"), (2**35, "a")]
    }
    assert len(choices) == 4


def test_split_is_the_same_everywhere() -> None:
    # Pinned: the generator's stream is frozen, so no version of a library may move these.
    assert stratified_split(torch.arange(20) % 2, 6, 0, "validation")[1].tolist() == [2, 4, 7, 11, 15, 16]


def test_split_refuses_to_empty_a_class() -> None:
    with pytest.raises(InputError, match=r"cannot take 3 of 4 images .* so 2 is the most"):
        stratified_split(torch.tensor([0, 0, 1, 1]), 3, 0)


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_subset_is_balanced_and_nested(labels: torch.Tensor, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels)))
    rows = balanced_subset(labels, count, seed)
    assert len(rows) == len(set(rows.tolist())) == count
    sizes = labels.bincount(minlength=6)
    kept = labels[rows].bincount(minlength=6)
    # No class has two images more than one that still had some to give.
    open_classes = kept[kept < sizes]
    if len(open_classes):
        assert int(kept.max()) <= int(open_classes.min()) + 1
    smaller = balanced_subset(labels, count // 2, seed)
    assert set(smaller.tolist()) <= set(rows.tolist())


@pytest.mark.parametrize(
    ("share", "count"),
    [(1, 1), (1.0, 50), (0, 0), (0.0, 0), (0.5, 25), (0.001, 1), (7, 7), (1000, 50)],
)
def test_a_share_is_a_count_or_a_fraction(share: float, count: int) -> None:
    assert share_to_count(share, 50, "limit_train") == count


@pytest.mark.parametrize("share", [-1, -0.5, 1.5, float("nan"), float("inf"), True, "0.5", None])
def test_a_share_out_of_range_is_refused(share: object) -> None:
    with pytest.raises(InputError, match="limit_train"):
        share_to_count(share, 50, "limit_train")  # type: ignore[arg-type]
