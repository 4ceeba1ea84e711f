"""One table, whatever it shows; and its Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "markdown_lines"]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: what its figures are.
        header: the names of the columns.
        rows: of as many cells each.
        texts: how many columns, from the left, are words; the others are figures.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1

    def markdown(self) -> str:
        """The table in Markdown, without its title."""
        return markdown_lines(self.header, self.rows, self.texts)


def markdown_lines(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Header and rows as a Markdown table; all columns but the first ``texts`` are aligned to the right."""
    rule = ["---" if index < texts else "---:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))
