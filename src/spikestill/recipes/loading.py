"""From a preset, a YAML file and overrides to a checked recipe; the types and the help are the schema's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from spikestill.data import is_event_data, shown_images
from spikestill.files import regular
from spikestill.recipes.distillation import DistillRecipe
from spikestill.recipes.names import presets
from spikestill.recipes.overlay import mappings_among, overlaid
from spikestill.recipes.schema import AnnRecipe, Recipe
from spikestill.recipes.words import one_line, refuse_unknown_options, spelled
from spikestill.runs import WITHOUT_MEANING
from spikestill.types import InputError, unknown_name
from spikestill.values import read_yaml, require_shallow

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = [
    "as_mapping",
    "differences",
    "fields_of",
    "from_mapping",
    "load",
    "made",
    "parser",
    "read_mapping",
    "read_source",
    "strange",
]

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
    fields = fields_of(source)
    if kind is AnnRecipe and "student" in fields:
        raise InputError(f"the recipe {source} names a student: it is one for `spikestill distill`")
    if kind is DistillRecipe and "model" in fields:
        raise InputError(f"the recipe {source} names a model: it is one for `spikestill train`")
    return fields


def fields_of(source: str | Path) -> dict[str, Any]:
    """The fields that a preset (by name) or a YAML file (by path) sets, of whichever kind it is.

    Raises:
        InputError: for a name that is no preset, and for a file that cannot be read.
    """
    known = presets()
    path = known.get(str(source), Path(source))
    if path.suffix not in (".yaml", ".yml"):
        raise unknown_name("method", str(source), known)
    return read_mapping(path, "recipe")


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The fields of a YAML file (safe loader).

    Args:
        path: of the file.
        what: it holds, for the complaint.

    Raises:
        InputError: when it cannot be read, is not valid YAML, names a field twice, or is no mapping.
    """
    try:
        text = regular(path).read_text(encoding="utf-8")
        fields = require_shallow(read_yaml(text))
        twice = list(_named_twice(yaml.compose(text, Loader=yaml.SafeLoader), set()))
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}") from error
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:  # a date of 99 months is a ValueError
        raise InputError(f"the {what} {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise InputError(f"the {what} {path} must be a mapping of fields")
    if twice:
        raise InputError(f"the {what} {path} names {', '.join(twice)} twice in one place")
    return fields


def _named_twice(node: yaml.Node | None, seen: set[int]) -> Iterator[str]:
    """The keys that a mapping repeats, of which YAML keeps the last without a word; a shared node is looked at once."""
    if node is None or id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        yield from sorted({key for key in keys if keys.count(key) > 1})
    for entry in node.value:
        for inner in entry if isinstance(entry, tuple) else (entry,):
            yield from _named_twice(inner, seen)


def differences(recipe: Recipe, stored: Mapping[str, Any]) -> list[str]:
    """The fields in which a run's ``recipe.yaml`` says otherwise than ``recipe``.

    Fields that do not touch the result's meaning (where it lies, the device, how often it is saved) do not count. What
    an older version did not know yet had its default.
    """
    asked, known = as_mapping(recipe), _completed(type(recipe), stored)
    return [name for name in asked if name not in WITHOUT_MEANING and known[name] != asked[name]]


def _completed(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored fields with the defaults of those that are missing, nested ones included."""
    hints, fields = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        default = dataclasses.asdict(made) if dataclasses.is_dataclass(made) and not isinstance(made, type) else made
        value = stored.get(field.name, _plain(default))
        nested = dataclasses.is_dataclass(hints[field.name]) and isinstance(value, Mapping)
        fields[field.name] = _completed(hints[field.name], value) if nested else value
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
    words = _with_brackets(kind, [spelled(word) for word in overrides])
    refuse_unknown_options(words, list(_options(kind)))
    over, words = mappings_among(kind, words)
    for complaint in strange(kind, over):
        raise complaint
    fields = overlaid(kind, fields, over)
    made = parser(kind)
    given = {name for name in ("augmentation", "encoder") if _is_given(name, fields, words)}
    try:
        parsed = made.parse_args(words, namespace=made.parse_object(fields))
    except RecursionError as error:
        raise InputError("an option is nested too deeply") from error
    except ArgumentError as error:
        raise InputError(one_line(error)) from error
    resolved = parsed.as_dict()
    for complaint in strange(kind, resolved):
        raise complaint
    resolved |= {name: value for name, value in _suited_to(resolved["data"], kind).items() if name not in given}
    return from_mapping(kind, resolved)


def _with_brackets(kind: type, words: Sequence[str]) -> list[str]:
    """The words, with lists of numbers or names that are given as ``3,6`` spelled ``[3,6]``."""
    lists = {f"--{name}" for name, hint in _hints(kind) if _is_plain_list(hint)}
    found, before = [], ""
    for word in words:
        option, equals, value = word.partition("=")
        if before in lists and not word.startswith(("[", "-", "null")):
            word = f"[{word}]"
        elif option in lists and equals and not value.startswith(("[", "null")):
            word = f"{option}=[{value}]"
        found.append(word)
        before = word
    return found


def _is_plain_list(hint: Any) -> bool:
    choices = [choice for choice in (hint, *get_args(hint)) if get_origin(choice) is tuple]
    return any(not dataclasses.is_dataclass(get_args(choice)[0]) for choice in choices)


def _is_given(name: str, fields: Mapping[str, Any], words: Sequence[str]) -> bool:
    return name in fields or any(word.startswith(f"--{name}") for word in words)


def _suited_to(data: str, kind: type[Recipe]) -> dict[str, Any]:
    """Fields whose default depends on the data."""
    if data == "digits":
        # A mirrored 2 is no digit, and a shift of 4 pixels moves an 8 x 8 image out of sight.
        return {"augmentation": {"crop": 1, "flip": False}}
    if data == "imagenet":
        return {"augmentation": {"crop": 0, "resized_crop": 0.08, "flip": True}}
    if is_event_data(data):
        mirrors = data != "dvs-gesture" and shown_images(data) != "digits"
        suited: dict[str, Any] = {"augmentation": {"crop": 0, "roll": 5, "flip": mirrors}}
        return suited | ({"encoder": {"name": "events"}} if kind is DistillRecipe else {})
    return {}


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
    """A complaint for every field that ``kind`` does not have, and for those that hold nothing or are not nested."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name not in hints:
            yield unknown_name("option", f"{prefix}{name}", [f"{prefix}{entry}" for entry in hints])
        elif dataclasses.is_dataclass(hints[name]):
            if isinstance(value, Mapping):
                yield from strange(cast(type, hints[name]), value, f"{prefix}{name}.")
            else:
                yield InputError(f"option '{prefix}{name}' must be a mapping of fields, not {value!r}")
        elif value is None and type(None) not in get_args(hints[name]):
            yield InputError(f"option '{prefix}{name}' must have a value")
        elif get_origin(hints[name]) is tuple and dataclasses.is_dataclass(get_args(hints[name])[0]):
            for place, entry in enumerate(_fields_of(value)):
                yield from strange(get_args(hints[name])[0], entry, f"{prefix}{name}[{place}].")


def _fields_of(entries: Any) -> Iterator[Mapping[str, Any]]:
    """Those of the entries of a list that are mappings; the parser says what is wrong with others."""
    for entry in entries if isinstance(entries, list | tuple) else ():
        fields = entry.as_dict() if hasattr(entry, "as_dict") else entry  # jsonargparse leaves its own namespaces there
        if isinstance(fields, Mapping):
            yield fields


def _options(kind: type, prefix: str = "") -> Iterator[str]:
    """Every field of ``kind`` as it is spelled on the command line, nested ones dotted."""
    for name, _ in _hints(kind, prefix):
        yield name


def _hints(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field with its type, nested ones dotted."""
    for name, hint in get_type_hints(kind).items():
        yield f"{prefix}{name}", hint
        if dataclasses.is_dataclass(hint):
            yield from _hints(cast(type, hint), f"{prefix}{name}.")
