"""``spikestill compare RUN RUN ...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikestill.cli.tables import print_rows
from spikestill.recipes.words import refuse_unknown_options, value_of, without
from spikestill.types import InputError

__all__ = ["run"]

_HELP = """usage: spikestill compare RUN [RUN ...] [--markdown | --csv] [--figure PATH]

One table over several finished runs; those that differ in their seed alone share a row (mean ± standard deviation).
--markdown prints it as a Markdown table, --csv as comma-separated values in full precision; --figure draws accuracy
against time steps into PATH (.png, .svg or .pdf)."""


def run(words: Sequence[str]) -> None:
    """Print the table.

    Raises:
        InputError: for no run, an unfinished one, or an unknown option.
    """
    from spikestill.report import compare, markdown
    from spikestill.report.comparison import comma_separated, header, steps_of

    if any(word in ("-h", "--help") for word in words):
        print(_HELP)
        return
    refuse_unknown_options(words, ("markdown", "csv", "figure"))
    picture = value_of(words, "--figure")
    folders = [word for word in without(words, "--figure") if not word.startswith("--")]
    if not folders:
        raise InputError("compare needs at least one run folder")
    rows = compare(folders)
    if picture is not None:
        from spikestill.report.figures import accuracy_over_time

        accuracy_over_time(rows, Path(picture))
    if "--csv" in words:
        print(comma_separated(rows))
    elif "--markdown" in words:
        print(markdown(rows))
    else:
        cells = [row.cells(steps_of(rows)) for row in rows]
        print_rows("test accuracy in percent, mean ± standard deviation over the seeds", header(rows), cells)
