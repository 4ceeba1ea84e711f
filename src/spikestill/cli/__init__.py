"""The command line: one short file per command."""

from spikestill.cli.main import main

__all__ = ["main"]
