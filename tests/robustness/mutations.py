"""Ways to damage a file: in its bytes, in its words, and in the values that it says."""

from __future__ import annotations

import copy
import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["CANARY", "Kind", "mutated"]

Kind = str
"""What a file is made of: ``bytes``, ``json``, ``yaml`` or ``table``."""

CANARY = "executed"
"""The name of the file that appears in the current folder when something in a mutated file is executed."""

_ODD_WORDS = (
    *(
        "",
        "-1",
        "0",
        "1e400",
        "-1e308",
        "nan",
        ".nan",
        ".inf",
        "NaN",
        "Infinity",
        "null",
        "~",
        "true",
        "no",
        "[]",
        "{}",
    ),
    *("9" * 30, "9" * 5000, "0x" + "f" * 40, "1:2:3:4:5", "2001-99-99", "2001-01-01", "=", "<<", "*a", "&a", "!", "%"),
    *(
        "'",
        '"',
        "[",
        "{",
        "- ",
        ": ",
        "\t",
        "\0",
        "\ufeff",
        "<script>alert(1)</script>",
        "../../x",
        "/dev/zero",
        "\u2028",
    ),
    "!!binary '///'",
    "!!timestamp x",
    "!!int x",
    "!!set {a, b}",
    "&a [*a, *a]",
    "&a {a: *a}",
)
_TAGS = (
    f"!!python/object/apply:os.system ['touch {CANARY}']",
    f"!!python/object/new:os.system ['touch {CANARY}']",
    "!!python/name:os.system",
    "!!python/module:os",
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, -0.0, 1e308, 10**30, -(10**30), float("nan"), float("inf")),
    *("", "x", "0", "../../x", "\0", "\ud800", "<script>alert(1)</script>", "a" * 5000),
    *([], {}, [[]], [None], {"": None}, {"x": {"x": {}}}, [0] * 500),
)
_NESTED = 5000
_MOST_PLACES = 2000


def mutated(content: bytes, kind: Kind, draw: random.Random) -> bytes:
    """The content with one to three damages; sometimes several, as a real accident has it."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        ways = _OF_BYTES if kind == "bytes" else (*_OF_TEXT, *_OF_BYTES[:5])
        if kind in ("json", "yaml") and draw.random() < 0.5:
            content = _of_values(content, kind, draw)
        else:
            content = draw.choice(ways)(content, draw)
    return content


def _span(content: bytes, draw: random.Random, most: int = 64) -> tuple[int, int]:
    start = draw.randrange(len(content) + 1)
    return start, min(len(content), start + draw.randint(1, most))


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _insert(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.randbytes(draw.choice((1, 4, 100))) + content[place:]


def _remove(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:start] + content[end:]


def _duplicate(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw, 512)
    place = draw.randrange(len(content) + 1)
    return content[:place] + content[start:end] * draw.choice((1, 2, 50)) + content[place:]


def _overwrite(content: bytes, draw: random.Random) -> bytes:
    """A number of 2, 4 or 8 bytes becomes one of the edge: sizes, counts and offsets are such."""
    code = draw.choice("hHiIqQfd")
    edges: tuple[Any, ...] = (float("nan"), float("inf"), -1.0, 1e30)
    if code not in "fd":
        most = 2 ** (8 * struct.calcsize(code))
        edges = (0, 1, most // 2 - 1) + ((most - 1, most // 2, most // 4) if code.isupper() else (-1, -most // 2))
    value = struct.pack(draw.choice("<>") + code, draw.choice(edges))
    place = draw.randrange(max(len(content) - 8, 1))
    place -= place % draw.choice((1, len(value)))
    return content[:place] + value + content[place + len(value) :]


def _fill(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw, 4096)
    return content[:start] + draw.choice((b"\0", b"\xff", b"\x80")) * (end - start) + content[end:]


def _odd_word(content: bytes, draw: random.Random, odd_words: Sequence[str] = _ODD_WORDS) -> bytes:
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return content
    word, odd = draw.choice(words), draw.choice(odd_words).encode("utf-8", "surrogatepass")
    return content[: word.start()] + odd + content[word.end() :]


def _tag(content: bytes, draw: random.Random) -> bytes:
    """A word becomes what an unsafe reader of YAML would execute."""
    return _odd_word(content, draw, _TAGS)


def _other_word(content: bytes, draw: random.Random) -> bytes:
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return content
    word = draw.choice(words)
    return content[: word.start()] + draw.choice(words)[0] + content[word.end() :]


def _lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    row = draw.randrange(len(lines))
    return b"".join(lines[:row] + draw.choice(([], [lines[row]] * 2, [b"  " + lines[row]])) + lines[row + 1 :])


def _nest(content: bytes, draw: random.Random) -> bytes:
    place, opened = draw.randrange(len(content) + 1), draw.choice((b"[", b"{a: ", b'{"a":', b"- ", b"("))
    return content[:place] + opened * draw.choice((50, _NESTED)) + content[place:]


def _aliases(content: bytes, draw: random.Random) -> bytes:
    """A few lines that say a list of ten to the power of nine entries, in the place of the file or of one value."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    line = draw.choice((b"", b"objectives: *a9\n", b"model_options: {x: *a9}\n", b"seeds: *a9\n", b"*a9 : 1\n"))
    return content + b"\n" + bomb.encode() + line


_OF_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _truncate, _insert, _remove, _duplicate),
    *(_overwrite, _fill),
)
_OF_TEXT = (_odd_word, _odd_word, _odd_word, _tag, _other_word, _lines, _nest, _aliases)


def _of_values(content: bytes, kind: Kind, draw: random.Random) -> bytes:
    """Some value in a well-formed file becomes an odd one, or another one of the file, or goes missing."""
    import yaml

    try:
        value = json.loads(content) if kind == "json" else yaml.safe_load(content)
    except (ValueError, yaml.YAMLError, RecursionError, AttributeError):
        return content
    places = list(_places(value))
    if not places:
        return content
    holder, key = draw.choice(places)
    action = draw.randrange(4)
    if action == 0:
        del holder[key]
    elif action == 1:
        other, name = draw.choice(places)
        holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = copy.deepcopy(draw.choice(_ODD_VALUES))
    try:
        return (json.dumps(value) if kind == "json" else yaml.safe_dump(value)).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, yaml.YAMLError, RecursionError):
        return content


def _places(value: Any) -> list[tuple[Any, Any]]:
    """The entries of mappings and lists inside, as what holds them and their key; of many the first ones.

    What aliases share is gone into once: an earlier mutation may have made a file that says far more than it holds.
    """
    found: list[tuple[Any, Any]] = []
    waiting, seen = [value], set()
    while waiting and len(found) < _MOST_PLACES:
        holder = waiting.pop()
        if not isinstance(holder, dict | list) or id(holder) in seen:
            continue
        seen.add(id(holder))
        keys = list(holder)[:100] if isinstance(holder, dict) else list(range(min(len(holder), 20)))
        found += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys]
    return found
