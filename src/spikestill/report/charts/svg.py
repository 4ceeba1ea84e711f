"""Elements of SVG as text. Whatever comes in is escaped; what has been built here is not escaped again."""

from __future__ import annotations

from markupsafe import Markup, escape

from spikestill.text import visible

__all__ = ["WIDTH", "element", "picture"]

WIDTH = 440
"""Of every chart, in its own units. Letters of 13 units are then readable on a phone and at half a page's width."""


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element. In names of attributes ``_`` stands for ``-``, one at the end is left out (``class_``)."""
    texts = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(_text(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(visible(child) if type(child) is str else child for child in children)
    return Markup(f"<{name}{''.join(texts)}>{inside}</{name}>")


def picture(title: str, description: str, slug: str, height: float, *children: str) -> Markup:
    """A drawing of ``WIDTH`` by ``height`` units with its name and what it shows, for who cannot see it."""
    return element(
        "svg",
        element("title", title, id=f"{slug}-title"),
        element("desc", description, id=f"{slug}-description"),
        *children,
        viewBox=f"0 0 {WIDTH} {_text(height)}",
        role="img",
        aria_labelledby=f"{slug}-title {slug}-description",
        xmlns="http://www.w3.org/2000/svg",
    )


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
