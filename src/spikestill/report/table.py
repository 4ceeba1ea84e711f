"""One table, whatever it shows; as Markdown, and as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spikestill.text import csv_cell, markdown_cell

__all__ = ["Table", "comma_separated_lines"]


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
        """The table in Markdown, without its title; all columns but those of words are aligned to the right."""
        rule = ["---" if index < self.texts else "---:" for index in range(len(self.header))]
        header, *rows = ([markdown_cell(cell) for cell in line] for line in (self.header, *self.rows))
        lines = (header, rule, *rows)
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def comma_separated(self) -> str:
        """The table as CSV."""
        return comma_separated_lines([self.header, *self.rows])


def comma_separated_lines(lines: Iterable[Sequence[str]]) -> str:
    """Lines of cells as CSV, without a line break at the end; no cell is a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in line] for line in lines)
    return text.getvalue().rstrip("\n")
