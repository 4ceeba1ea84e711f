"""Fields laid over those of a recipe: mappings keep what is not named, options go when the name beside them changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args, get_origin, get_type_hints

import yaml

from spikestill.recipes.distillation import DistillRecipe
from spikestill.recipes.parts import Encoder, Stages, Surrogate
from spikestill.recipes.schema import AnnRecipe
from spikestill.values import read_yaml

__all__ = ["mappings_among", "overlaid"]

_OPTIONS_OF: Mapping[type, tuple[str, tuple[str, ...]]] = {
    Surrogate: ("name", ("options",)),
    Encoder: ("name", ("options",)),
    DistillRecipe: ("initialise", ("conversion", "options")),
}
"""Of what has options: the field that names whose they are, and where they are."""


def overlaid(kind: type, fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with those of ``over`` in place of them; a mapping is laid over a mapping entry by entry.

    So ``{optimiser: {lr: 0.01}}`` leaves the optimiser's other entries, and ``{stages: {source: {epochs: 60}}}`` those
    of that stage. An empty free mapping, such as ``model_options: {}``, empties the one below it. Options belong to the
    name beside them (that of a surrogate or an encoder; ``initialise`` for ``conversion.options``): where ``over``
    changes the name, those of the old one go, all of them.

    Args:
        kind: the dataclass whose fields they are.
        fields: below; they stay as they are.
        over: above.
    """
    hints = get_type_hints(kind)
    merged = _without_options_of_another(kind, fields, over)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            # A stage's fields are those of an ANN's recipe.
            inner = AnnRecipe if kind is Stages else hints.get(name)
            nested = dataclasses.is_dataclass(inner)
            value = overlaid(cast(type, inner), below, value) if nested else _merged(below, value)
        merged[name] = value
    return merged


def _merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One free mapping over another, and so those within them."""
    if not over:
        return {}
    merged = dict(below)
    for name, value in over.items():
        under = below.get(name)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[name] = _merged(cast("Mapping[str, Any]", under), value) if both else value
    return merged


def _without_options_of_another(kind: type, fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``fields``, without the options that belong to another name than the one that ``over`` gives."""
    if kind not in _OPTIONS_OF:
        return dict(fields)
    name, path = _OPTIONS_OF[kind]
    default = {field.name: field.default for field in dataclasses.fields(kind)}[name]
    if name not in over or over[name] == fields.get(name, default):
        return dict(fields)
    return _without(fields, path)


def _without(fields: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {name: value for name, value in fields.items() if name != first}
    inner = fields.get(first)
    return dict(fields) | ({first: _without(inner, rest)} if isinstance(inner, Mapping) else {})


def mappings_among(kind: type, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The mappings, and the names that options belong to, that command-line words give; and the other words.

    Args:
        kind: the dataclass whose fields they are.
        words: such as ``--model_options={dropout: 0.2}`` or ``--neuron.surrogate.name linear``, spelled with
            underscores. What is no mapping where one is wanted stays among the words, for the parser to complain about.
    """
    wanted, names = set(_mapping_fields(kind)), set(_naming_fields(kind))
    found: dict[str, Any] = {}
    rest: list[str] = []
    index = 0
    while index < len(words):
        option, equals, value = words[index].partition("=")
        name, taken = option.removeprefix("--"), 1
        if option.startswith("--") and name in wanted | names and not equals and index + 1 < len(words):
            equals, value, taken = "=", words[index + 1], 2
        given = _mapping(value) if name in wanted else value if name in names and equals else None
        if not option.startswith("--") or given is None:
            rest += words[index : index + taken]
        else:
            for outer in reversed(name.split(".")):
                given = {outer: given}
            found = _merged(found, cast("Mapping[str, Any]", given))
        index += taken
    return found, rest


def _mapping(text: str) -> dict[str, Any] | None:
    try:
        value = read_yaml(text)
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError):
        return None
    return value if isinstance(value, dict) else None


def _mapping_fields(kind: type, prefix: str = "") -> Iterator[str]:
    """The fields that hold mappings, as they are spelled on the command line."""
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield f"{prefix}{name}"
            yield from _mapping_fields(cast(type, hint), f"{prefix}{name}.")
        elif any(get_origin(choice) is dict for choice in (hint, *get_args(hint))):
            yield f"{prefix}{name}"


def _naming_fields(kind: type, prefix: str = "") -> Iterator[str]:
    """The fields that say whose the options beside them are, spelled likewise."""
    if kind in _OPTIONS_OF:
        yield f"{prefix}{_OPTIONS_OF[kind][0]}"
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _naming_fields(cast(type, hint), f"{prefix}{name}.")
