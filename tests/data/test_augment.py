from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestill.data import Augmentation
from spikestill.data.augment import augment, normalise
from spikestill.types import InputError

MEAN, STD = (0.5, 0.25, 0.75), (0.2, 0.25, 0.3)


def pixels(count: int = 6, height: int = 7, width: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def vary(images: torch.Tensor, seed: int = 0, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(images, Augmentation(**options), mean=MEAN, std=STD, generator=generator)


def windows(image: torch.Tensor, crop: int) -> list[torch.Tensor]:
    """Every window of the padded image ``[C, H, W]``, by the definition, plain and mirrored."""
    height, width = image.shape[1:]
    padded = torch.nn.functional.pad(image, (crop,) * 4)
    plain = [padded[:, y : y + height, x : x + width] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
    return plain + [window.flip(2) for window in plain]


def test_normalisation() -> None:
    images = pixels()
    expected = (images.permute(0, 3, 1, 2).double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    result = normalise(images, MEAN, STD)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_nothing_asked_nothing_changed() -> None:
    assert torch.equal(vary(pixels(), crop=0, flip=False), normalise(pixels(), MEAN, STD))


@given(
    crop=st.integers(0, 10),
    flip=st.booleans(),
    cutout=st.integers(0, 20),
    automatic=st.booleans(),
    size=st.tuples(st.integers(1, 9), st.integers(4, 12), st.integers(4, 12)),
    seed=st.integers(0, 2**40),
)
def test_shape_range_and_repeatability(
    crop: int, flip: bool, cutout: int, automatic: bool, size: tuple[int, int, int], seed: int
) -> None:
    images = pixels(*size)
    before = images.clone()
    options = {"crop": crop, "flip": flip, "cutout": cutout, "autoaugment": automatic}
    result = vary(images, seed, **options)
    assert result.shape == (size[0], 3, size[1], size[2])
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(result).all()
    for channel in range(3):
        low, high = -MEAN[channel] / STD[channel], (1 - MEAN[channel]) / STD[channel]
        assert low - 1e-5 <= float(result[:, channel].min())
        assert float(result[:, channel].max()) <= high + 1e-5
    assert torch.equal(result, vary(images, seed, **options))
    assert torch.equal(images, before)


@given(crop=st.integers(1, 3), flip=st.booleans(), seed=st.integers(0, 2**40))
def test_crop_is_a_window_of_the_padded_image(crop: int, flip: bool, seed: int) -> None:
    images = pixels()
    result = vary(images, seed, crop=crop, flip=flip)
    for image, moved in zip(normalise(images, MEAN, STD), result, strict=True):
        possible = windows(image, crop)
        allowed = possible if flip else possible[: len(possible) // 2]
        assert any(torch.equal(moved, window) for window in allowed)


def test_every_shift_and_both_sides_occur_equally_often() -> None:
    image = pixels(1)
    result = vary(image.expand(3600, -1, -1, -1).contiguous(), crop=1, flip=True)
    possible = windows(normalise(image, MEAN, STD)[0], 1)
    counts = torch.tensor([int((result == window).flatten(1).all(1).sum()) for window in possible])
    assert int(counts.sum()) == 3600
    # 18 outcomes of 200 on average, standard deviation below 14: five of them either way.
    assert int(counts.min()) > 130
    assert int(counts.max()) < 270


@given(side=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_cutout_blanks_one_square_and_nothing_else(side: int, seed: int) -> None:
    images = pixels()
    plain = normalise(images, MEAN, STD)
    result = vary(images, seed, crop=0, flip=False, cutout=side)
    blank = (result == 0).all(dim=1)
    assert torch.equal(torch.where(blank[:, None], torch.zeros(()), plain), result)
    for square in blank:
        rows, columns = square.any(dim=1).nonzero().flatten(), square.any(dim=0).nonzero().flatten()
        # The centre lies within the image, so at least about a quarter of the square does.
        assert side // 2 <= len(rows) <= side or len(rows) == len(square)
        assert len(rows) >= 1
        assert bool(square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())
        assert int(square.sum()) == len(rows) * len(columns)


def test_cutout_reaches_the_border_pixels_too() -> None:
    result = vary(pixels(2000), crop=0, flip=False, cutout=4)
    blank = (result == 0).all(dim=1).any(dim=0)
    assert bool(blank.all())


def test_images_are_varied_apart_from_each_other() -> None:
    result = vary(pixels(1).expand(64, -1, -1, -1).contiguous(), crop=3)
    assert len(result.flatten(1).unique(dim=0)) > 30


@pytest.mark.parametrize("options", [{"crop": -1}, {"cutout": -2}, {"crop": 1.5}, {"cutout": True}])
def test_sizes_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} must be a number of pixels"):
        Augmentation(**options)


def test_roll_moves_round_the_edge_and_loses_nothing() -> None:
    counts = torch.arange(5 * 7, dtype=torch.uint8).reshape(1, 5, 7, 1).expand(30, 5, 7, 1).contiguous()
    generator = torch.Generator().manual_seed(0)
    rolled = augment(counts, Augmentation(crop=0, flip=False, roll=2), mean=[0.0], std=[1 / 255], generator=generator)
    seen = set()
    for image in rolled[:, 0]:
        ways = [
            way
            for way in product(range(-2, 3), repeat=2)
            if torch.equal(image, counts[0, :, :, 0].roll(way, (0, 1)).float())
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) > 10


@given(crop=st.integers(1, 8), seed=st.integers(0, 2**40))
def test_reflected_crops_are_windows_of_the_reflected_image(crop: int, seed: int) -> None:
    images = pixels(3, 9, 10)
    plain = normalise(images, MEAN, STD)
    height, width = plain.shape[2:]
    for image, varied in zip(plain, vary(images, seed, crop=crop, flip=False, reflect=True), strict=True):
        padded = torch.nn.functional.pad(image, (crop,) * 4, mode="reflect")
        shown = [padded[:, y : y + height, x : x + width] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
        assert any(torch.equal(varied, window) for window in shown)


def test_mirrored_says_which_images_are_mirrored() -> None:
    images, plain = pixels(2), normalise(pixels(2), MEAN, STD)
    varied = augment(
        images,
        Augmentation(crop=0),
        mean=MEAN,
        std=STD,
        generator=torch.Generator(),
        mirrored=torch.tensor([True, False]),
    )
    assert torch.equal(varied[0], plain[0].flip(2))
    assert torch.equal(varied[1], plain[1])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"flip": False, "alternate": True}, "alternate says how images are flipped: set flip to true"),
        ({"crop": 0, "reflect": True}, "reflect says how a crop is padded: set crop above 0"),
    ],
)
def test_refinements_of_what_is_switched_off_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Augmentation(**options)
