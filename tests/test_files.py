"""Files appear whole or not at all, and never replace another one unasked."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import CygnetError, DiskFull, OutputExists, OutputUnwritable
from shared.files import check_folder, check_free, is_folder, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_is_written_with_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.png", b"data")
    assert (tmp_path / "a.png").read_bytes() == b"data"
    (tmp_path / "b.png").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.png", "b.png")}
    assert len(modes) == 1
    assert names(tmp_path) == ["a.png", "b.png"]


@pytest.mark.parametrize("taken", ["file", "folder", "broken link"])
def test_what_exists_is_kept(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "a.png"
    match taken:
        case "file":
            path.write_bytes(b"old")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("nowhere")
    for attempt in (lambda: write_atomically(path, b"new"), lambda: check_free(path)):
        with pytest.raises(OutputExists, match="--force"):
            attempt()
    assert names(tmp_path) == ["a.png"]
    assert taken != "file" or path.read_bytes() == b"old"


def test_with_force_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "b.png").mkdir()
    write_atomically(tmp_path / "a.png", b"new", force=True)
    assert (tmp_path / "a.png").read_bytes() == b"new"
    with pytest.raises(OutputUnwritable):
        write_atomically(tmp_path / "b.png", b"new", force=True)
    assert names(tmp_path) == ["a.png", "b.png"]


def race(path: Path) -> list[int]:
    """Who of eight writers of one name won."""
    start, winners = threading.Barrier(8), []

    def write(number: int) -> None:
        start.wait()
        try:
            write_atomically(path, bytes([number]) * 1000)
            winners.append(number)
        except OutputExists:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_many_writers_of_one_name_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    [winner] = race(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == bytes([winner]) * 1000
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, OutputUnwritable),
        (errno.EIO, OutputUnwritable),
    ],
)
def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[CygnetError]
) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(kind, match=r"a\.png"):
        write_atomically(tmp_path / "a.png", b"new", force=True)
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
def test_a_private_folder_is_for_its_user_alone_and_one_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(0o755)
    there = (tmp_path / "there").stat().st_mode
    check_folder(tmp_path / "there" / "a" / "b", private=True)
    made = [tmp_path / "there" / "a", tmp_path / "there" / "a" / "b"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700, 0o700]
    check_folder(tmp_path / "there", private=True)
    assert (tmp_path / "there").stat().st_mode == there


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for folder in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / ("x" * 300)):
        with pytest.raises(OutputUnwritable):
            check_folder(folder)
        assert not is_folder(str(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputUnwritable, match="Permission denied"):
        check_folder(tmp_path)
