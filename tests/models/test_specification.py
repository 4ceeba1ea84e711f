from __future__ import annotations

import dataclasses

import pytest

from spikestill.models.specification import OPTIONS, Specification
from spikestill.types import InputError


def test_the_options_are_every_field_but_the_sizes():
    assert frozenset({"batch_norm", "bias", "pooling", "dropout", "stem"}) == OPTIONS


@pytest.mark.parametrize(
    ("batch_norm", "bias", "convolution", "linear"),
    [
        (True, None, False, True),
        (False, None, True, True),
        (True, True, True, True),
        (True, False, False, False),
        (False, False, False, False),
    ],
)
def test_where_a_bias_stands(batch_norm, bias, convolution, linear):
    spec = Specification("vgg5", batch_norm=batch_norm, bias=bias)

    assert (spec.convolution_bias, spec.linear_bias) == (convolution, linear)


@pytest.mark.parametrize(
    ("base", "width", "channels"),
    [(64, 1, 64), (64, 0.01, 8), (16, 0.25, 8), (64, 0.3, 16), (64, 0.32, 24), (24, 0.5, 16), (128, 1.5, 192)],
)
def test_channels_are_rounded_to_a_multiple_of_eight(base, width, channels):
    assert Specification("vgg5", width=width).channels(base) == channels


def test_a_specification_is_checked_at_every_construction():
    spec = Specification("vgg5")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.dropout = 0.5  # type: ignore[misc]
    with pytest.raises(InputError, match="dropout"):
        dataclasses.replace(spec, dropout=-0.1)
