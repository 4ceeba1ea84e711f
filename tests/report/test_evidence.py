from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spikestill.report.evidence import Evidence, Picture
from spikestill.runs import Run
from spikestill.types import InputError
from tests.report.folders import evidence, picture


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for written in (evidence(), evidence(spikes=False)):
        written.write(Run(tmp_path))
        assert Evidence.read(Run(tmp_path)) == written


def test_an_older_run_has_none(tmp_path: Path) -> None:
    assert Evidence.read(Run(tmp_path)) is None


def test_a_picture_keeps_its_pixels() -> None:
    content = bytes(range(24))
    assert Picture.of(content, (2, 4), 3).content == content
    with pytest.raises(InputError, match="24 bytes are no picture of 3 x 4 x 3"):
        Picture.of(content, (3, 4), 3)


def replaced(fields: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        fields = fields[step]
    fields[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("images",), "many", "'many' is no int"),
        (("images",), True, "True is no int"),
        (("calibration_error",), None, "None is no float"),
        (("calibration_error",), float("nan"), "nan is no float"),
        (("classes",), "cat", "'cat' is no list"),
        (("layers", 0), [1], r"\[1\] is no Layer"),
        (("layers", 0, "tempo"), 1, "Layer has no field tempo"),
        (("samples", 0, "label"), 3, "a class is outside 0..2"),
        (("mistakes", 0, "predicted"), -1, "a class is outside 0..2"),
        (("confusion", 0), [1], "the confusion matrix is not of 3 classes"),
        (("attention", 0, "maps"), [], "there is not one attention map a sample"),
        (("samples", 0, "image", "pixels"), "AAAA", "3 bytes are no picture of 8 x 8 x 1"),
        (("samples", 0, "image", "pixels"), "A<script>", "its pixels are no base64"),
        (("teacher",), {"name": "x"}, "missing 2 required positional arguments: 'accuracy' and 'agreement'"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(
    tmp_path: Path, path: tuple[Any, ...], value: Any, complaint: str
) -> None:
    run = Run(tmp_path)
    evidence().write(run)
    fields = run.read_json("analysis.json")
    replaced(fields, path, value)
    (tmp_path / "analysis.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match=complaint) as caught:
        Evidence.read(run)
    assert str(caught.value).startswith(f"{tmp_path / 'analysis.json'} is damaged: ")
    assert "`spikestill evaluate` writes it anew" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_small(tmp_path: Path) -> None:
    images = tuple(picture(64, 3) for _ in range(32))
    assert sum(len(one.pixels) for one in images) < 600_000
