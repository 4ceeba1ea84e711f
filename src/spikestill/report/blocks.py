"""What a section of the page consists of, besides charts; the template says how each looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from spikestill.report.charts import Chart
from spikestill.report.evidence import Picture

__all__ = ["Block", "Facts", "Figures", "Gallery", "Listing", "MapRow", "Maps", "Section", "Shot", "picture_address"]

_MAP_ENDS = ((13, 20, 52), (48, 74, 120), (116, 118, 121), (196, 172, 92), (255, 236, 140))
"""Colours of a map from nothing to its largest value: from dark blue over grey to yellow, by lightness alone too."""


@dataclass(frozen=True)
class Figures:
    """A table of figures: words in its first column."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    colours: Sequence[str] = ()
    note: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Shot:
    """A small image with what is to be said of it; ``text`` describes it to who cannot see it."""

    address: str
    text: str
    lines: Sequence[str]
    right: bool = True


@dataclass(frozen=True)
class Gallery:
    """Small images."""

    title: str
    shots: Sequence[Shot]
    note: str = ""


@dataclass(frozen=True)
class MapRow:
    """A sample and its maps, each an address and a description."""

    sample: Shot
    maps: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Maps:
    """Attention maps: a row a sample, a column a place; ``groups`` names neighbouring columns, with their number."""

    title: str
    groups: Sequence[tuple[str, int]]
    columns: Sequence[str]
    rows: Sequence[MapRow]
    folded: bool = False


@dataclass(frozen=True)
class Listing:
    """Text as it is."""

    title: str
    text: str
    opened: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for."""

    title: str
    pairs: Sequence[tuple[str, str]]


Block = Chart | Figures | Gallery | Maps | Listing | Facts


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        slug: its name in the page.
        title: its heading.
        lead: a sentence or two before its content.
        blocks: its content.
        missing: what is not shown, and why.
    """

    slug: str
    title: str
    lead: str
    blocks: Sequence[Block]
    missing: str = ""


def picture_address(picture: Picture, as_map: bool = False) -> str:
    """A picture as a PNG within its own address; a map in the colours of maps."""
    from PIL import Image

    mode = "RGB" if picture.channels == 3 else "P" if as_map else "L"
    image = Image.frombytes(mode, (picture.width, picture.height), picture.content)
    if as_map and picture.channels == 1:
        image.putpalette([channel for level in range(256) for channel in _map_colour(level)])
    content = io.BytesIO()
    image.save(content, "PNG", optimize=not as_map)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _map_colour(level: int) -> tuple[int, ...]:
    place = level / 255 * (len(_MAP_ENDS) - 1)
    index = min(int(place), len(_MAP_ENDS) - 2)
    part = place - index
    ends = zip(_MAP_ENDS[index], _MAP_ENDS[index + 1], strict=True)
    return tuple(round((1 - part) * low + part * high) for low, high in ends)
