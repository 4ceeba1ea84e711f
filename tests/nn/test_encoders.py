"""Encoders: shapes, what is constant, seeds, and frames that do not fit."""

from __future__ import annotations

import math

import pytest
import torch

from spikestill.nn import Direct, Encoder, Events, Poisson
from spikestill.types import InputError


def test_direct_is_one_step_of_the_image_and_no_copy():
    batch = torch.randn(2, 3, 4, 4, requires_grad=True)
    encoded = Direct()(batch, 7)
    assert Direct().constant
    assert encoded.shape == (1, 2, 3, 4, 4)
    assert encoded.data_ptr() == batch.data_ptr()
    encoded.sum().backward()
    assert batch.grad is not None
    assert torch.equal(batch.grad, torch.ones_like(batch))


@pytest.mark.parametrize("signed", [True, False])
def test_poisson_spikes_at_the_scaled_pixel_s_rate(signed):
    batch = torch.linspace(-2, 2, 101).reshape(1, 1, 1, 101)
    encoded = Poisson(scale=2.0, signed=signed, seed=1)(batch, 4096)
    assert encoded.shape == (4096, 1, 1, 1, 101)
    expected = batch / 2 if signed else batch.clamp(min=0) / 2
    error = (expected.abs() * (1 - expected.abs()) / 4096).sqrt()
    assert ((encoded.mean(0) - expected).abs() <= 4.5 * error).all()
    assert (encoded.min() < 0) == signed
    assert not Poisson().constant


def test_a_seeded_poisson_encoder_repeats_itself_and_draws_anew_each_time():
    batch = torch.rand(2, 3, 8, 8)
    one, other = Poisson(seed=5), Poisson(seed=5)
    first, second = one(batch, 3), one(batch, 3)
    assert not torch.equal(first, second)
    torch.rand(10)  # of the global generator, which is another
    assert torch.equal(first, other(batch, 3))
    assert torch.equal(second, other(batch, 3))
    assert not torch.equal(first, Poisson(seed=6)(batch, 3))


def test_an_unseeded_poisson_encoder_takes_the_global_generator():
    batch = torch.rand(2, 3, 8, 8)
    torch.manual_seed(4)
    first = Poisson()(batch, 3)
    torch.manual_seed(4)
    assert torch.equal(first, Poisson()(batch, 3))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_poisson_refuses_a_scale_that_is_not_positive(scale):
    with pytest.raises(InputError, match=f"Poisson: scale must be positive, not {scale}"):
        Poisson(scale=scale)


def test_events_go_in_as_they_are_or_not_at_all():
    frames = torch.randint(0, 5, (4, 2, 2, 8, 8)).float()
    assert Events()(frames, 4) is frames
    assert not Events().constant
    with pytest.raises(InputError, match="the events have 4 frames, the network runs 6 time steps"):
        Events()(frames, 6)


@pytest.mark.parametrize("encoder", [Direct(), Poisson(), Events()], ids=lambda encoder: type(encoder).__name__)
def test_encoders_are_modules_without_parameters_or_state(encoder):
    assert isinstance(encoder, Encoder)
    assert not list(encoder.parameters())
    assert not encoder.state_dict()
