"""Command-line words: one spelling, and the nearest name for an unknown option; recipes and commands share them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from spikestill.types import InputError, unknown_name

__all__ = ["one_line", "refuse_unknown_options", "spelled", "value_of", "without"]


def refuse_unknown_options(words: Sequence[str], options: Collection[str]) -> None:
    """Look at every ``--option`` among the words.

    Raises:
        InputError: for the first that is none of ``options``.
    """
    for word in words:
        name = word[2:].partition("=")[0]
        if word.startswith("--") and name not in options and name != "help":
            raise unknown_name("option", _dashed(name), map(_dashed, options))


def spelled(word: str) -> str:
    """``--batch-size=3`` as ``--batch_size=3``; values stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def value_of(words: Sequence[str], option: str) -> str | None:
    """The value given to ``option``, as ``--option value`` or ``--option=value``; None where it is absent.

    Raises:
        InputError: for an option at the end, without its value.
    """
    for index, word in enumerate(words):
        if word == option:
            if index + 1 == len(words):
                raise InputError(f"{option} needs a value")
            return words[index + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def without(words: Sequence[str], option: str) -> list[str]:
    """The words without ``option`` and its value."""
    if option in words:
        index = list(words).index(option)
        return [*words[:index], *words[index + 2 :]]
    return [word for word in words if not word.startswith(f"{option}=")]


def one_line(error: Exception) -> str:
    """The parser's complaint without its line breaks."""
    return " ".join(str(error).split()).replace("Parser key", "option")


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
