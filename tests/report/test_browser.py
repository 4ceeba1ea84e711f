"""The page in a real browser: headless Chromium, driven by its own command line. Skipped where there is none."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from spikestill.report.page import rendered
from tests.report.folders import ann, evidence, student

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, chromium-browser or google-chrome here"),
]

PHONE, DESK = 390, 1280

# The page lies in a frame of the wanted width, since a window cannot be as narrow as a phone; all details are opened.
MEASURING = """<!doctype html><body style="margin:0">
<iframe style="border:0;width:WIDTHpx;height:900px"></iframe><pre></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  page.querySelectorAll("details").forEach(one => one.open = true);
  const named = one => (one.closest("figure,[id]") || {}).id + " " + one.tagName + " " + one.textContent.slice(0, 30);
  const found = {width: view.innerWidth, wide: [], clipped: [], touching: []};
  found.scrolled = page.documentElement.scrollWidth;
  for (const one of page.querySelectorAll("body *"))
    if (one.getBoundingClientRect().right > view.innerWidth + 1 && !one.closest(".scroll, pre, .hidden"))
      found.wide.push(named(one));
  const charts = [...page.querySelectorAll("svg[role=img]")];
  found.charts = charts.length;
  found.smallest = 100;
  for (const chart of charts) {
    const frame = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll("text")].map(one => [one, one.getBoundingClientRect()]);
    for (const [one, box] of texts) {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
          || box.bottom > frame.bottom + 1) found.clipped.push(named(one) + one.textContent);
      const size = parseFloat(view.getComputedStyle(one).fontSize) * frame.width / chart.viewBox.baseVal.width;
      found.smallest = Math.min(found.smallest, size);
    }
    for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
      const [one, a] = texts[i], [other, b] = texts[j];
      if (one.hasAttribute("transform") || other.hasAttribute("transform")) continue;
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 0.35 * Math.min(a.height, b.height))
        found.touching.push(named(one) + " / " + other.textContent);
    }
  }
  found.pictures = [...page.images].map(one => [one.alt, one.naturalWidth]);
  found.dark = view.matchMedia("(prefers-color-scheme: dark)").matches;
  found.paper = view.getComputedStyle(page.documentElement).backgroundColor;
  document.querySelector("pre").textContent = JSON.stringify(found);
};
frame.srcdoc = PAGE;
</script>"""


def chromium(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *fixed, profile, "--enable-logging=stderr", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


def complaints(log: str) -> list[str]:
    return [line for line in log.splitlines() if ":CONSOLE:" in line]


def measured(tmp_path: Path, page: str, width: int, *words: str) -> dict[str, Any]:
    content = MEASURING.replace("WIDTH", str(width)).replace("PAGE", json.dumps(page).replace("</", "<\\/"))
    (tmp_path / "measuring.html").write_text(content)
    done = chromium(
        tmp_path, "--virtual-time-budget=5000", *words, "--dump-dom", f"file://{tmp_path / 'measuring.html'}"
    )
    assert complaints(done.stderr) == []
    text = re.findall(r"<pre>(\{.*?\})</pre>", done.stdout, re.DOTALL)
    return json.loads(html.unescape(text[0]))


@pytest.fixture
def one(tmp_path: Path) -> str:
    return rendered([student(tmp_path / "one", recorded=evidence())])


@pytest.fixture
def several(tmp_path: Path) -> str:
    """An ANN, two seeds of a student, another with long names, a third of other layers and many classes."""
    runs = [ann(tmp_path / "ann", recorded=evidence(spikes=False))]
    runs += [student(tmp_path / f"a{seed}", seed, 0.9 + seed / 50, evidence()) for seed in (0, 1)]
    names = tuple(f"a rather long name of class number {index}" for index in range(20))
    objectives = [{"name": "activation-attention", "options": {"normalise": True}}]
    runs.append(student(tmp_path / "b", accuracy=0.8, recorded=evidence(names), objectives=objectives, width=0.125))
    deep = {f"features.denseblock{index}.denselayer{index}.relu1": 0.01 * index for index in range(60)}
    runs.append(student(tmp_path / "c", recorded=evidence(layers=()), initialise="quantise", epochs=0, rates=deep))
    return rendered(runs)


def test_it_loads_without_a_complaint(tmp_path: Path, one: str) -> None:
    (tmp_path / "page.html").write_text(one)
    done = chromium(tmp_path, "--dump-dom", f"file://{tmp_path / 'page.html'}")
    assert complaints(done.stderr) == []
    assert done.stdout.count('role="img"') == one.count('role="img"') > 10


def test_a_complaint_would_be_seen(tmp_path: Path, one: str) -> None:
    (tmp_path / "page.html").write_text(one.replace("</body>", "<script>1</script></body>"))
    done = chromium(tmp_path, "--dump-dom", f"file://{tmp_path / 'page.html'}")
    assert "Content Security Policy" in complaints(done.stderr)[0]


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("which", ["one", "several"])
def test_all_fits(tmp_path: Path, request: pytest.FixtureRequest, which: str, width: int) -> None:
    found = measured(tmp_path, request.getfixturevalue(which), width)
    assert found["width"] == width
    assert found["wide"] == []
    assert found["scrolled"] <= width
    assert found["clipped"] == []
    assert found["touching"] == []
    assert found["charts"] > 10
    assert found["smallest"] >= 10
    assert found["pictures"]
    assert all(alt and size for alt, size in found["pictures"])


def test_the_dark_mode_is_followed(tmp_path: Path, one: str) -> None:
    light = measured(tmp_path, one, DESK)
    dark = measured(tmp_path, one, DESK, "--blink-settings=preferredColorScheme=0")
    assert (light["dark"], dark["dark"]) == (False, True)
    assert light["paper"] == "rgb(253, 252, 249)"
    assert dark["paper"] == "rgb(21, 23, 26)"


def test_it_can_be_printed(tmp_path: Path, one: str) -> None:
    (tmp_path / "page.html").write_text(one)
    chromium(tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", f"file://{tmp_path / 'page.html'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
