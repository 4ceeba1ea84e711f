"""Everything here runs uncompiled, but for what asks for ``compiling``: compiling would take longer than the tests."""

from __future__ import annotations

import pytest

from spikestill.dynamics import compiled


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_compiling_enabled", lambda: False)


@pytest.fixture
def compiling(plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_compiling_enabled", lambda: True)
