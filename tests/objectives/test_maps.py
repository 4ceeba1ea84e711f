from __future__ import annotations

import pytest
import torch

from spikestill.objectives.maps import distance, in_full, resized, unit


def test_pooling_takes_the_mean_of_what_falls_into_a_pixel() -> None:
    maps = torch.arange(16.0).reshape(1, 4, 4)
    torch.testing.assert_close(resized(maps, (2, 2), "pool"), torch.tensor([[[2.5, 4.5], [10.5, 12.5]]]))
    assert resized(maps, (4, 4), "pool") is maps


@pytest.mark.parametrize("resize", ["pool", "bilinear"])
@pytest.mark.parametrize("size", [(2, 3), (7, 5)])
def test_a_constant_map_stays_constant_at_every_size(resize: str, size: tuple[int, int]) -> None:
    torch.testing.assert_close(
        resized(torch.full((2, 4, 4), 3.0), size, resize),  # type: ignore[arg-type]
        torch.full((2, *size), 3.0),
    )


def test_bilinear_interpolates_between_pixel_centres() -> None:
    grown = resized(torch.tensor([[[0.0, 4.0]]]), (1, 4), "bilinear")
    torch.testing.assert_close(grown, torch.tensor([[[0.0, 1.0, 3.0, 4.0]]]))


@pytest.mark.parametrize("scale", [1e-35, 1.0, 1e30])
def test_unit_maps_have_length_one_whatever_their_scale(scale: float) -> None:
    torch.testing.assert_close(unit(scale * torch.tensor([[[3.0, 4.0]]])), torch.tensor([[[0.6, 0.8]]]))


def test_a_map_of_zeros_stays_zero_with_a_finite_gradient() -> None:
    maps = torch.zeros(2, 2, 2, requires_grad=True)
    distance(unit(maps), torch.ones(2, 2, 2)).backward()
    assert not unit(maps).any()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()


def test_the_length_is_differentiated_too() -> None:
    maps = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    other = torch.rand(2, 3, 3, dtype=torch.float64)
    torch.autograd.gradcheck(lambda given: distance(unit(given), other), (maps,))


def test_the_distance_is_the_mean_of_norms_that_are_not_squared() -> None:
    one = torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])
    assert float(distance(one, torch.zeros(2, 1, 2))) == 3.0


def test_half_precision_is_widened_and_double_kept() -> None:
    assert in_full(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert in_full(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
