"""Which files and folders are out of the reach of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spikestill.dynamics.private import is_private, private_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")


@pytest.mark.parametrize(("mode", "private"), [(0o600, True), (0o644, True), (0o664, False), (0o646, False)])
def test_files(tmp_path: Path, mode: int, private: bool) -> None:
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(mode)
    assert is_private(file) == private


def test_links_pipes_and_nothing_are_not_private(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert [is_private(tmp_path / name) for name in ("file", "link", "pipe", "none")] == [True, False, False, False]


def test_a_folder_of_ones_own_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert private_folder(tmp_path / "cache") == tmp_path / "cache"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o755
    assert private_folder(tmp_path / "new" / "cache") == tmp_path / "new" / "cache"


def test_a_parent_that_others_can_write_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for mode, fits in ((0o777, False), (0o1777, True), (0o755, True)):
        shared.chmod(mode)
        assert (private_folder(shared / "cache") is not None) == fits


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path) -> None:
    for name in ("file", "folder"):
        (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("")
        os.chown(tmp_path / name, 12345, 12345)
    assert not is_private(tmp_path / "file")
    assert private_folder(tmp_path / "folder") is None
    assert private_folder(tmp_path / "folder" / "inner") is None  # its owner could put another in its place
