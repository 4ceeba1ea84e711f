"""Everything here runs uncompiled: compiling would take longer than the tests."""

from __future__ import annotations

import pytest

from spikestill.dynamics import compiled


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_compiling_enabled", lambda: False)
