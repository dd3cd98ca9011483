"""
The log: an append-only, hash-chained table of entries in one SQLite file, and the only code that writes it.

There are two books of this form, with one writing program each: the journal and the delivery book.

Rollback journal (`DELETE`) with `synchronous=EXTRA`, chosen over WAL in docs/decisions.md: a reader without write
permission works at any time, erased bytes are gone, and SQLite's WAL-reset fault can't touch us.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from journal import chain

SQLITE_OLDEST = (3, 34, 1)  # Debian 11, RHEL 9; tested by `make oldest`
FORMAT = 1  # user_version of both books
APPLICATION_ID = {"journal": 0x4F4D4A31, "delivery": 0x4F4D4431}  # "OMJ1", "OMD1"
PAGE_BYTES = 16384  # a 2 KB body on 4 KiB pages wastes half the file
BUSY_MS = 5000  # how long a commit waits for readers, and a reader for a commit

Clock = Callable[[], datetime]


class Unusable(Exception):
    """The book is not there, not ours, or newer than this program: a matter of configuration (exit 78)."""


class NotNow(Exception):
    """Somebody else holds the book, or the disk is full: nothing was written, it can be tried again (exit 75)."""


class NoSuch(Exception):
    """What was asked for by name isn't in the books (exit 1)."""


@dataclass(eq=False, slots=True)
class Entry:
    """One row to be. `about` may be another entry of the same batch, whose seq is not known yet."""

    kind: str
    about: "int | Entry | None" = None
    external_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    seq: int = 0  # set by append


def utc_now() -> datetime:
    """Wall clock of this machine."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Write a moment as the log does: UTC, milliseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def boot_facts() -> dict[str, Any]:
    """What a later reader needs to compare clocks: the kernel's boot id and seconds since boot, sleep included."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot": boot_id.read_text().strip() if boot_id.exists() else None,
        "since_boot_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
    }


def as_json(facts: Mapping[str, Any]) -> str:
    """Compact, keys sorted: the same facts are always the same text."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def create(path: Path, book: str, facts: Mapping[str, Any], now: Clock = utc_now) -> None:
    """
    Create an empty book with its first entry. Raises Unusable if something is there already.

    It is built under another name and linked into place, so that a power cut leaves either nothing or a whole book.
    """
    check_sqlite()
    if path.exists() or path.is_symlink():
        raise Unusable(f"There is already a file at {path}; it was left as it is.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    db = sqlite3.connect(draft, isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _set_up(db)
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID[book]}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        for statement in statements((files("journal") / "schema.sql").read_text()):
            db.execute(statement)
        append(db, [Entry("created", facts={"book": book, "format": FORMAT, **facts})], now=now)
        db.execute("COMMIT")
    finally:
        db.close()
    os.chmod(draft, 0o640 & ~_umask())
    try:
        os.link(draft, path)
    except FileExistsError:
        raise Unusable(f"There is already a file at {path}; it was left as it is.") from None
    finally:
        draft.unlink()
    sync_directory(path.parent)


def open_book(path: Path, book: str, *, write: bool) -> sqlite3.Connection:
    """Open a book that is there. Raises Unusable with what to do, NotNow if it can't be read this moment."""
    check_sqlite()
    if not path.exists():
        hint = f"create it with: omneo-journal init --db {path}" if book == "journal" else "omneo-forwarder creates it"
        raise Unusable(f"There is no {_called(book)} at {path}: {hint}.")
    mode = "rw" if write else "ro"
    try:
        db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, isolation_level=None)
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        found = db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise reading_failed(error, path) from error
    except sqlite3.DatabaseError as error:
        raise Unusable(f"{path} is not a {_called(book)}: it is no SQLite file, or it is damaged.") from error
    if found[0] != APPLICATION_ID[book]:
        db.close()
        raise Unusable(f"{path} is not a {_called(book)}. Give the right file with {_option(book)}.")
    if found[1] > FORMAT:
        db.close()
        raise Unusable(f"{path} was written by a newer version of this program; install that version or a later one.")
    if write and not os.access(path, os.W_OK):
        db.close()
        raise Unusable(f"{path} can't be written by this user; run the command as the user that owns it.")
    if write:
        _set_up(db)
    return db


