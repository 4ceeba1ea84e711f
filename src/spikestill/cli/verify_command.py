"""``spikestill verify RUN``."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.cli.signature import call
from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["run", "verify_run"]


def run(words: Sequence[str]) -> None:
    """Parse and verify."""
    call(verify_run, "verify", words)


def verify_run(run: str, data: str | None = None, data_dir: str | None = None, device: str = "auto") -> None:
    """Hold a finished run's result against its other files, its data and a new measurement of its weights.

    Args:
        run: a run folder.
        data: where its data lie now, if elsewhere than at training.
        data_dir: where named data sets lie, likewise.
        device: cpu, cuda or auto.

    Raises:
        InputError: when the run is not finished, a file is damaged, the data cannot be read, or anything differs.
    """
    from spikestill.train import verify

    findings = verify(run, data=data, data_dir=data_dir, device=device)
    wrong = [finding for finding in findings if not finding.agrees]
    if wrong:
        listed = "; ".join(f"{finding.what}: written {finding.written}, found {finding.found}" for finding in wrong)
        raise InputError(f"{run} is not what its result says ({len(wrong)} of {len(findings)} differ): {listed}")
    measured = any(finding.what == "test accuracy" for finding in findings)
    rest = "" if measured else "; its weights are not there, so nothing was measured again"
    print(visible(f"{run}: {len(findings)} of {len(findings)} agree{rest}"))
