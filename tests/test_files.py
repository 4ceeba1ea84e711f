from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from spikestill.files import lock_path, write_atomically
from spikestill.types import InputError


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_a_lock_on_what_was_removed_does_not_count(tmp_path: Path) -> None:
    path, gone = tmp_path / "file", tmp_path / "gone"
    first = opened(path)

    def opened_late() -> int:
        """The first time, the file that another process has just removed."""
        if not gone.exists():
            gone.touch()
            path.unlink()
            return os.dup(first)
        return opened(path)

    handle = lock_path(path, opened_late, wait=False)
    assert handle is not None
    assert os.path.samestat(os.fstat(handle), path.stat())
    assert lock_path(path, lambda: opened(path), wait=False) is None
    os.close(handle)
    os.close(first)


def test_two_writers_of_one_file_leave_one_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    texts = [bytes([97 + number]) * 200_000 for number in range(4)]
    seen: set[bytes] = set()

    def write(text: bytes) -> None:
        for _ in range(25):
            write_atomically(path, text)
            seen.add(path.read_bytes())

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= set(texts)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_what_stands_in_the_way_of_a_temporary_file_is_removed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    temporary = tmp_path / ".result.json.partial"
    for block in (temporary.symlink_to, temporary.hardlink_to):
        block(victim)
        write_atomically(tmp_path / "result.json", b"{}")
    os.mkfifo(temporary)
    write_atomically(tmp_path / "result.json", b"{}")
    assert victim.read_text() == "mine"
    assert (tmp_path / "result.json").read_bytes() == b"{}"
    assert not temporary.exists()
    temporary.mkdir()
    with pytest.raises(InputError, match="cannot write .*result.json: Is a directory"):
        write_atomically(tmp_path / "result.json", b"{}")


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".notes.partial").write_text("half of something much longer")
    write_atomically(tmp_path / "notes", b"short")
    assert (tmp_path / "notes").read_bytes() == b"short"
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes"]
