from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from spikestill.data import aedat4, aedat4_process
from spikestill.data.aedat4 import Aedat4Decoder
from spikestill.types import InputError
from tests.data.event_files import aedat4 as written
from tests.data.event_files import some_events

pytest.importorskip("aedat")


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"one\n{number}.aedat4" for number in range(6)]
    for number, file in enumerate(files):
        file.write_bytes(written(some_events(number)))
    return files


def test_events_come_as_they_were_written_from_several_threads(recordings: list[Path]) -> None:
    with Aedat4Decoder() as decode, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(decode, recordings))
    for number, recording in enumerate(found):
        events = some_events(number)
        for got, name in ((recording.time, "t"), (recording.x, "x"), (recording.y, "y"), (recording.polarity, "p")):
            np.testing.assert_array_equal(got, events[name])


def test_tonic_reads_the_same(recordings: list[Path]) -> None:
    read_aedat4 = pytest.importorskip("tonic.io").read_aedat4
    expected = read_aedat4(str(recordings[0]))
    rows = aedat4_process._decoded(str(recordings[0]))
    for row, name in zip(rows, expected.dtype.names, strict=True):
        np.testing.assert_array_equal(row, expected[name])


def test_no_process_is_left(recordings: list[Path]) -> None:
    with Aedat4Decoder() as decode:
        decode(recordings[0])
        (process,) = decode._running
        assert process._running.poll() is None
    assert process._running.returncode is not None


PROGRAM = """
import os, sys
print(flush=True)
for number, line in enumerate(sys.stdin):
    {act}
"""
ENDS = {
    "at once": "os.abort()",
    "amid the numbers": "print('{\"events\": 5}', flush=True); os._exit(0)",
    "never": "import time; time.sleep(60)",
}


@pytest.mark.parametrize("act", ENDS.values(), ids=ENDS)
def test_a_recording_that_ends_the_decoder_is_a_line_and_the_next_one_is_read(
    act: str, recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = aedat4._PROGRAM
    (tmp_path / "ends.py").write_text(PROGRAM.format(act=act))
    monkeypatch.setattr(aedat4, "_SECONDS", 0.5)
    with Aedat4Decoder() as decode:
        for _ in range(3):
            monkeypatch.setattr(aedat4, "_PROGRAM", tmp_path / "ends.py")
            with pytest.raises(
                InputError, match=r"0.aedat4' is not a readable AEDAT4 recording \(it ends the decoder\)"
            ):
                decode(recordings[0])
            monkeypatch.setattr(aedat4, "_PROGRAM", whole)
            assert len(decode(recordings[1]).time) == 400
            (process,) = decode._running
            process._running.kill()  # it cannot take the recording after the next with it
            with pytest.raises(InputError, match="it ends the decoder"):
                decode(recordings[2])
            assert not decode._running


def test_a_decoder_that_does_not_start_is_no_fault_of_the_recording(
    recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.setattr(aedat4, "_PROGRAM", tmp_path / "broken.py")
    with Aedat4Decoder() as decode, pytest.raises(InputError, match="AEDAT4 recordings does not start: python -c"):
        decode(recordings[0])


def test_a_panic_of_the_decoder_is_a_reason_and_an_interruption_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As the decoder's library has it."""

    def panics(path: str) -> np.ndarray:
        raise PanicException("range start\nindex 7")

    def interrupted(path: str) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(aedat4_process, "_decoded", panics)
    assert aedat4_process._answer("0.aedat4") == ({"error": "range start index 7"}, b"")
    monkeypatch.setattr(aedat4_process, "_decoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        aedat4_process._answer("0.aedat4")


def test_the_program_answers_line_by_line(
    recordings: list[Path], capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (recordings[0].parent / "paths").open("w+b") as paths:
        paths.write(json.dumps(str(recordings[0])).encode() + b"\n")
        paths.seek(0)
        monkeypatch.setattr(sys, "stdin", type("Standard", (), {"buffer": paths}))
        aedat4_process.main()
    ready, said, content = capfdbinary.readouterr().out.split(b"\n", 2)
    assert not ready
    assert json.loads(said) == {"events": 400}
    assert len(content) == 400 * 4 * 8