def _called(book: str) -> str:
    return "journal" if book == "journal" else "delivery book"


def _option(book: str) -> str:
    return "--db" if book == "journal" else "--delivery"


def _set_up(db: sqlite3.Connection) -> None:
    """Settings of a writing connection. Sources: sqlite.org/pragma.html, and the figures in docs/decisions.md."""
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = EXTRA")  # also syncs the directory after the rollback journal is unlinked
    db.execute("PRAGMA secure_delete = ON")  # a redacted body is overwritten, not just unlinked
    db.execute("PRAGMA cell_size_check = ON")
    db.execute("PRAGMA cache_size = -16000")  # KiB


def check_sqlite() -> None:
    """Refuse a library that is older than what we test with."""
    if sqlite3.sqlite_version_info < SQLITE_OLDEST:
        needed = ".".join(map(str, SQLITE_OLDEST))
        raise Unusable(f"SQLite {sqlite3.sqlite_version} is too old: {needed} or newer is needed.")


def statements(script: str) -> Iterator[str]:
    """Split a script, so that it can run inside one transaction (`executescript` would commit first)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def reading_failed(error: sqlite3.OperationalError, path: Path) -> Exception:
    """Sort what SQLite says into: later, never, or a dying disk (which is for whoever restarts us)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return NotNow(f"{path} is held by another program; try again in a moment.")
    if code == sqlite3.SQLITE_FULL:
        return NotNow(f"The disk that holds {path} is full; free some space, everything goes on by itself then.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return Unusable(f"{path} can't be opened: check that it is a file, and who may read it and its directory.")
    if code == sqlite3.SQLITE_READONLY:
        # A reader without write permission met the remains of a crash; the writer cleans up when it starts.
        return NotNow(f"{path} has to be recovered by the program that writes it; start that program first.")
    return error


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One commit. Either all of it is on disk when the block ends, or nothing; raises NotNow for busy and full."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")  # From here it is ours.
    except sqlite3.OperationalError as error:
        raise reading_failed(error, Path(db.execute("PRAGMA database_list").fetchone()[2])) from error
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def append(
    db: sqlite3.Connection,
    entries: Sequence[Entry],
    *,
    now: Clock = utc_now,
    randomness: Callable[[int], bytes] = os.urandom,
) -> int:
    """
    Link the entries to the head, in order, in one commit (the caller's, if it has one open). Sets their `seq`.

    Returns the seq of the head. Raises NotNow when another program holds the book or the disk is full.
    """
    if not db.in_transaction:
        with writing(db):
            return append(db, entries, now=now, randomness=randomness)
    seq, digest = head(db)
    at = stamp(now())
    rows, bodies = [], []
    for entry in entries:
        seq += 1
        entry.seq = seq
        about = entry.about.seq if isinstance(entry.about, Entry) else entry.about
        hashed = None
        if entry.body is not None:
            salt = randomness(16)
            hashed = chain.body_hash(salt, entry.body)
            bodies.append((seq, salt, entry.body))
        row = chain.Row(seq, at, entry.kind, about, entry.external_id, as_json(entry.facts), hashed)
        digest = chain.link(digest, row)
        rows.append((*row, digest))
    db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.executemany("INSERT INTO body VALUES (?, ?, ?)", bodies)
    return seq


def head(db: sqlite3.Connection, schema: str = "main") -> tuple[int, bytes]:
    """Seq and digest of the last entry; (0, 32 zero bytes) of an empty book."""
    row = db.execute(f"SELECT seq, digest FROM {schema}.log ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, chain.ZERO)


@contextmanager
def only_instance(path: Path, program: str) -> Iterator[None]:
    """Hold the lock beside a book for as long as the block runs. Raises NotNow if another process holds it."""
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except PermissionError:
        raise Unusable(f"{lock} can't be written by this user; run {program} as the user that owns it.") from None
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise NotNow(f"Another {program} already works on {path}; stop it first.") from None
    try:
        yield
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Make a directory's entries durable (a new or renamed file isn't, until this)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0o027)
    os.umask(current)
    return current | stat.S_IRWXO
