"""What ``train`` and ``distill`` have in common: recipe, overrides, resume, and the closing lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from spikestill import trust
from spikestill.cli.tables import print_accuracy
from spikestill.recipes import Recipe
from spikestill.recipes.words import value_of, without
from spikestill.runs import Run
from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["run_training"]


def run_training(command: str, kind: type[Recipe], words: Sequence[str], *, default: str | None) -> None:
    """Resolve the recipe and train, or print what was asked for instead.

    Args:
        command: the command's name.
        kind: AnnRecipe or DistillRecipe.
        words: the words after the command: a recipe (first) and options.
        default: the preset when none is named; None where one must be.

    Raises:
        InputError: for wrong options, data, teachers or folders.
    """
    from spikestill.recipes.loading import parser

    if "-h" in words or "--help" in words:
        parser(kind, f"spikestill {command}").print_help()
        print(_MORE_HELP)
        return
    given = [command, *words]
    words, switches = _switches(words)
    stored = Path(value_of(words, "--out") or "") / "recipe.yaml"
    continues = "--resume" in switches and stored.is_file()
    source, rest = _source(words, str(stored) if continues else default)
    with trust.consent(_own_names(source) if source != str(stored) else ()):
        _train(kind, stored if continues else source, rest, switches, given)


def _own_names(source: str) -> list[str]:
    """The ``python:`` names in a recipe file that this command line names; what lies in a run folder is data."""
    from spikestill.recipes.loading import fields_of
    from spikestill.recipes.names import presets

    if source in presets() or (Path(source).parent / "environment.json").exists():
        return []
    return list(trust.code_names(fields_of(source)))


def _train(kind: type[Recipe], source: str | Path, rest: list[str], switches: set[str], given: list[str]) -> None:
    from spikestill.recipes import as_mapping, load

    recipe = load(kind, source, rest)
    if "--print_config" in switches:
        import yaml

        yaml.safe_dump(as_mapping(recipe), sys.stdout, sort_keys=False)
        return
    from spikestill.train import train
    from spikestill.train.processes import was_launched

    if recipe.devices > 1 and not was_launched():
        from spikestill.cli.launching import launch

        launch(recipe.devices, given + ["--trust-code"] * trust.consents_to_all())
        return

    report(train(recipe, resume="--resume" in switches, overwrite="--overwrite" in switches))


def report(run: Run) -> None:
    """Print a finished run's figures and where it lies, and write its page."""
    from spikestill.report import write_page
    from spikestill.report.finished import origins, read_result

    result = read_result(run)
    title = f"{result['method']} {result['network']} on {result['data']}: test set, read once"
    print_accuracy(title, result, prefix="test_")
    epoch = f"validation {result['validation_accuracy']:.2%} (epoch {result['best_epoch']})"
    print(visible(f"{epoch}  run: {run.folder}"))
    for one in origins(result):
        what = f"{'spiking ' * one.is_spiking}{one.role} {one.name}"
        points = f"{abs(100 * one.gap):.2f} points {'above' if one.gap >= 0 else 'below'} the student"
        print(visible(f"{what}: validation {one.validation_accuracy:.2%}, {points}"))
    print(visible(f"report: {write_page([str(run.folder)])}"))


_MORE_HELP = """
RECIPE is a method of `spikestill list methods` or a YAML file; it comes first. Besides:
  --method NAME    the same as RECIPE
  --trust-code     also run python: functions that a run or a recipe beside this command line names
  --resume         continue the unfinished run in --out
  --overwrite      replace the run in --out
  --print_config   print the resolved recipe and stop"""


_SWITCHES = ("--resume", "--overwrite", "--print_config")


def _source(words: Sequence[str], default: str | None) -> tuple[str, list[str]]:
    """The recipe that the words name, and the other words."""
    rest = list(words)
    source = rest.pop(0) if rest and not rest[0].startswith("-") else None
    method = value_of(rest, "--method")
    if method is not None:
        if source is not None and source != method:
            raise InputError(f"the recipe '{source}' and --method {method}: give one of them")
        rest = without(rest, "--method")
        source = method
    if source is None and default is None:
        raise InputError("no recipe: give one of `spikestill list methods`, or a YAML file")
    return source or str(default), rest


def _switches(words: Sequence[str]) -> tuple[list[str], set[str]]:
    """The words without the switches, and the switches that were given."""
    spelled = {word: word.replace("-config", "_config") for word in words}
    found = {spelled[word] for word in words if spelled[word] in _SWITCHES}
    return [word for word in words if spelled[word] not in _SWITCHES], found
