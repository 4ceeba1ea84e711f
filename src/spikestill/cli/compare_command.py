"""``spikestill compare RUN RUN ...`` and ``spikestill compare EXPERIMENT.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from spikestill.cli.tables import print_rows
from spikestill.recipes.words import refuse_unknown_options, spelled, value_of, without
from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["run"]

_HELP = """usage: spikestill compare RUN [RUN ...] [options]
       spikestill compare EXPERIMENT.yaml [options]

One table over several finished runs; those that differ in their seed alone share a row (mean ± standard deviation).

  --layout NAME     how it is laid out:
{layouts}
  --markdown        print it as a Markdown table
  --csv             print it as comma-separated values, the plain layout in full precision
  --figure PATH     draw accuracy against time steps into PATH (.png, .svg or .pdf)

An experiment file names its runs, as {{recipe: METHOD, ...}} with further fields of that recipe, and their seeds. What
is not finished is trained first, an interrupted run goes on. experiments/ holds examples. Besides:

  --data NAME       the data set, in place of the one under common
  --data-dir DIR    where named data sets lie, likewise
  --out DIR         the folder of the run folders NAME-sSEED (default: runs/ and the file's name)
  --seeds 0,1       only the runs of these seeds and what they need; several processes can share a file's work
  --no-train        print what is finished, and name what is not"""

_OF_FILES = ("data", "data_dir", "out", "seeds", "no_train")
_WITH_VALUE = ("--figure", "--layout", "--data", "--data_dir", "--out", "--seeds")


def run(words: Sequence[str]) -> None:
    """Train what an experiment file lacks, and print the table.

    Raises:
        InputError: for no run, an unfinished one, an experiment that cannot be carried out, or an unknown option.
    """
    from spikestill.report import compare
    from spikestill.report.comparison import comma_separated
    from spikestill.report.layouts import LAYOUTS, laid_out
    from spikestill.types import unknown_name

    if any(word in ("-h", "--help") for word in words):
        width = max(map(len, LAYOUTS))
        print(_HELP.format(layouts="\n".join(f"      {name:<{width}}  {text}" for name, text in LAYOUTS.items())))
        return
    words = [spelled(word) for word in words]
    refuse_unknown_options(words, ("markdown", "csv", "figure", "layout", *_OF_FILES))
    layout = value_of(words, "--layout")
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    named = list(words)
    for option in _WITH_VALUE:
        named = without(named, option)
    named = [word for word in named if not word.startswith("--")]
    folders = named
    if any(word.endswith((".yaml", ".yml")) for word in named):
        folders, of_file = _experiment(words, named)
        layout = layout or of_file
    elif useless := [option for option in _OF_FILES if any(word.split("=")[0] == f"--{option}" for word in words)]:
        raise InputError(f"--{useless[0].replace('_', '-')} is for an experiment file, not for run folders")
    if not folders:
        raise InputError("compare needs at least one run folder, or an experiment file")
    table = laid_out(layout or "plain", folders)
    _draw(value_of(words, "--figure"), folders)
    if "--csv" in words:
        print(comma_separated(compare(folders)) if layout in (None, "plain") else table.comma_separated())
    elif "--markdown" in words:
        print(table.markdown())
    else:
        print_rows(table.title, table.header, table.rows, texts=table.texts)


def _experiment(words: Sequence[str], named: Sequence[str]) -> tuple[list[str], str]:
    """The finished runs of an experiment file, those that were not are trained; and its layout."""
    from spikestill.recipes.experiment import load_experiment
    from spikestill.train.experiment import carry_out, unfinished

    if len(named) > 1:
        raise InputError(f"an experiment file stands alone, not beside others ({' '.join(named)})")
    places = {name: value_of(words, f"--{name}") for name in ("out", "data", "data_dir")}
    experiment = load_experiment(named[0], **places)
    seeds = value_of(words, "--seeds")
    if seeds is not None:
        experiment = experiment.only(_seeds(seeds))
    missing: list[str] = []
    if "--no_train" not in words:
        carry_out(experiment)
    elif missing := [planned.folder for planned in unfinished(experiment)]:
        print(visible(f"spikestill: not finished: {', '.join(missing)}"), file=sys.stderr)
    folders = [planned.folder for planned in experiment.shown if planned.folder not in missing]
    if not folders:
        raise InputError(f"no run of {named[0]} is finished yet")
    return folders, experiment.layout


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--seeds must be whole numbers separated by commas, not '{text}'") from error


def _draw(path: str | None, folders: Sequence[str]) -> None:
    if path is not None:
        from spikestill.report import compare
        from spikestill.report.figures import accuracy_over_time

        accuracy_over_time(compare(folders), Path(path))
