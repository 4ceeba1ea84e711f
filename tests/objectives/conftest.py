"""Neurons run uncompiled here: what they compute is the same, and compiling would take most of the time."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikestill.dynamics.compiled.is_compiling_enabled", lambda: False)
