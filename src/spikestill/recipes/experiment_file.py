"""What stands in an experiment file, run by run, with everything in it that cannot be used."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikestill.recipes.distillation import DistillRecipe
from spikestill.recipes.loading import fields_of, load, read_mapping, strange
from spikestill.recipes.overlay import overlaid
from spikestill.recipes.schema import AnnRecipe, Recipe
from spikestill.types import InputError, unknown_name

__all__ = ["Contents", "Entry", "read_entries"]

_SECTIONS: dict[str, type[Recipe]] = {"common": Recipe, "anns": AnnRecipe, "students": DistillRecipe}
"""Sections of fields that several runs share, and the kind of recipe whose fields they are."""

_TOP = ("seeds", "layout", *_SECTIONS, "runs")
_OF_A_RUN = ("recipe", "seeds")
_REFERENCES: dict[type[Recipe], tuple[str, ...]] = {AnnRecipe: ("start",), DistillRecipe: ("teacher", "source")}
"""The fields that may name another run."""

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of the file.

    Attributes:
        name: its name.
        seeds: the seeds it is repeated with.
        recipe: for any of them; a placeholder stands where it refers to another run.
        references: by field, the name of the run that it refers to.
    """

    name: str
    seeds: tuple[int, ...]
    recipe: Recipe
    references: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file says.

    Attributes:
        layout: of the table.
        entries: the runs that could be read.
        problems: whatever cannot be used, a phrase each.
    """

    layout: str
    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def read_entries(path: Path, replaced: Mapping[str, Any]) -> Contents:
    """Read a file and check it, each run on its own and the names among them.

    Args:
        path: of the file.
        replaced: fields in place of those in ``common``.

    Raises:
        InputError: when it cannot be read at all.
    """
    from spikestill.report.layouts import LAYOUTS

    file = read_mapping(path, "experiment")
    problems = [str(unknown_name("field", name, _TOP)) for name in map(str, file) if name not in _TOP]
    layout = str(file.get("layout", "plain"))
    if layout not in LAYOUTS:
        problems.append(str(unknown_name("layout", layout, LAYOUTS)))
    seeds = _gathered(problems, lambda: _seeds(file.get("seeds", [0]), "seeds")) or (0,)
    shared = {name: _gathered(problems, lambda name=name: _section(file, name)) or {} for name in _SECTIONS}  # type: ignore[misc]
    shared["common"] = {**shared["common"], **replaced}
    runs = file.get("runs")
    if not isinstance(runs, Mapping) or not runs:
        problems.append("runs must map names to runs, as in {labels: {recipe: labels-only}}")
        runs = {}
    entries = []
    for name, fields in runs.items():
        try:
            entries.append(_entry(str(name), fields, seeds, shared, [str(other) for other in runs]))
        except InputError as error:
            problems.append(str(error))
    return Contents(layout=layout, entries=tuple(entries), problems=tuple(problems))


def _gathered(problems: list[str], read: Callable[[], Any]) -> Any:
    """What ``read`` returns; None, and its complaint among the problems, where it refuses."""
    try:
        return read()
    except InputError as error:
        problems.append(str(error))
        return None


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value)
    if not whole or not value or min(value) < 0 or len(set(value)) < len(value):
        raise InputError(f"{where} must list different whole numbers, as in [0, 1, 2], not {value!r}")
    return tuple(value)


def _section(file: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of one section."""
    fields = file.get(name)
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise InputError(f"{name} must be a mapping of fields")
    found = list(_wrong_fields(_SECTIONS[name], fields, f"{name}."))
    if "out" in fields:
        found.append(f"{name}.out: runs cannot share a folder")
    if found:
        raise InputError("; ".join(found))
    return dict(fields)


def _wrong_fields(kind: type[Recipe], fields: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Complaints about fields that this kind of recipe does not have, and about the seed."""
    everywhere = {field.name for field in dataclasses.fields(Recipe)}
    known = {}
    for name, value in fields.items():
        owners = [section for section, owner in _SECTIONS.items() if name in owner.__dataclass_fields__]
        if name == "seed":
            yield f"{prefix}seed: seeds says which"
        elif kind is Recipe and owners and name not in everywhere:
            yield f"{prefix}{name} is no field of every run: it belongs under {owners[0]}"
        else:
            known[name] = value
    yield from map(str, strange(kind, known, prefix))


def _entry(
    name: str, fields: Any, seeds: tuple[int, ...], shared: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> Entry:
    """One run.

    Raises:
        InputError: one line that names everything in it that cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"the run '{name}' needs a name of letters, digits and -_+. (a / makes a folder)")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("recipe"), str):
        raise InputError(f"{name}: a run is a mapping that names its recipe, as in {{recipe: labels-only}}")
    try:
        preset = fields_of(fields["recipe"])
        own_seeds = _seeds(fields["seeds"], "seeds") if "seeds" in fields else seeds
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    of_students = set(DistillRecipe.__dataclass_fields__) - set(AnnRecipe.__dataclass_fields__)
    kind: type[Recipe] = DistillRecipe if of_students & set(preset) else AnnRecipe
    own = {field: value for field, value in fields.items() if field not in _OF_A_RUN}
    problems = list(_wrong_fields(kind, own, ""))
    merged = preset
    for part in (shared["common"], shared["students" if kind is DistillRecipe else "anns"], own):
        merged = overlaid(kind, merged, part)
    if own.get("out") is not None and len(own_seeds) > 1:
        problems.append("out: one folder cannot hold the runs of several seeds; give it seeds: [0]")
    references, wrong = _references(kind, merged, names)
    problems += wrong
    recipe = None
    if not problems:
        recipe = _gathered(problems, lambda: load(kind, merged | references))
    if recipe is None:
        raise InputError(f"{name}: " + "; ".join(problems))
    return Entry(name=name, seeds=own_seeds, recipe=recipe, references=references)


def _references(
    kind: type[Recipe], fields: Mapping[str, Any], names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """By field, the run that it refers to; and what is wrong with them."""
    references, problems = {}, []
    for field in _REFERENCES[kind]:
        value = fields.get(field)
        if value is None or isinstance(value, str):
            continue
        if not isinstance(value, Mapping) or list(value) != ["run"]:
            problems.append(f"{field} must be a run folder, or another run as in {{run: NAME}}, not {value!r}")
            continue
        references[field] = str(value["run"])
        if references[field] not in names:
            problems.append(f"{field}: {unknown_name('run', references[field], names)}")
    return references, problems
