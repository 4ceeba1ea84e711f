"""How the C++ is compiled, kept and done without."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spikestill.dynamics import ATan, NeuronRule, Sigmoid, compiled, native, plain, spike_sequence
from spikestill.dynamics.backend import passes_for

HOW = [NeuronRule(*how) for how in itertools.product(("soft", "hard"), ("reset-then-leak", "leak-then-subtract"))]
LEAK, THRESHOLD = torch.tensor(0.7), torch.tensor(1.2)
QUICK = tuple("-O0" if flag == "-O3" else flag for flag in compiled._FLAGS)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder and a module that has not looked for anything yet."""
    cached = (native._library, compiled.library, compiled._compiler, compiled._say_plain, compiled._cache_folder)
    cached += (compiled._version, compiled._given_up)
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled, "_FLAGS", QUICK)
    for function in cached:
        function.cache_clear()
    yield folder / "spikestill"
    for function in cached:
        function.cache_clear()


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if (record.name, record.levelno) == ("spikestill", level)]


def spikes_of(rule: NeuronRule) -> Tensor:
    current = torch.randn(5, 3, 100, generator=torch.Generator().manual_seed(3))
    return spike_sequence(current, LEAK, THRESHOLD, 5, rule)[0]


def test_a_first_compilation_is_logged_with_its_seconds(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    expected = spikes_of(HOW[0])
    assert passes_for(torch.randn(2, 3), HOW[0]) is native
    (message,) = said(caplog, logging.INFO)
    assert message.startswith("compiled kernels.cpp in ")
    assert float(message.split()[-2]) < 60
    assert [path.suffix for path in fresh.iterdir()] == [".so"]
    native._library.cache_clear()
    compiled.library.cache_clear()
    assert torch.equal(spikes_of(HOW[0]), expected)
    assert len(said(caplog, logging.INFO)) == 1


def test_the_surrogate_s_parameter_needs_no_other_library(fresh: Path) -> None:
    for width in (1.0, 2.5):
        assert native.covers(torch.float32, NeuronRule(surrogate=Sigmoid(width)))
    assert len(list(fresh.iterdir())) == 1
    assert native.covers(torch.float32, NeuronRule(surrogate=ATan()))
    assert len(list(fresh.iterdir())) == 2


@pytest.mark.usefixtures("fresh")
def test_without_a_compiler_the_plain_passes_serve_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [spikes_of(rule) for rule in HOW[:2]]
    for function in (native._library, compiled.library, compiled._compiler):
        function.cache_clear()
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    for rule, wanted in zip(HOW, expected, strict=False):
        assert passes_for(torch.randn(2, 3), rule) is plain
        assert torch.equal(spikes_of(rule), wanted)
    (message,) = said(caplog, logging.WARNING)
    assert "no C++ compiler found: neurons run on plain torch operations" in message


def compiler_script(folder: Path, text: str) -> str:
    script = folder / "compiler"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("text", ["echo no such flag >&2; exit 1", "exit 0"], ids=["exit 1", "writes nothing"])
def test_with_a_compiler_that_fails_the_plain_passes_serve_and_that_is_said_once(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("CXX", compiler_script(tmp_path, text))
    for rule in HOW[:3]:
        assert passes_for(torch.randn(2, 3), rule) is plain
        assert set(spikes_of(rule).unique().tolist()) == {0, 1}
    (message,) = said(caplog, logging.WARNING)
    assert "cannot" in message
    assert "neurons run on plain torch operations" in message
    assert text == "exit 0" or "no such flag" in said(caplog, logging.INFO)[0]
    assert list(fresh.iterdir()) == []


def test_a_compiler_of_another_name_is_found(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "noted"
    monkeypatch.setenv("CXX", compiler_script(tmp_path, f'echo called >> {noted}\nexec g++ "$@"'))
    assert native.covers(torch.float32, HOW[0])
    assert noted.read_text() == "called\n" * 2  # for its version, and to compile
    assert len(list(fresh.iterdir())) == 1


@pytest.mark.usefixtures("fresh")
def test_a_compiler_that_does_not_know_the_processor_is_asked_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("SPIKESTILL_KERNELS", "plain")
        expected = spikes_of(HOW[0])
    refuse = 'case "$*" in *-march=native*) exit 1;; esac\nexec g++ "$@"'
    monkeypatch.setenv("CXX", compiler_script(tmp_path, refuse))
    assert native.covers(torch.float32, HOW[0])
    assert torch.equal(spikes_of(HOW[0]), expected)
    assert said(caplog, logging.WARNING) == []


def test_an_unusable_cache_folder_is_replaced_by_a_passing_one(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fresh.parent.write_text("a file where the folder should be")
    made = compiled._cache_folder()
    assert made.is_dir()
    assert fresh.parent not in made.parents
    assert native.covers(torch.float32, HOW[0])
    assert len(list(made.iterdir())) == 1
    fresh.parent.unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    compiled._cache_folder.cache_clear()
    assert compiled._cache_folder() not in (made, fresh)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    compiled._cache_folder.cache_clear()
    assert compiled._cache_folder().is_dir()
    assert said(caplog, logging.WARNING) == []


def test_a_compiler_that_hangs_is_given_up_once_with_what_it_has_started(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started = tmp_path / "started"
    hang = f'case "$1" in --version) exit 0;; esac\nsleep 600 &\necho $! >> {started}\nwait'
    monkeypatch.setenv("CXX", compiler_script(tmp_path, hang))
    monkeypatch.setattr(compiled, "_SECONDS", 0.5)
    for rule in HOW[:3]:
        assert passes_for(torch.randn(2, 3), rule) is plain
    (message,) = said(caplog, logging.WARNING)
    assert "did not compile the kernels within 0.5 s: neurons run on plain torch operations" in message
    (child,) = started.read_text().split()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(fresh.iterdir()) == []


def test_a_library_that_others_can_write_is_built_again(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert native.covers(torch.float32, HOW[0])
    (path,) = fresh.iterdir()
    assert path.stat().st_mode & 0o022 == 0
    elsewhere = fresh.parent / path.name
    path.rename(elsewhere)
    for is_link in (False, True):
        path.unlink(missing_ok=True)
        if is_link:
            path.symlink_to(elsewhere)
        else:
            path.write_bytes(elsewhere.read_bytes())
            path.chmod(0o777)
        native._library.cache_clear()
        compiled.library.cache_clear()
        before = len(said(caplog, logging.INFO))
        assert native.covers(torch.float32, HOW[0])
        assert len(said(caplog, logging.INFO)) == before + 1
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o022 == 0


def test_a_library_is_that_of_compiler_flags_and_processor(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    copy = f'case "$1" in --version) cat {tmp_path}/version;; *) for last; do :; done; : > "$last";; esac'
    compiler = compiler_script(tmp_path, copy)
    for version, processor in (("1", "a"), ("2", "a"), ("2", "b")):
        (tmp_path / "version").write_text(version)
        compiled._version.cache_clear()
        monkeypatch.setattr(compiled, "_processor", lambda processor=processor: processor)
        names.add(compiled._built(compiler, "kernels.cpp", ()).name)
    monkeypatch.setattr(compiled, "_MACHINE_FLAGS", ((),))
    names.add(compiled._built(compiler, "kernels.cpp", ()).name)
    assert len(names) == 4
    assert {path.name for path in fresh.iterdir()} == names


@pytest.mark.slow
def test_a_damaged_library_is_built_again(fresh: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO)
    expected = spikes_of(HOW[0])
    (path,) = fresh.iterdir()
    content = path.read_bytes()
    path.replace(tmp_path / "in use")  # a loaded library must not change
    for damaged in (b"", content[:100], content[: len(content) // 2], content[:-1], b"x" * len(content)):
        path.write_bytes(damaged)
        native._library.cache_clear()
        compiled.library.cache_clear()
        assert passes_for(torch.randn(2, 3), HOW[0]) is native
        assert torch.equal(spikes_of(HOW[0]), expected)
        assert len(path.read_bytes()) == len(content)
    assert len(said(caplog, logging.INFO)) == 6
    assert said(caplog, logging.WARNING) == []


BUILD = f"""
import logging, torch
logging.basicConfig(level="INFO")
from spikestill.dynamics import NeuronRule, compiled, native
compiled._FLAGS = {QUICK!r}
assert native.covers(torch.float32, NeuronRule())
neuron = (torch.tensor(0.5), torch.tensor(1.0), 3, NeuronRule())
terms, channels = [native.FlatTerm(torch.full((3, 400), 2.0))], native.Channels(1, 400)
assert (native.spikes(terms, channels, None, *neuron)[0] == 1).all()
"""


@pytest.mark.slow
def test_processes_that_build_at_once_all_work_and_a_later_one_finds_what_they_built(
    fresh: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    builders = [subprocess.Popen([sys.executable, "-c", BUILD], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [builder.communicate(timeout=120)[1] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], logs
    assert any("compiled kernels.cpp in" in log for log in logs)
    assert [path.suffix for path in fresh.iterdir()] == [".so"]
    assert passes_for(torch.randn(2, 3), NeuronRule()) is native
    assert said(caplog, logging.INFO) == []
