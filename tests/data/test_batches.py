from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestill.data import Augmentation, Batches, ImageSet
from spikestill.types import InputError

Images = Callable[..., ImageSet]
Batch = tuple[torch.Tensor, torch.Tensor]


def numbered(count: int) -> ImageSet:
    """Image i is filled with the value i and has label i."""
    values = torch.arange(count)
    return ImageSet(values.to(torch.uint8)[:, None, None, None].expand(count, 1, 5, 5).contiguous(), values)


def batches(images: ImageSet, **options: Any) -> Batches:
    channels = images.shape[0]
    return Batches(images, **{"batch_size": 4, "mean": (0.0,) * channels, "std": (1.0,) * channels, **options})


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def test_images_in_order_with_their_labels() -> None:
    loader = batches(numbered(10))
    result = list(loader)
    assert len(loader) == len(result) == 3
    assert [len(labels) for _, labels in result] == [4, 4, 2]
    assert torch.cat([labels for _, labels in result]).tolist() == list(range(10))
    for images, labels in result:
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        torch.testing.assert_close(images[:, 0, 2, 3] * 255, labels.float())


@pytest.mark.parametrize("augmentation", [None, Augmentation(crop=0, flip=False)])
def test_what_accompanies_a_batch_is_that_of_its_images(augmentation: Augmentation | None) -> None:
    loader = batches(numbered(10), shuffle=True, augmentation=augmentation)
    loader.accompany(lambda images: images.sum((1, 2, 3)))
    for _ in range(2):
        for images, _, sums in loader:
            torch.testing.assert_close(sums, images.sum((1, 2, 3)))


def test_what_is_augmented_has_no_companion() -> None:
    loader = batches(numbered(10), augmentation=Augmentation(crop=0))
    with pytest.raises(InputError, match="what is augmented cannot be computed once"):
        loader.accompany(lambda images: images)


def test_drop_last() -> None:
    loader = batches(numbered(10), drop_last=True)
    assert len(loader) == len(list(loader)) == 2


def test_each_epoch_is_a_new_permutation() -> None:
    loader = batches(numbered(40), shuffle=True)
    orders = []
    for _ in range(3):
        epoch = list(loader)
        labels = torch.cat([labels for _, labels in epoch])
        torch.testing.assert_close(torch.cat([images for images, _ in epoch])[:, 0, 0, 0] * 255, labels.float())
        assert sorted(labels.tolist()) == list(range(40))
        orders.append(tuple(labels.tolist()))
    assert len(set(orders)) == 3
    other = batches(numbered(40), shuffle=True, seed=1)
    assert tuple(torch.cat([labels for _, labels in other]).tolist()) not in orders
    again = batches(numbered(40), shuffle=True)
    assert [tuple(torch.cat([labels for _, labels in again]).tolist()) for _ in range(3)] == orders


@pytest.mark.parametrize("channels", [1, 3])
def test_the_plain_layout_which_any_network_takes(channels: int) -> None:
    part = ImageSet(torch.zeros(8, channels, 6, 6, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    loader = Batches(part, batch_size=4, mean=[0.5] * channels, std=[0.2] * channels, augmentation=Augmentation())
    images, _ = next(iter(loader))
    assert images.stride() == (36 * channels, 36, 6, 1)


def test_an_epoch_that_was_broken_off_is_over() -> None:
    loader, reference = (batches(numbered(12), shuffle=True) for _ in range(2))
    epochs = [list(reference) for _ in range(2)]
    assert same(list(islice(loader, 2)), epochs[0][:2])
    assert same(list(loader), epochs[1])


def test_an_iterator_that_was_never_asked_counts_for_nothing() -> None:
    loader, reference = (batches(numbered(12), shuffle=True) for _ in range(2))
    iter(loader)
    assert same(list(loader), list(reference))


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 9),
    stop=st.integers(0, 40),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**40),
    automatic=st.booleans(),
)
def test_resume_gives_the_same_bits(
    count: int, batch_size: int, stop: int, shuffle: bool, seed: int, automatic: bool
) -> None:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8, generator=generator)
    augmentation = Augmentation(crop=2, cutout=3, autoaugment=automatic)

    def fresh() -> Batches:
        return batches(
            ImageSet(pixels, torch.arange(count)),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            augmentation=augmentation,
        )

    whole = fresh()
    expected = [batch for _ in range(3) for batch in whole]
    stop = min(stop, 2 * len(whole))
    first = fresh()
    seen: list[Batch] = []
    while len(seen) < stop:
        seen += islice(first, min(len(first), stop - len(seen)))
    second = fresh()
    second.load_state_dict(first.state_dict())
    # The global generator must play no part.
    torch.manual_seed(stop)
    while len(seen) < len(expected):
        seen += second
    assert same(seen, expected)


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    processes=st.integers(1, 4),
    divided=st.integers(1, 3),
    automatic=st.booleans(),
)
def test_shards_and_pieces_together_are_the_batch(
    count: int, batch_size: int, processes: int, divided: int, automatic: bool
) -> None:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8, generator=generator)
    augmentation = Augmentation(crop=2, cutout=3, autoaugment=automatic)
    options = {"batch_size": batch_size, "shuffle": True, "augmentation": augmentation, "drop_last": count > batch_size}

    def loader(**more: Any) -> Batches:
        return batches(ImageSet(pixels, torch.arange(count)), **options, **more)

    if min(count, batch_size) < processes * divided:
        with pytest.raises(InputError, match=f"cannot be shared by {processes} processes"):
            loader(shard=(0, processes), divided=divided)
        return
    whole = loader()
    shards = [loader(shard=(rank, processes), divided=divided) for rank in range(processes)]
    for _ in range(2):
        expected, parts = list(whole), [list(shard) for shard in shards]
        assert {len(part) for part in parts} == {len(shards[0])} == {len(expected) * divided}
        put_together = [
            tuple(
                torch.cat(
                    [
                        parts[rank][index * divided + piece][item]
                        for piece in range(divided)
                        for rank in range(processes)
                    ]
                )
                for item in range(2)
            )
            for index in range(len(expected))
        ]
        assert same(put_together, expected)  # type: ignore[arg-type]
        sizes = [len(labels) for part in parts for _, labels in part]
        assert max(sizes) - min(sizes) <= 2
        assert sum(sizes) / len(sizes) == pytest.approx(shards[0].usual_size)


