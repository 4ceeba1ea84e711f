"""Plain values of a JSON or YAML file, as the types that a record declares; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

__all__ = ["is_plain", "read_yaml", "record_of", "require_shallow", "unusable_values", "value_of_type"]

Record = TypeVar("Record")

_LARGEST = 2**63
"""For whole numbers: no size, count or seed is larger."""
_MOST_VALUES = 100_000
"""In a YAML file, those that its aliases repeat included."""
_DEEPEST = 64
_LONGEST_TEXT = 65536


def read_yaml(text: str) -> Any:
    """The value that a YAML text holds (safe loader).

    Raises:
        ValueError: for one whose aliases make far more of it than it has, and what else PyYAML raises so.
        yaml.YAMLError: for what is no YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if _count(node, {}) > _MOST_VALUES:  # before it is constructed: merging copies
            raise ValueError(f"its aliases make more than {_MOST_VALUES} values of it")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values are in a value, each place where it is used counted; without end in one that holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # for whoever meets it again within itself
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_count(entry, known) for entry in inner)
    return known[id(node)]


def require_shallow(value: Any) -> Any:
    """``value``, if it is not nested so deeply that whoever walks through it would fail.

    Raises:
        ValueError: for more than 64 levels.
    """
    level = [value]
    for _ in range(_DEEPEST):
        inner = (entry.values() if isinstance(entry, Mapping) else entry for entry in level)
        level = [part for parts in inner if isinstance(parts, list | tuple | type({}.values())) for part in parts]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def unusable_values(value: Any, name: str = "") -> Iterator[str]:
    """What no option can be, whatever it means, a phrase each: with the values of dataclasses, lists and mappings.

    Args:
        value: of an option, or of all of them.
        name: of the option, as the phrase begins with.
    """
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from unusable_values(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from unusable_values(entry, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} must be a finite number, not {value}"
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        yield f"{name} must lie between -2^63 and 2^63, not {_short(value)}"
    elif isinstance(value, str) and "\0" in value:
        yield f"{name} holds a NUL character"
    elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
        yield f"{name} has {len(value):,} characters, more than {_LONGEST_TEXT:,}"


def _short(value: int) -> str:
    """A whole number of any length: Python writes no more than 4300 digits of one."""
    return str(value) if value.bit_length() < 128 else f"one of {value.bit_length():,} bits"


def is_plain(value: Any) -> bool:
    """Whether a value consists of what JSON has: mappings by name, lists, texts, numbers, yes and no, and nothing."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(entry) for name, entry in value.items())
    return all(map(is_plain, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def record_of(kind: type[Record], fields: Any) -> Record:
    """A dataclass from plain values, each of them of the field's type.

    Raises:
        TypeError: for a missing or unknown field, and a value of another type.
    """
    if not isinstance(fields, dict):
        raise TypeError(f"{fields!r:.40} is no {kind.__name__}")
    hints = get_type_hints(kind)
    if unknown := fields.keys() - hints.keys():
        raise TypeError(f"{kind.__name__} has no field {min(map(str, unknown))}")
    return kind(**{name: value_of_type(hints[name], value) for name, value in fields.items()})


def value_of_type(hint: Any, value: Any) -> Any:
    """``value`` as ``hint``: a list becomes a tuple, a mapping a dataclass, a whole number one with a fraction.

    Raises:
        TypeError: when it is something else, or a number that is not finite or far too large.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (UnionType, Union):
        return _one_of(inner, value)
    if origin is Literal:
        fits = isinstance(value, str | int) and value in inner
    elif origin is tuple:
        return _tuple(inner, value)
    elif origin in (dict, Mapping):
        if not isinstance(value, dict) or not all(isinstance(key, inner[0]) for key in value):
            raise TypeError(f"{value!r:.40} is no mapping")
        return {key: value_of_type(inner[1], entry) for key, entry in value.items()}
    elif dataclasses.is_dataclass(hint):
        return record_of(hint, value)  # type: ignore[arg-type]
    elif hint is float:
        fits = type(value) in (int, float) and abs(value) < _LARGEST and math.isfinite(value)
        value = float(value) if fits else value
    else:
        fits = type(value) is hint and not (hint is int and abs(value) >= _LARGEST)
    if not fits:
        raise TypeError(f"{value!r:.40} is no {getattr(hint, '__name__', str(hint))}")
    return value


def _one_of(hints: Sequence[Any], value: Any) -> Any:
    """As the first of the types that it fits; the complaint is that of the first one."""
    if value is None and type(None) in hints:
        return None
    for hint in hints[1:]:
        try:
            return value_of_type(hint, value)
        except TypeError:
            continue
    return value_of_type(hints[0], value)


def _tuple(inner: Sequence[Any], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no list")
    if inner[-1] is not Ellipsis and len(value) != len(inner):
        raise TypeError(f"{value!r:.40} is no list of {len(inner)}")
    return tuple(value_of_type(inner[0], item) for item in value)
