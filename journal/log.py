"""
The log: an append-only, hash-chained table of entries in one SQLite file, and the only code that writes it.

There are two books of this form, with one writing program each: the journal and the delivery book.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from journal import chain
from journal.book import (
    APPLICATION_ID,
    BUSY_MS,
    FORMAT,
    PAGE_BYTES,
    Damaged,
    NoSuch,
    NotNow,
    Unusable,
    at_work,
    belong,
    check_sqlite,
    make_directory,
    only_instance,
    open_book,
    reading_failed,
    set_up,
    sync_directory,
    system_failed,
    uri,
)

__all__ = [
    "Clock",
    "Damaged",
    "Entry",
    "NoSuch",
    "NotNow",
    "Unusable",
    "append",
    "as_json",
    "at_work",
    "belong",
    "boot_facts",
    "copy",
    "create",
    "erase",
    "has_body",
    "head",
    "lay_tables",
    "make_directory",
    "moment",
    "only_instance",
    "open_book",
    "reading_failed",
    "stamp",
    "statements",
    "sync_directory",
    "system_failed",
    "uri",
    "utc_now",
    "writing",
]

COPIED = 500  # entries that `copy` reads at a time: for so long a commit may have to wait

Clock = Callable[[], datetime]


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


def moment(at: str | None) -> float | None:
    """What the log wrote, as seconds since 1970; None of nothing."""
    return datetime.fromisoformat(at).timestamp() if at is not None else None


def boot_facts() -> dict[str, Any]:
    """What a later reader needs to compare clocks: the kernel's boot id and seconds since boot, sleep included."""
    return {"boot": _boot_id(), "since_boot_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)}


@lru_cache(maxsize=1)
def _boot_id() -> str | None:
    """No process outlives a boot, so it is read once."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return boot_id.read_text().strip() if boot_id.exists() else None


def as_json(facts: Mapping[str, Any]) -> str:
    """Compact, keys sorted: the same facts are always the same text."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def create(path: Path, book: str, facts: Mapping[str, Any], now: Clock = utc_now) -> None:
    """
    Create an empty book with its first entry. Raises Unusable if something is there already, or nothing can be.

    It is built under another name and linked into place, so that a power cut leaves either nothing or a whole book.
    """
    check_sqlite()
    if os.path.lexists(path):
        raise Unusable(f"There is already a file at {path}; it was left as it is.")
    remains = path.with_name(path.name + "-journal")
    if os.path.lexists(remains):  # SQLite would take it for a crashed commit of the new book
        raise Unusable(f"{remains} is there, but {path} is not: put back what belongs to it, or move it away.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        make_directory(path.parent)
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            _lay_out(db, book, {"book": book, "format": FORMAT, **facts}, now)
        draft.chmod(0o640 & ~_umask())
        belong(draft)
        os.link(draft, path)
        sync_directory(path.parent)
    except FileExistsError as error:
        raise Unusable(
            f"There is already a file at {error.filename2 or error.filename}; it was left as it is."
        ) from None
    except OSError as error:
        raise system_failed(error, path) from error
    except sqlite3.OperationalError as error:
        raise reading_failed(error, path) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def _lay_out(db: sqlite3.Connection, book: str, facts: Mapping[str, Any], now: Clock) -> None:
    """An empty file becomes a book, in one commit."""
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    set_up(db)
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID[book]}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    lay_tables(db)
    append(db, [Entry("created", facts=facts)], now=now)
    db.execute("COMMIT")


def lay_tables(db: sqlite3.Connection) -> None:
    """Tables, triggers and indexes of a book. One statement at a time: `executescript` would commit first."""
    for statement in statements((files("journal") / "schema.sql").read_text()):
        db.execute(statement)


def copy(source: Path, book: str, draft: Path, upto: int) -> None:
    """
    A new file that holds a book up to one of its entries, with the bodies that are there. Made durable.

    Entry by entry and in short pieces, so that nobody who writes has to wait; and nothing comes along that is no
    entry, such as what stood in pages before. The triggers come last: the copy is verified, not believed.
    """
    with closing(sqlite3.connect(uri(draft, "rwc"), uri=True, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -64000"):
            db.execute(f"PRAGMA {setting}")
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID[book]}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        rules = []
        for statement in statements((files("journal") / "schema.sql").read_text()):
            if "CREATE TABLE" in statement:
                db.execute(statement)
            else:
                rules.append(statement)
        db.execute("ATTACH ? AS source", (uri(source, "ro"),))
        for low in range(1, upto + 1, COPIED):
            piece = (low, min(low + COPIED - 1, upto))
            db.execute("BEGIN")
            db.execute("INSERT INTO log SELECT * FROM source.log WHERE seq BETWEEN ? AND ? ORDER BY seq", piece)
            db.execute("INSERT INTO body SELECT * FROM source.body WHERE seq BETWEEN ? AND ? ORDER BY seq", piece)
            db.execute("COMMIT")
        db.execute("DETACH source")
        for statement in rules:
            db.execute(statement)
        db.execute("PRAGMA journal_mode = DELETE")
    with draft.open("rb") as file:
        os.fsync(file.fileno())


def statements(script: str) -> Iterator[str]:
    """Split a script, so that it can run inside one transaction (`executescript` would commit first)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One commit. Either all of it is on disk when the block ends, or nothing; raises NotNow for busy and full."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")  # From here it is ours.
    except sqlite3.OperationalError as error:
        path = Path(db.execute("PRAGMA database_list").fetchone()[2])
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            words = f"{path.parent} can't be written: it is full, read-only, or not ours. Nothing was lost."
            raise NotNow(words) from error
        raise reading_failed(error, path) from error
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


def erase(db: sqlite3.Connection, about: int) -> bool:
    """A body goes, and its salt, within the commit that says why. False: it had gone before."""
    return db.execute("DELETE FROM body WHERE seq = ?", (about,)).rowcount > 0


def has_body(db: sqlite3.Connection, seq: int) -> bool:
    """Is the body of an entry here?"""
    return db.execute("SELECT 1 FROM body WHERE seq = ?", (seq,)).fetchone() is not None


def head(db: sqlite3.Connection, schema: str = "main") -> tuple[int, bytes]:
    """Seq and digest of the last entry; (0, 32 zero bytes) of an empty book."""
    row = db.execute(f"SELECT seq, digest FROM {schema}.log ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, chain.ZERO)


def _umask() -> int:
    current = os.umask(0o027)
    os.umask(current)
    return current | stat.S_IRWXO
