"""The colours of the page in light and in dark: one for each system, told apart by colour-blind readers too."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "SYSTEMS", "contrast", "mixed", "variables"]

SYSTEMS = 6
"""How many systems have a colour of their own; more begin anew, with another dash and mark."""

LIGHT: Mapping[str, str] = {
    "paper": "#fdfcf9",
    "card": "#f5f3ec",
    "ink": "#1f1e1b",
    "quiet": "#5d5a53",
    "rule": "#d8d4ca",
    "grid": "#e8e5dc",
    "link": "#0a5a9c",
    "wrong": "#b4440c",
    "ann": "#5d5a53",
    "s0": "#0b66ad",
    "s1": "#b8500f",
    "s2": "#00775f",
    "s3": "#8f3b82",
    "s4": "#7d6000",
    "s5": "#4a5b6e",
}

DARK: Mapping[str, str] = {
    "paper": "#15171a",
    "card": "#1d2024",
    "ink": "#ebe8e1",
    "quiet": "#aaa69c",
    "rule": "#393d43",
    "grid": "#2a2e33",
    "link": "#7dbdf2",
    "wrong": "#ff9b61",
    "ann": "#aaa69c",
    "s0": "#69b3f2",
    "s1": "#ff9b61",
    "s2": "#4ccbae",
    "s3": "#e09ad6",
    "s4": "#e2c04e",
    "s5": "#a9b8c8",
}


def variables(palette: Mapping[str, str]) -> str:
    """The palette as declarations of CSS variables."""
    return " ".join(f"--{name}: {value};" for name, value in palette.items())


def contrast(one: str, other: str) -> float:
    """The contrast of two colours ``#rrggbb``, from 1 to 21 (WCAG 2.2, relative luminance)."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def mixed(colour: str, ground: str, share: float) -> str:
    """A colour laid over a ground with this opacity."""
    parts = (share * a + (1 - share) * b for a, b in zip(_channels(colour), _channels(ground), strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in parts)


def _luminance(colour: str) -> float:
    shares = (channel / 255 for channel in _channels(colour))
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
