from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from spikestill.data.autoaugment import POLICY, apply_operation, autoaugment, strength_of

FILL = [120.0, 100.0, 90.0]
# torchvision's own class is the judge; its table and operations have no public names.
JUDGE = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=FILL)
OPERATIONS = sorted({(name, level) for pair in POLICY for name, _, level in pair}, key=str)


def images(count: int, height: int = 32, width: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def test_the_table_is_torchvisions() -> None:
    assert [tuple(map(tuple, pair)) for pair in JUDGE._policies] == [tuple(pair) for pair in POLICY]


@pytest.mark.parametrize(("name", "level"), OPERATIONS)
def test_an_operation_is_torchvisions(name: str, level: int | None) -> None:
    pictures = images(5)
    values, signed = JUDGE._AUGMENTATION_SPACE[name]
    magnitudes = values(10, 32, 24)
    expected_strength = 0.0 if magnitudes is None else float(magnitudes[level])
    for sign in (1, -1) if signed else (1,):
        expected = JUDGE._apply_image_or_video_transform(
            pictures, name, sign * expected_strength, JUDGE.interpolation, JUDGE._fill
        )
        result = apply_operation(pictures, name, sign * strength_of(name, level, (32, 24)), FILL)
        # The strength is computed in double precision here, in single there: one step of a pixel may differ.
        assert int((result.int() - expected.int()).abs().max()) <= 1


def test_a_batch_is_changed_image_by_image() -> None:
    pictures = images(40).permute(0, 2, 3, 1).contiguous()
    before = pictures.clone()
    result = autoaugment(pictures, FILL, torch.Generator().manual_seed(3))
    assert torch.equal(pictures, before)
    assert result.shape == pictures.shape
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    assert torch.equal(result, autoaugment(pictures, FILL, torch.Generator().manual_seed(3)))
    changed = (result != pictures).flatten(1).any(dim=1)
    assert 20 < int(changed.sum()) < 40


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    autoaugment(images(8).permute(0, 2, 3, 1), FILL, torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


def test_operations_are_drawn_as_often_as_torchvision_draws_them() -> None:
    picture = images(1, 8, 8)
    count = 4000
    ours = autoaugment(picture.permute(0, 2, 3, 1).repeat(count, 1, 1, 1), FILL, torch.Generator().manual_seed(1))
    theirs = torch.stack([JUDGE(picture[0]) for _ in range(count)]).permute(0, 2, 3, 1)
    original = picture.permute(0, 2, 3, 1)
    unchanged = [(result == original).flatten(1).all(dim=1).float().mean() for result in (ours, theirs)]
    mean = [result.float().mean(dim=0) for result in (ours, theirs)]
    # Standard deviation of each share below 0.007; of each mean pixel about 1.
    assert abs(float(unchanged[0] - unchanged[1])) < 0.04
    assert float((mean[0] - mean[1]).abs().max()) < 7


def test_gray_images_pass() -> None:
    gray = images(30)[:, :1].permute(0, 2, 3, 1).contiguous()
    assert autoaugment(gray, [100.0], torch.Generator().manual_seed(0)).shape == gray.shape
