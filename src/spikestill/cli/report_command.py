"""``spikestill report RUN [RUN ...] [--to report.html]``."""

from __future__ import annotations

from collections.abc import Sequence

from spikestill.recipes.words import refuse_unknown_options, spelled, value_of, without
from spikestill.text import visible

__all__ = ["run"]

_HELP = """usage: spikestill report RUN [RUN ...] [--to FILE]

One HTML page of finished runs, which needs no network: accuracy against time steps and teacher, early exit, spikes and
operations layer by layer, attention maps, mistakes, training, and how to make it again. Runs that differ in their seed
alone are one system, shown with its spread.

  --to FILE         where to (default: report.html, in the run folder of a single run, else in the current folder)"""


def run(words: Sequence[str]) -> None:
    """Write the page and print where it is.

    Raises:
        InputError: for no run, an unfinished or damaged one, an unknown option, or a file that cannot be written.
    """
    from spikestill.report import write_page

    if any(word in ("-h", "--help") for word in words):
        print(_HELP)
        return
    words = [spelled(word) for word in words]
    refuse_unknown_options(words, ("to",))
    folders = [word for word in without(words, "--to") if not word.startswith("--")]
    print(visible(f"report: {write_page(folders, value_of(words, '--to'))}"))
