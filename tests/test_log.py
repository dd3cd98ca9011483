"""The log: it only grows, whoever writes and with whatever tool; and a book is made whole or not at all."""

import os
import resource
import signal
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tills import Shop, fork, wait_until

from journal import chain, log
from journal.book import FORMAT
from journal.log import Entry
from journal.verify import verify

NOW = datetime(2025, 6, 15, 4, 32, 0, 123999, UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    log.create(path, "journal", {}, lambda: NOW)
    return path


@pytest.fixture
def book(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(log.open_book(path, "journal", write=True)) as db:
        log.append(db, [Entry("sale", None, "S-1", {"n": 1}, b"one"), Entry("sale", None, "S-2", {"n": 2}, b"two")])
        yield db


# -- it only grows


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET facts = '{}' WHERE seq = 2",
        "UPDATE log SET seq = 9 WHERE seq = 3",
        "DELETE FROM log WHERE seq = 3",
        "DELETE FROM log",
        "REPLACE INTO log SELECT seq, at, 'return', about, external_id, facts, body_hash, digest FROM log WHERE seq=2",
        "INSERT OR REPLACE INTO log SELECT * FROM log WHERE seq = 3",
        "INSERT OR IGNORE INTO log SELECT * FROM log WHERE seq = 3",
        "INSERT INTO log SELECT * FROM log WHERE seq = 3 ON CONFLICT (seq) DO UPDATE SET facts = '{}'",
        "INSERT INTO log SELECT 5, at, kind, about, external_id, facts, body_hash, digest FROM log WHERE seq = 3",
        "INSERT INTO log SELECT 0, at, kind, about, external_id, facts, body_hash, digest FROM log WHERE seq = 3",
        "INSERT INTO log SELECT NULL, at, kind, about, external_id, facts, body_hash, digest FROM log WHERE seq = 3",
        "UPDATE body SET bytes = x'00' WHERE seq = 2",
        "DELETE FROM body WHERE seq = 2",
        "REPLACE INTO body SELECT seq, salt, x'00' FROM body WHERE seq = 2",
        "INSERT INTO body SELECT 1, salt, bytes FROM body WHERE seq = 2",
        "INSERT INTO body SELECT 4, salt, bytes FROM body WHERE seq = 2",
    ],
)
def test_the_store_itself_refuses_what_is_not_the_next_entry(
    path: Path, book: sqlite3.Connection, statement: str
) -> None:
    before = list(book.execute("SELECT * FROM log LEFT JOIN body USING (seq)"))
    with closing(sqlite3.connect(path, isolation_level=None)) as anyone, pytest.raises(sqlite3.IntegrityError):
        anyone.execute(statement)
    assert list(book.execute("SELECT * FROM log LEFT JOIN body USING (seq)")) == before


