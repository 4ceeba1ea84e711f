"""Text from files as it is shown: on a terminal, in a Markdown or CSV table and in a picture it is only text."""

from __future__ import annotations

import unicodedata

__all__ = ["csv_cell", "markdown_cell", "plot_label", "visible"]

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode's categories of what a terminal obeys or hides: control characters, marks of direction, line separators."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet computes."""


def visible(text: object, *, lines: bool = False) -> str:
    """The text with control characters, marks of direction and invisible characters spelled out by their codes.

    Args:
        text: anything that has a text.
        lines: keep line breaks, for what is meant to have several lines.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        character
        if (lines and character == "\n") or unicodedata.category(character) not in _HIDDEN
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in shown
    )


def markdown_cell(text: object) -> str:
    """The text as one cell of a Markdown table: its bars, line breaks, tags and markup mean nothing."""
    shown = visible(text)
    for character in "\\|`*_[]<>":
        shown = shown.replace(character, f"\\{character}") if character != "<" else shown.replace("<", "&lt;")
    return shown


def csv_cell(text: object) -> str:
    """The text as one cell of a CSV table: a spreadsheet would compute one that begins as a formula does."""
    shown = visible(text)
    if not str(text).lstrip(" ").startswith(_FORMULA):
        return shown
    try:
        float(shown.split(" ± ")[0])
    except ValueError:
        return f"'{shown}"
    return shown


def plot_label(text: object) -> str:
    """The text as a label of matplotlib, which takes ``$`` for mathematics and hides what begins with an underscore."""
    shown = visible(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
