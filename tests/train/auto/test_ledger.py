from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spikestill.train.auto.ledger import Ledger
from spikestill.train.auto.settings import Settings
from spikestill.types import InputError

SETTINGS = Settings(ann="x", timesteps=2)


def never() -> Any:
    raise AssertionError("this step was done already")


def test_a_step_is_done_once_and_its_outcome_and_reasons_are_found_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, SETTINGS)
    ledger.reason("because")
    assert ledger.step("one", lambda: {"a": [1, 2]}) == {"a": [1, 2]}
    again = Ledger(tmp_path, SETTINGS)
    again.reason("because")
    assert again.step("one", never) == {"a": [1, 2]}
    assert again.find("two") is None
    assert again.reasons == ["because"]
    assert again.seconds == ledger.seconds


def test_a_step_that_breaks_off_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Ledger(tmp_path, SETTINGS).step("one", never)
    assert Ledger(tmp_path, SETTINGS).step("one", lambda: 3) == 3


def test_other_settings_and_other_folders_are_refused(tmp_path: Path) -> None:
    Ledger(tmp_path, SETTINGS).step("one", lambda: 1)
    other = Settings(ann="x", timesteps=4, seed=1)
    with pytest.raises(InputError, match="was started with another timesteps, seed: give the same, choose another"):
        Ledger(tmp_path, other)
    assert Ledger(tmp_path, other, overwrite=True).find("one") is None
    (tmp_path / "auto.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        Ledger(tmp_path, SETTINGS)
    (tmp_path / "auto.json").unlink()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="is neither empty nor of an earlier auto"):
        Ledger(tmp_path, SETTINGS)


def test_to_begin_anew_removes_what_auto_wrote_and_nothing_else(tmp_path: Path) -> None:
    Ledger(tmp_path, SETTINGS).step("one", lambda: 1)
    run, notes = tmp_path / "trained", tmp_path / "notes.txt"
    run.mkdir()
    (run / "recipe.yaml").touch()
    notes.touch()
    Ledger(tmp_path, SETTINGS, overwrite=True)
    assert list(tmp_path.iterdir()) == [notes]