@pytest.mark.parametrize(
    "values",
    [
        "4, x'41', 'sale', NULL, NULL, '{}', NULL, zeroblob(32)",
        "4, '', 'sale', 'one', NULL, '{}', NULL, zeroblob(32)",
        "4, '', 'sale', 1.5, NULL, '{}', NULL, zeroblob(32)",
        "4, '', 'sale', NULL, NULL, 'no json', NULL, zeroblob(32)",
        "4, '', 'sale', NULL, NULL, '{}', 'text', zeroblob(32)",
        "4, '', 'sale', NULL, NULL, '{}', NULL, zeroblob(31)",
        "4, '', 'sale', NULL, NULL, '{}', NULL, NULL",
        "4, '', NULL, NULL, NULL, '{}', NULL, zeroblob(32)",
    ],
)
@pytest.mark.usefixtures("book")
def test_the_store_itself_refuses_columns_that_no_entry_has(path: Path, values: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as anyone, pytest.raises(sqlite3.IntegrityError):
        anyone.execute(f"INSERT INTO log VALUES ({values})")


def test_a_body_goes_only_after_an_entry_that_says_why(book: sqlite3.Connection) -> None:
    log.append(book, [Entry("redaction", about=2)])
    book.execute("DELETE FROM body WHERE seq = 2")
    with pytest.raises(sqlite3.IntegrityError):
        book.execute("DELETE FROM body WHERE seq = 3")


def test_entries_are_linked_in_one_batch_and_across_batches(book: sqlite3.Connection) -> None:
    first = Entry("sale", None, "S-3", {}, b"three")
    log.append(book, [first, Entry("flag", first, "S-3", {"flag": "conflict"})], now=lambda: NOW)
    before = chain.ZERO
    for *row, digest in book.execute("SELECT * FROM log ORDER BY seq"):
        assert chain.link(before, chain.Row(*row)) == digest
        before = digest
    assert book.execute("SELECT seq, at, about FROM log ORDER BY seq DESC LIMIT 1").fetchone() == (
        5,
        "2025-06-15T04:32:00.123Z",
        4,
    )
    assert log.head(book) == (5, before)


def test_the_same_body_twice_has_two_hashes(book: sqlite3.Connection) -> None:
    """A body that was redacted can't be guessed back from its hash."""
    log.append(book, [Entry("sale", None, "S-3", {}, b"same"), Entry("sale", None, "S-4", {}, b"same")])
    hashes = [row[0] for row in book.execute("SELECT body_hash FROM log WHERE seq > 3")]
    assert len(set(hashes)) == 2


def test_a_batch_is_written_whole_or_not_at_all(book: sqlite3.Connection) -> None:
    def dies(_: int) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        log.append(book, [Entry("opened"), Entry("sale", None, "S-3", {}, b"three")], randomness=dies)
    assert log.head(book)[0] == 3
    assert not book.in_transaction


def test_a_moment_of_any_zone_is_written_in_utc() -> None:
    assert log.stamp(datetime.fromisoformat("2025-06-15T14:32:00.9999+10:00")) == "2025-06-15T04:32:00.999Z"


# -- created whole or not at all


def test_a_new_book_is_ours_closed_to_others_and_bears_its_settings(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0
    with closing(sqlite3.connect(path)) as db:
        found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version", "page_size")]
        assert found == [0x4F4D4A31, FORMAT, 16384]
        assert db.execute("SELECT seq, kind FROM log").fetchall() == [(1, "created")]


def test_what_is_there_already_is_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(log.Unusable, match="already a file"):
        log.create(path, "journal", {})
    assert path.read_bytes() == before


def test_the_rest_of_an_earlier_file_is_not_taken_for_the_new_ones(tmp_path: Path) -> None:
    """SQLite would roll a stray rollback journal back into the new book."""
    (tmp_path / "journal.db-journal").write_bytes(b"rest")
    with pytest.raises(log.Unusable, match="put back"):
        log.create(tmp_path / "journal.db", "journal", {})
    assert not (tmp_path / "journal.db").exists()


def test_a_directory_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "journal.db", tmp_path / "file" / "below" / "journal.db"):
        with pytest.raises(log.Unusable, match=r"file"):
            log.create(path, "journal", {})


@pytest.mark.parametrize("at", range(1, 40))
def test_a_crash_while_creating_leaves_nothing_or_a_whole_book(tmp_path: Path, at: int) -> None:
    """The child is killed before its nth file operation; there are fewer than forty."""
    path = tmp_path / "journal.db"

    fork(lambda: log.create(path, "journal", {}), die_at=(at, "before"))
    if path.exists():
        assert verify(path, tmp_path / "none")["ok"]
    else:
        log.create(path, "journal", {})
        assert verify(path, tmp_path / "none")["ok"]


# -- opened, or a sentence


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "a directory":
        path.unlink()
        path.mkdir()
    elif how == "text":
        path.write_text("not a database, and longer than a header of one hundred bytes " * 20)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a FIFO":
        path.unlink()
        os.mkfifo(path)
    elif how == "half a header":
        path.write_bytes(path.read_bytes()[:50])
    elif how == "a wrong page size":
        raw = bytearray(path.read_bytes())
        raw[16:18] = b"\x03\x03"
        path.write_bytes(raw)
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA {how}")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "omneo-journal init"),
        ("a directory", "not a file"),
        ("a FIFO", "not a file"),
        ("text", "no SQLite file"),
        ("empty", "backup"),
        ("half a header", "backup|damaged"),
        ("a wrong page size", "damaged"),
        ("application_id = 5", "not a journal"),
        (f"user_version = {FORMAT + 1}", "newer version"),
    ],
)
@pytest.mark.parametrize("write", [True, False])
def test_a_book_that_can_not_be_used_is_a_sentence_that_says_what_to_do(
    path: Path, how: str, words: str, write: bool
) -> None:
    spoil(path, how)
    with pytest.raises(log.Unusable, match=words):
        log.open_book(path, "journal", write=write)


def test_the_other_book_is_not_this_one(tmp_path: Path) -> None:
    log.create(tmp_path / "delivery.db", "delivery", {})
    with pytest.raises(log.Unusable, match="--db"):
        log.open_book(tmp_path / "delivery.db", "journal", write=False)