@pytest.mark.parametrize(("count", "processes"), [(9, 2), (10, 3), (8, 4), (4, 4)])
def test_shards_of_an_evaluation_give_each_image_once(count: int, processes: int) -> None:
    """The last batch may have fewer images than there are processes: some then have a batch less, none an empty one."""
    shards = [batches(numbered(count), shard=(rank, processes)) for rank in range(processes)]
    seen = [[labels for _, labels in shard] for shard in shards]
    assert [len(shard) for shard in shards] == [len(parts) for parts in seen]
    assert all(len(labels) for parts in seen for labels in parts)
    assert sorted(torch.cat([labels for parts in seen for labels in parts]).tolist()) == list(range(count))


def test_a_shard_resumes_within_a_batch_and_its_place_is_everyones() -> None:
    options: dict[str, Any] = {"batch_size": 6, "shuffle": True, "augmentation": Augmentation(crop=1), "divided": 2}
    first, other = (batches(numbered(18), shard=(rank, 2), **options) for rank in range(2))
    expected, begun = list(other), iter(first)
    for _ in range(3):
        next(begun)
    resumed = batches(numbered(18), shard=(1, 2), **options)
    resumed.load_state_dict(first.state_dict())
    assert same(list(resumed), expected[3:])


def test_a_state_after_the_last_batch_is_the_start_of_the_next_epoch() -> None:
    loader = batches(numbered(8))
    list(islice(loader, 2))
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)


def test_augmentation_does_not_depend_on_what_came_before(random_images: Images) -> None:
    images = random_images(12)
    loader = batches(images, augmentation=Augmentation(crop=2))
    third = list(loader)[2]
    jumped = batches(images, augmentation=Augmentation(crop=2))
    jumped.load_state_dict({"epoch": 0, "position": 2})
    assert same(list(jumped), [third])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"batch_size": 5}, "batch size 4, this run has 5"),
        ({"seed": 9}, "seed 0, this run has 9"),
    ],
)
def test_a_foreign_state_is_refused(other: dict[str, Any], message: str) -> None:
    state = batches(numbered(12)).state_dict()
    with pytest.raises(InputError, match=message):
        batches(numbered(12), **other).load_state_dict(state)
    with pytest.raises(InputError, match="images 12, this run has 13"):
        batches(numbered(13)).load_state_dict(state)
    with pytest.raises(InputError, match="batch 3 of epoch 0: an epoch has 3 batches"):
        batches(numbered(12)).load_state_dict({"epoch": 0, "position": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size must be an integer of 1 or more, not 0"),
        ({"batch_size": 2.0}, "not 2.0"),
        ({"batch_size": 11, "drop_last": True}, "drop_last leaves no batch: 10 images, batch size 11"),
        ({"mean": (0.1, 0.2)}, "images of 1 channels"),
        (
            {"shard": (1, 5), "shuffle": True},
            "a batch of 4 images cannot be shared by 5 processes: give a larger batch size",
        ),
        ({"shard": (0, 2), "divided": 3, "drop_last": True}, "4 images cannot be shared by 2 processes in 3 pieces"),
        ({"shard": (0, 2), "divided": 2}, "a batch of 2 images cannot be shared by 2 processes in 2 pieces"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        batches(numbered(10), **options)


def test_no_images_and_odd_channels_are_refused(random_images: Images) -> None:
    with pytest.raises(InputError, match="no image to make batches of"):
        batches(numbered(10).subset(torch.empty(0, dtype=torch.int64)))
    with pytest.raises(InputError, match="1 or 3 channels, not 2"):
        batches(random_images(4, shape=(2, 8, 8)), augmentation=Augmentation(autoaugment=True))
