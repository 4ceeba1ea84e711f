"""What every chart has besides its drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["Chart", "Key"]


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    Attributes:
        name: what it stands for.
        sample: how that is drawn.
    """

    name: str
    sample: Markup


@dataclass(frozen=True)
class Chart:
    """A chart with the table of its data.

    Attributes:
        slug: its name in the page, unique there.
        title: above it.
        svg: the drawing.
        header: names of the table's columns.
        rows: the data.
        legend: what is drawn how.
        note: below it.
        wide: whether it takes the page's whole width.
    """

    slug: str
    title: str
    svg: Markup
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[Key] = ()
    note: str = ""
    wide: bool = False
