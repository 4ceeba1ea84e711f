"""How to make it again: the command, the recipe, the data and the machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from spikestill.report.blocks import Block, Facts, Listing, Section
from spikestill.report.finished import Finished, Origin, origins
from spikestill.report.shown import Shown
from spikestill.runs import Run
from spikestill.types import InputError

__all__ = ["origin"]


def origin(systems: Sequence[Shown]) -> Section:
    """Command, recipe, data and environment of every system, of its first seed."""
    blocks: list[Block] = []
    for system in systems:
        prefix = f"{system.name}: " if len(systems) > 1 else ""
        run = system.first
        told = _environment(run)
        blocks.append(Listing(f"{prefix}Command", _command(run, told), opened=True))
        blocks.append(Facts(f"{prefix}Data and machine", _facts(run, told)))
        text = yaml.safe_dump(dict(run.recipe), sort_keys=False, allow_unicode=True)
        blocks.append(Listing(f"{prefix}Recipe", text))
    lead = "The recipe in the run folder is complete: given to the command line, it is trained again as it was."
    return Section("repeat", "Make it again", lead, blocks)


def _environment(run: Finished) -> Mapping[str, Any]:
    try:
        return Run(run.folder).read_json("environment.json")
    except InputError:
        return {}


def _command(run: Finished, environment: Mapping[str, Any]) -> str:
    """The words with which it was made, and those that make it again."""
    recipe = str(run.folder / "recipe.yaml")
    command = "distill" if run.recipe.get("timesteps") else "train"
    lines = []
    words = environment.get("command")
    if isinstance(words, list) and words:
        program, *rest = map(str, words)
        spelled = ["python", "-m", "spikestill.cli"] if program == "__main__.py" else [program]
        lines += ["# as it was made", shlex.join([*spelled, *rest]), ""]
    network = str(run.recipe.get("student" if command == "distill" else "model", ""))
    if network.startswith("custom:"):
        return "\n".join(
            [*lines, f"# from Python: the network is {network.removeprefix('custom:')}, a module of one's own"]
        )
    again = ["spikestill", command, recipe, "--out", f"{run.folder}-again"]
    return "\n".join([*lines, "# the same again, beside it", shlex.join(again)])


def _facts(run: Finished, environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    result = run.result
    images = result.get("images")
    packages = environment.get("packages")
    facts = [
        ("data", result.get("data")),
        (
            "images",
            ", ".join(f"{count:,} {part}" for part, count in images.items()) if isinstance(images, dict) else None,
        ),
        ("fingerprint", result.get("data_fingerprint")),
        ("test images", result.get("test_set_read")),
        *((f"{one.role} {one.name}", _of_origin(one)) for one in origins(result)),
        *(("remark", remark) for remark in result.get("remarks", ())),
        ("parameters", f"{result['parameters']:,}" if isinstance(result.get("parameters"), int) else None),
        ("training", _minutes(result.get("training_seconds"))),
        ("Python", environment.get("python")),
        (
            "packages",
            ", ".join(f"{name} {version}" for name, version in packages.items())
            if isinstance(packages, dict)
            else None,
        ),
        ("commit", environment.get("commit")),
        ("processor", _processor(environment)),
        ("accelerators", ", ".join(map(str, environment.get("accelerators") or ())) or None),
        ("system", environment.get("platform")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _of_origin(one: Origin) -> str:
    relation = f"{abs(100 * one.gap):.2f} points {'above' if one.gap >= 0 else 'below'} this network"
    return f"{one.validation_accuracy:.2%} of the validation images, {relation}"


def _minutes(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def _processor(environment: Mapping[str, Any]) -> str | None:
    name, cores, threads = (environment.get(key) for key in ("processor", "cores", "threads"))
    return f"{name}, {cores} cores, {threads} threads used" if name else None
