"""From a preset, a YAML file and overrides to a checked recipe; the types and the help are the schema's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from spikestill.recipes.names import presets
from spikestill.recipes.schema import AnnRecipe, DistillRecipe, Recipe
from spikestill.recipes.words import one_line, refuse_unknown_options, spelled
from spikestill.types import InputError, unknown_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["as_mapping", "from_mapping", "load", "made", "parser", "read_source", "strange"]

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def parser(kind: type[Recipe], program: str = "spikestill") -> ArgumentParser:
    """The command line of one kind of recipe: every field with its type, its help and, where nested, dotted."""
    from jsonargparse import ArgumentParser

    summary = (kind.__doc__ or "").split("\n")[0]
    made = ArgumentParser(prog=program, usage=f"{program} [RECIPE] [options]", exit_on_error=False, description=summary)
    made.add_class_arguments(kind, nested_key=None, fail_untyped=True)
    return made


def read_source(kind: type[Recipe], source: str | Path) -> dict[str, Any]:
    """The fields that a preset (by name) or a YAML file (by path) sets.

    Raises:
        InputError: for a name that is no preset, an unreadable file, or a recipe of the other kind.
    """
    known = presets()
    path = known.get(str(source), Path(source))
    if path.suffix not in (".yaml", ".yml"):
        raise unknown_name("method", str(source), known)
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise InputError(f"the recipe {path} must be a mapping of fields")
    if kind is AnnRecipe and "student" in fields:
        raise InputError(f"the recipe {source} names a student: it is one for `spikestill distill`")
    if kind is DistillRecipe and "model" in fields:
        raise InputError(f"the recipe {source} names a model: it is one for `spikestill train`")
    return fields


def load(kind: type[AnyRecipe], source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> AnyRecipe:
    """The recipe that ``source`` and ``overrides`` give together, with every field resolved.

    Args:
        kind: AnnRecipe or DistillRecipe.
        source: a preset's name, a YAML file's path, or fields by name.
        overrides: command-line words such as ``--epochs 3`` or ``--optimiser.lr=0.05``; dashes count as underscores.

    Raises:
        InputError: one line that names every problem, an unknown field or option with the nearest one.
    """
    from jsonargparse import ArgumentError

    fields = dict(source) if isinstance(source, Mapping) else read_source(kind, source)
    for complaint in strange(kind, fields):
        raise complaint
    words = [spelled(word) for word in overrides]
    refuse_unknown_options(words, list(_options(kind)))
    made = parser(kind)
    varied = "augmentation" in fields or any(word.startswith("--augmentation") for word in words)
    try:
        parsed = made.parse_args(words, namespace=made.parse_object(fields))
    except ArgumentError as error:
        raise InputError(one_line(error)) from error
    resolved = parsed.as_dict()
    if resolved["data"] == "digits" and not varied:
        # A mirrored 2 is no digit, and a shift of 4 pixels moves an 8 x 8 image out of sight.
        resolved["augmentation"] = {"crop": 1, "flip": False}
    return from_mapping(kind, resolved)


def from_mapping(kind: type[AnyRecipe], fields: Mapping[str, Any]) -> AnyRecipe:
    """The recipe with these fields (nested mappings become their dataclasses); what is absent takes its default.

    Raises:
        InputError: one line that names every problem.
    """
    return cast(AnyRecipe, made(kind, fields))


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain mappings and lists, ready for YAML; the inverse of :func:`from_mapping`."""
    return cast("dict[str, Any]", _plain(dataclasses.asdict(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def made(hint: Any, value: Any) -> Any:
    """``value`` as the type ``hint`` says, as far as dataclasses and tuples are concerned."""
    if hasattr(value, "as_dict"):
        # jsonargparse leaves its own namespaces inside lists.
        value = value.as_dict()
    if get_origin(hint) in (UnionType, Union):
        hint = next((choice for choice in get_args(hint) if dataclasses.is_dataclass(choice)), hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        hints = get_type_hints(hint)
        return hint(**{name: made(hints[name], entry) for name, entry in value.items()})
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(made(get_args(hint)[0], entry) for entry in value)
    return value


def strange(kind: type, fields: Mapping[str, Any], prefix: str = "") -> Iterator[InputError]:
    """A complaint for every field that ``kind`` does not have."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name not in hints:
            yield unknown_name("option", f"{prefix}{name}", [f"{prefix}{entry}" for entry in hints])
        elif dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            yield from strange(cast(type, hints[name]), value, f"{prefix}{name}.")


def _options(kind: type, prefix: str = "") -> Iterator[str]:
    """Every field of ``kind`` as it is spelled on the command line, nested ones dotted."""
    for name, hint in get_type_hints(kind).items():
        yield f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            yield from _options(cast(type, hint), f"{prefix}{name}.")
