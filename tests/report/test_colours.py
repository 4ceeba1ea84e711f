"""Contrast, computed from the colours of the stylesheet: text at least 4.5 : 1, what is drawn at least 3 : 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from spikestill import report
from spikestill.report.charts.matrix import STRONGEST
from spikestill.report.colours import DARK, LIGHT, SYSTEMS, contrast, mixed, variables

SHEET = (Path(report.__file__).parent / "page.css").read_text(encoding="utf-8")
DRAWN = [*(f"s{place}" for place in range(SYSTEMS)), "ann", "wrong"]

both = pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
    assert contrast("#123456", "#123456") == 1


@both
def test_text_can_be_read(palette: Mapping[str, str]) -> None:
    texts = set(re.findall(r"(?:^|[ {;])(?:color|fill): var\(--(\w+)\)", SHEET)) - {"grid"}
    assert {"ink", "quiet", "link", "wrong"} <= texts
    for text in texts:
        assert contrast(palette[text], palette["paper"]) >= 4.5, text
    assert contrast(palette["ink"], palette["card"]) >= 4.5


@both
def test_what_is_drawn_can_be_seen(palette: Mapping[str, str]) -> None:
    for colour in DRAWN:
        assert contrast(palette[colour], palette["paper"]) >= 3, colour


@both
def test_the_numbers_of_the_matrix_can_be_read_in_its_fullest_cells(palette: Mapping[str, str]) -> None:
    for colour in DRAWN:
        assert contrast(palette["ink"], mixed(palette[colour], palette["paper"], STRONGEST)) >= 4.5, colour


@both
def test_systems_differ_in_lightness_or_hue_from_each_other(palette: Mapping[str, str]) -> None:
    assert len({palette[f"s{place}"] for place in range(SYSTEMS)}) == SYSTEMS


def test_the_sheet_has_no_colours_of_its_own_and_knows_all_that_it_uses() -> None:
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsl", SHEET)
    assert set(re.findall(r"var\(--(\w+)\)", SHEET)) <= LIGHT.keys()
    assert LIGHT.keys() == DARK.keys()
    assert variables({"ink": "#000000"}) == "--ink: #000000;"
