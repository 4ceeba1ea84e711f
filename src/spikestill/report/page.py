"""The page of one run or of several: one HTML file that needs nothing else, from run folders alone.

There are no scripts in it, and its policy forbids them: whatever a name in a recipe says stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikestill.files import write_atomically
from spikestill.report import sections
from spikestill.report.blocks import Section
from spikestill.report.colours import DARK, LIGHT, variables
from spikestill.report.shown import shown
from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["rendered", "write_page"]


def write_page(folders: Sequence[str], to: str | Path | None = None, first: Sequence[Section] = ()) -> Path:
    """Write the page of these runs, atomically.

    Args:
        folders: of finished runs.
        to: the file; by default report.html, in the run folder of one run, in the current folder for several.
        first: sections that stand before those of the runs.

    Returns:
        The file.

    Raises:
        InputError: for no run, one that is not finished or damaged, and a file that cannot be written.
    """
    if not folders:
        raise InputError("report needs at least one run folder")
    path = Path(to) if to is not None else (Path(folders[0]) if len(folders) == 1 else Path()) / "report.html"
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file, as in {path / 'report.html'}")
    if path.suffix.lower() not in (".html", ".htm"):  # a file of a run, such as its weights, would be gone
        raise InputError(f"cannot write {path}: name a file that ends in .html")
    content = rendered(folders, first)
    write_atomically(path, content.encode(errors="backslashreplace"))
    return path


def rendered(folders: Sequence[str], first: Sequence[Section] = ()) -> str:
    """The page of these runs as HTML.

    Args:
        folders: of finished runs; those that differ in their seed alone are one system.
        first: sections that stand before those of the runs.

    Raises:
        InputError: for a folder that holds no finished run, and a file in it that is damaged.
    """
    from importlib import resources

    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    systems = shown(folders)
    found = [
        *first,
        sections.overview(systems),
        *(make(systems) for make in (sections.steps, sections.layers, sections.vision, sections.answers)),
        sections.training(systems),
        sections.origin(systems),
    ]
    environment = Environment(
        loader=PackageLoader("spikestill.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value, lines=True) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment.get_template("page.html").render(
        headline=sections.headline(systems),
        sections=[section for section in found if section is not None],
        systems=systems,
        light=variables(LIGHT),
        dark=variables(DARK),
        style=Markup(resources.files("spikestill.report").joinpath("page.css").read_text(encoding="utf-8")),
    )
