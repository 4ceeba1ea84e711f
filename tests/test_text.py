"""Text from files is text wherever it is shown."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikestill.cli import main
from spikestill.cli.tables import print_rows
from spikestill.report.comparison import Row
from spikestill.report.figures import accuracy_over_time
from spikestill.report.table import Table
from spikestill.text import csv_cell, markdown_cell, plot_label, visible
from tests.report import folders

HOSTILE = {
    "colour": "\x1b[31mred",
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil\x1b\\click",
    "return": "honest\rfaked",
    "backspace": "ab\x08\x08cd",
    "c1": "\x9b31mred",
    "bidi": "user\u202etxt.exe",
    "isolate": "a\u2066b",
    "zero width": "pay\u200bpal",
    "separator": "one\u2028two",
    "lines": "one\ntwo",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_obeys_is_spelled_out(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert shown != text
    assert len(shown) > len(text)


def test_what_is_harmless_stays() -> None:
    for text in ("", "conv1.bn", "Größe 4 × 4 ± 0.1", "猫", "a b c", "émigré", "🙂"):
        assert visible(text) == text
    assert visible("one\ntwo\r", lines=True) == "one\ntwo\\r"
    assert visible(Path("a\x1bb")) == "a\\x1bb"


@given(st.text())
def test_whatever_comes_is_printable(text: str) -> None:
    assert not any(character in visible(text) for character in "\x1b\r\n\x07\x08\x9b\u202e\u2066")


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1", "\r=1", "  =HYPERLINK(1)"]
)
def test_no_cell_is_a_formula(cell: str) -> None:
    text = Table("title", (cell, "b"), ((cell, "1"),)).comma_separated()
    for row in csv.reader(io.StringIO(text)):
        assert row[0].startswith("'")
    assert csv_cell(cell).startswith("'")


@pytest.mark.parametrize("cell", ["-0.25", "+3", "-1e-3", "12.50 ± 0.30", "-1.0 ± 0.2", "", "name", "a=b"])
def test_numbers_and_names_stay(cell: str) -> None:
    assert csv_cell(cell) == cell


def test_bars_line_breaks_and_markup_make_no_cells() -> None:
    text = Table("t", ("method", "x"), (("a | b", "1"), ("c\nd", "2"), ("<img src=x>", "*3*"))).markdown()
    lines = text.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert line.replace("\\|", "").count("|") == 3
    assert r"| a \| b | 1 |" in lines
    assert r"| c\\nd | 2 |" in lines
    assert r"| &lt;img src=x\> | \*3\* |" in lines
    assert markdown_cell("\\|") == "\\\\\\|"


def test_markup_of_rich_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["[bold]x[/bold]", "[/nothing]", "[link=http://evil]y[/link]", ":smile:", "\x1b[31mz"]
    print_rows("[red]title\x1b[0m", ["[a]", "b"], [[text, "1"] for text in texts])
    said = capsys.readouterr().out
    for text in (*texts[:-1], "\\x1b[31mz", "[red]title\\x1b[0m", "[a]"):
        assert text in said
    assert "\x1b" not in said


def test_errors_and_remarks_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no\x1b[2Jrun\u202e"]) == 2
    said = capsys.readouterr().err
    assert "no\\x1b[2Jrun\\u202e" in said
    record = logging.LogRecord("spikestill", logging.WARNING, "", 0, "layer %s\nnext", ("a\x1bb",), None)
    handler = next(one for one in logging.getLogger("spikestill").handlers if type(one) is logging.StreamHandler)
    assert handler.format(record) == "spikestill: layer a\\x1bb\nnext"


def test_a_label_of_a_figure_is_no_mathematics(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in (r"$\frac{", "_hidden", "a\x1bb$$"):
        accuracy_over_time([Row(name, 2, (0,), {1: (0.1,), 2: (0.2,)}, (0.1,), (1.0,))], tmp_path / "a.svg")
        assert plot_label(name).lstrip() == visible(name).replace("$", "\\$")


def test_names_on_the_terminal_of_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folders.student(tmp_path / "run", recorded=folders.evidence(), method="[bold]\x1b]0;x\x07=1|2")
    for option, expected in ((), "[bold]\\x1b]0;x\\x07=1|2"), (("--markdown",), r"\[bold\]\\x1b\]0;x\\x07=1\|2"):
        assert main(["compare", run, *option]) == 0
        said = capsys.readouterr().out
        assert expected in said
        assert "\x1b]" not in said