@pytest.mark.parametrize(
    "name", ["a?b#c%20d&mode=memory.db", "new\nline.db", os.fsdecode(b"not-utf8-\xff.db"), "é ü.db"]
)
def test_a_path_may_hold_any_character(tmp_path: Path, name: str) -> None:
    log.create(tmp_path / name, "journal", {})
    with closing(log.open_book(tmp_path / name, "journal", write=True)) as db:
        log.append(db, [Entry("opened")])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_path_may_begin_with_two_slashes(path: Path) -> None:
    log.open_book(Path(f"/{path}"), "journal", write=False).close()


def test_a_reader_can_not_write(path: Path) -> None:
    with closing(log.open_book(path, "journal", write=False)) as db, pytest.raises(log.NotNow):
        log.append(db, [Entry("opened")])


# -- held, full, killed


def test_a_reader_that_stays_keeps_a_commit_waiting_and_nothing_is_lost(path: Path, book: sqlite3.Connection) -> None:
    book.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        with pytest.raises(log.NotNow, match="held by another program"):
            log.append(book, [Entry("opened")])
        reader.execute("ROLLBACK")
    assert not book.in_transaction
    assert log.append(book, [Entry("opened")]) == 4
    assert verify(path, path.with_name("none"))["ok"]


def test_a_full_disk_is_not_now_and_goes_on_by_itself(book: sqlite3.Connection) -> None:
    pages = book.execute("PRAGMA page_count").fetchone()[0]
    book.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(log.NotNow, match="full"):
        log.append(book, [Entry("sale", None, "S-3", {}, bytes(100_000))])
    assert not book.in_transaction
    book.execute("PRAGMA max_page_count = 1000000")
    assert log.append(book, [Entry("sale", None, "S-3", {}, bytes(100_000))]) == 4


def test_a_rollback_journal_that_can_not_be_made_is_not_now(book: sqlite3.Connection) -> None:
    """No permission, no inodes or, as here, no file handles: SQLite says the same of all."""
    next_handle = os.open("/dev/null", os.O_RDONLY)
    os.close(next_handle)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_handle, hard))
    try:
        with pytest.raises(log.NotNow, match="Nothing was lost"):
            log.append(book, [Entry("opened")])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert log.append(book, [Entry("opened")]) == 4


def test_two_writers_share_the_head(path: Path, book: sqlite3.Connection) -> None:
    """`resolve` appends beside the running ingest."""

    def write() -> None:
        with closing(log.open_book(path, "journal", write=True)) as other:
            for _ in range(20):
                log.append(other, [Entry("opened")])

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(20):
        log.append(book, [Entry("opened")])
    thread.join()
    assert log.head(book)[0] == 43
    assert verify(path, path.with_name("none"))["ok"]


def leave_hot(path: Path) -> None:
    """Kill a writer in the middle of a commit, when the file is half written and the rollback journal is not gone."""

    def die() -> None:
        db = log.open_book(path, "journal", write=True)
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        for number in range(50):
            log.append(db, [Entry("sale", None, f"HOT-{number}", {}, bytes(50_000))])
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(die) == signal.SIGKILL
    assert path.with_name(path.name + "-journal").stat().st_size > 0


@pytest.mark.usefixtures("book")
def test_what_a_killed_writer_left_is_undone_by_the_next_who_opens(path: Path) -> None:
    leave_hot(path)
    with closing(log.open_book(path, "journal", write=False)) as reader:
        assert log.head(reader)[0] == 3
    assert not path.with_name(path.name + "-journal").exists()
    assert verify(path, path.with_name("none"))["ok"]


def test_a_reader_who_may_not_write_is_told_what_to_do_about_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_hot(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may do everything
    with pytest.raises(log.NotNow, match="start that program first"):
        log.open_book(path, "journal", write=False)


def test_one_instance_holds_the_lock_under_every_name_of_the_book(path: Path) -> None:
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    with log.only_instance(path, "a program"):
        for name in (path, alias):
            with pytest.raises(log.NotNow, match="Another a program"), log.only_instance(name, "a program"):
                pass
    with log.only_instance(alias, "a program"):
        pass


def test_the_lock_of_a_killed_instance_is_free(shop: Shop) -> None:
    with shop.start().ready() as first:
        assert shop.run("ingest", "--once").returncode == 75
        first.kill()
    wait_until(lambda: shop.run("ingest", "--once").returncode == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_creates_belongs_to_whom_the_directory_belongs_to(tmp_path: Path) -> None:
    (place := tmp_path / "books").mkdir()
    os.chown(place, 4711, 4712)
    log.create(place / "journal.db", "journal", {})
    with log.only_instance(place / "journal.db", "a test"):
        owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in place.iterdir()}
    assert owners == {"journal.db": (4711, 4712), "journal.db.lock": (4711, 4712)}
