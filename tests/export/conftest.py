"""What every test of exchange formats gets."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_process_for_nir(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the test itself writes are read at once, but where the trial in another process is what is tested."""
    if "trial" not in request.keywords:
        monkeypatch.setattr("spikestill.export.nir_file._try_elsewhere", lambda path: None)
