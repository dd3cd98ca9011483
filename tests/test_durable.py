"""What is on disk before something else happens: the order of syncs and renames, as the fault campaign asked for it."""

import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tills import Shop

from journal import log, rejected
from journal.book import make_directory, only_instance
from journal.command import verdict


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every sync and every change of a name, by the last part of its path, as it happens."""
    happened: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(what: Any, *more: Any, **options: Any) -> Any:
            path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(what)
            happened.append(f"{name} {path.name}")
            return real(what, *more, **options)

        return call

    for name in ("fsync", "rename", "replace", "mkdir"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    return happened


def test_words_about_a_file_are_on_disk_before_the_file_moves(shop: Shop, done: list[str]) -> None:
    (shop.spool / "rejected").mkdir(exist_ok=True)
    done.clear()
    _, words = rejected.write_words(shop.spool, "a.json", {})
    assert words.exists()
    assert [what.partition(" ")[0] for what in done] == ["fsync", "replace", "fsync"]
    assert done[-1] == "fsync rejected"


def test_a_new_directory_is_on_disk_with_those_above_it(tmp_path: Path, done: list[str]) -> None:
    make_directory(tmp_path / "shop" / "packs")
    assert done == ["mkdir shop", f"fsync {tmp_path.name}", "mkdir packs", "fsync shop"]
    assert (tmp_path / "shop" / "packs").stat().st_mode & 0o027 == 0
    done.clear()
    make_directory(tmp_path / "shop" / "packs")
    assert done == []


@pytest.mark.parametrize("name", ["journal.db", "delivery [2].db"])
def test_what_a_cut_creation_left_goes_at_the_next_start(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    log.create(path, "journal", {})
    remains = [tmp_path / f".{name}.{end}" for end in ("123.new", "123.new-journal")]
    others = [tmp_path / each for each in (".other.db.123.new", f".{name}", f"{name}-journal.new")]
    for each in remains + others:
        each.write_bytes(b"half")
    with only_instance(path, "a test"):
        assert [each.exists() for each in remains] == [False, False]
    assert all(each.exists() for each in (path, *others))


def test_a_commit_that_lasts_is_not_now_for_whoever_reads_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    log.create(path, "journal", {})
    with closing(log.open_book(path, "journal", write=True)) as writer, closing(sqlite3.connect(path, 0)) as reader:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as found:
            log.head(reader)
        writer.execute("ROLLBACK")
    assert verdict(found.value) == ("A book is held by another program; try again in a moment.", 75)


def test_a_disk_that_the_kernel_made_read_only_is_not_now(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        log.create(disk / "journal.db", "journal", {})
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(log.NotNow, match="is read-only"):
            log.open_book(disk / "journal.db", "journal", write=True)
        with pytest.raises(log.NotNow, match="is read-only"), only_instance(disk / "delivery.db", "a test"):
            pass
        log.open_book(disk / "journal.db", "journal", write=False).close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_name_of_a_book_is_on_disk_before_anything_is_added_to_it(tmp_path: Path, done: list[str]) -> None:
    log.create(tmp_path / "journal.db", "journal", {})
    done.clear()
    with only_instance(tmp_path / "journal.db", "a test"):
        assert done == [f"fsync {tmp_path.name}"]


def test_a_program_whose_book_can_not_be_synced_starts_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    log.create(tmp_path / "journal.db", "journal", {})
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(log.NotNow, match="Input/output error"), only_instance(tmp_path / "journal.db", "a test"):
        pass
