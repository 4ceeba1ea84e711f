from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from spikestill.cli import main
from spikestill.report import write_page
from spikestill.report.page import rendered
from spikestill.runs import Run
from spikestill.types import InputError
from tests.report.folders import CLASSES, ann, evidence, student

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """The elements of a page, and whether every one that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for one, attributes in self.seen if one == tag]


def test_the_page_of_one_run_has_everything(tmp_path: Path) -> None:
    page = rendered([student(tmp_path / "run", recorded=evidence())])
    outline = Outline(page)
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == [
        "Accuracy at every time step",
        "Stopping when sure",
        "Firing rates",
        "Silent neurons",
        "Distance from the ANN’s activations",
        "Operations",
        "Energy of an image",
        "When single neurons fire",
        "Attention",
        "Examples it gets wrong",
        "Calibration",
        "Confusion matrix",
        "Accuracy",
        "Cross-entropy",
        "Terms of the training loss",
        "Command",
        "Data and machine",
        "Recipe",
    ]
    assert "reaches 92.0\N{NO-BREAK SPACE}% test accuracy; its teacher reaches 97.0" in outline.text
    assert "the student is 5.0 points below" in outline.text
    assert "an estimated 17\N{NO-BREAK SPACE}% of the energy" in outline.text
    assert f"spikestill distill {tmp_path / 'run' / 'recipe.yaml'} --out {tmp_path / 'run'}-again" in outline.text
    assert "6 of 90\N{NO-BREAK SPACE}test images are wrong" in outline.text
    assert len(page) < 300_000


def test_it_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    page = rendered([student(tmp_path / "run", recorded=evidence())])
    outline = Outline(page)
    assert not outline.all("script")
    assert not any(name.startswith("on") for _, attributes in outline.seen for name in attributes)
    for _, attributes in outline.seen:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in page
    assert "@import" not in page
    policy = next(one["content"] for one in outline.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_it_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    runs = [ann(tmp_path / "ann", recorded=evidence(spikes=False)), student(tmp_path / "run", recorded=evidence())]
    page = rendered(runs)
    outline = Outline(page)
    assert outline.all("html")[0]["lang"] == "en"
    names = [attributes["id"] for _, attributes in outline.seen if attributes.get("id")]
    assert len(set(names)) == len(names)
    assert all(image.get("alt") for image in outline.all("img"))
    assert len(outline.all("img")) > 10
    charts = [one for one in outline.all("svg") if one.get("role") == "img"]
    assert len(charts) >= 10
    assert all(set(str(one["aria-labelledby"]).split()) <= set(names) for one in charts)
    assert all(one.get("role") == "img" or one.get("aria-hidden") for one in outline.all("svg"))
    assert page.count("<figure") == page.count("The numbers<") == len(charts)
    assert len(outline.all("table")) == len(outline.all("caption"))
    for link in outline.all("a"):
        assert str(link["href"]).removeprefix("#") in names
    levels = [int(tag[1]) for tag, _ in outline.seen if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_the_drawn_number_of_time_steps_is_no_term_of_the_loss(tmp_path: Path) -> None:
    folder = student(tmp_path / "run")
    run = Run(Path(folder))
    run.write_table("metrics.csv", [row | {"train_timesteps": "2.5"} for row in run.read_table("metrics.csv")])
    page = rendered([folder])
    assert ">blockwise<" in page
    assert ">timesteps<" not in page


def test_seeds_are_one_system_with_its_spread(tmp_path: Path) -> None:
    runs = [student(tmp_path / str(seed), seed, 0.90 + 0.02 * seed, evidence()) for seed in (0, 1)]
    outline = Outline(rendered(runs))
    assert "91.0\N{NO-BREAK SPACE}%" in outline.text
    assert "± 1.4\N{NO-BREAK SPACE}% over 2\N{NO-BREAK SPACE}seeds" in outline.text
    assert [one for one in outline.all("polygon") if one.get("class") == "band"]
    assert "91.00 % ± 1.41 %" in outline.text
    assert "Side by side" not in outline.text


def test_several_systems_stand_side_by_side(tmp_path: Path) -> None:
    runs = [ann(tmp_path / "teacher", accuracy=0.99), student(tmp_path / "a", accuracy=0.7, recorded=evidence())]
    runs.append(student(tmp_path / "b", objectives=[{"name": "cross-entropy"}], accuracy=0.95, recorded=evidence()))
    page = rendered(runs)
    outline = Outline(page)
    assert "3 systems on digits" in outline.text
    assert "The best student, labels, reaches 95.0" in outline.text
    assert "Side by side" in outline.text
    assert "block-wise: When single neurons fire" in outline.text
    assert "labels: When single neurons fire" in outline.text
    assert page.count("<h3>Firing rates</h3>") == 1


def test_an_older_run_is_shown_without_what_it_lacks(tmp_path: Path) -> None:
    folder = student(tmp_path / "run")
    for name in ("environment.json", "metrics.csv"):
        (tmp_path / "run" / name).unlink()
    outline = Outline(rendered([folder]))
    assert "Early exit is not shown" in outline.text
    assert "the run has no analysis.json. The command spikestill evaluate writes it." in outline.text
    assert "There is no course of a training" in outline.text
    assert "Accuracy at every time step" in outline.text
    assert "Calibration" not in outline.text


def test_what_was_converted_has_no_teacher(tmp_path: Path) -> None:
    changed = {"epochs": 0, "initialise": "normalise", "teacher": None, "source": "gone"}
    outline = Outline(rendered([student(tmp_path / "run", recorded=evidence(), **changed)]))
    assert "the ANN that it was converted from reaches 97.0" in outline.text
    assert "conversion: vgg5 on digits" in outline.text


def test_an_ann_has_no_steps_to_show(tmp_path: Path) -> None:
    outline = Outline(rendered([ann(tmp_path / "run", recorded=evidence(spikes=False))]))
    assert "An ANN that puts 97.0\N{NO-BREAK SPACE}% of the test images into their class." in outline.text
    assert "An ANN answers at once: there are no time steps to show." in outline.text
    assert "An ANN has no spikes to show." in outline.text
    assert "spikestill train" in outline.text
    assert "Confusion matrix" in outline.text


def test_a_deep_network_has_lines_in_place_of_bars(tmp_path: Path) -> None:
    rates = {f"layer{index}.relu": 0.1 + index / 100 for index in range(40)}
    run = student(tmp_path / "run", rates=rates)
    outline = Outline(rendered([run]))
    assert "of 40 layers" in outline.text
    assert "layer39.relu" in outline.text


def test_names_stay_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    recorded = evidence(classes=(evil, *CLASSES[1:]))
    folder = student(tmp_path / "run", recorded=recorded, method=evil, student=evil, data=f"folder:{evil}")
    page = rendered([folder, ann(tmp_path / "ann", method=evil, data=evil)])
    outline = Outline(page)
    assert "<img src=x" not in page
    assert evil in outline.text
    assert not any("onerror" in attributes for _, attributes in outline.seen)


def test_the_file_lies_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [student(Path("a")), student(Path("b"), epochs=9)]
    assert write_page(runs[:1]) == Path("a/report.html")
    assert write_page(runs) == Path("report.html")
    assert write_page(runs, "pages/both.html") == Path("pages/both.html")
    for path in ("a/report.html", "report.html", "pages/both.html"):
        Outline((tmp_path / path).read_text())
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["both.html"]


def test_the_command_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = student(tmp_path / "run"), tmp_path / "page.html"
    assert main(["report", run, "--to", str(page)]) == 0
    assert capsys.readouterr().out == f"report: {page}\n"
    assert page.is_file()


def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = student(tmp_path / "run", recorded=evidence())
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.yaml").write_text("method: x\n")
    (tmp_path / "damaged").mkdir()
    damaged = student(tmp_path / "damaged")
    (tmp_path / "damaged" / "analysis.json").write_text("{")
    for words, said in (
        ([], "report needs at least one run folder"),
        ([str(tmp_path / "nothing")], "is no run folder"),
        ([str(tmp_path / "unfinished")], "has no weights yet"),
        ([damaged], "analysis.json is damaged"),
        ([run, run], "have the same seed and recipe"),
        ([run, "--to", str(tmp_path)], "it is a folder; name a file"),
        ([run, "--too", "x"], "unknown option '--too': did you mean '--to'?"),
    ):
        assert main(["report", *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_page([student(tmp_path / "run")])
    before = page.read_text()

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_page([str(tmp_path / "run")])
    assert page.read_text() == before
    assert [path.name for path in page.parent.glob(".*")] == []
