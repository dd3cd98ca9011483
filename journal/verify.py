"""
Walk both books from their first entries and say what doesn't fit. Never raises for anything a hand can have done.

Each problem names the book, the entry and what is wrong with it (entry 0: the file as a whole). What can't be read
this moment is no finding: that is log.NotNow. Books are read in short pieces, so that nobody has to wait for us.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journal import chain, log
from schemas import KINDS

PIECE = 2000  # entries read at a time …
PIECE_BYTES = 8 * 1024 * 1024  # … and bytes of bodies, for our own memory's sake
DOCUMENTS = frozenset({*KINDS, "invalid"})
VOUCHING = frozenset({"created", "opened", "turn"})  # entries that say what the other book's head was
SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT IN ('sqlite_stat1', 'sqlite_stat4')"
ENTRIES = (
    "SELECT log.seq, at, kind, about, external_id, facts, body_hash, digest, body.salt, body.bytes"
    " FROM log NOT INDEXED LEFT JOIN body ON body.seq = log.seq WHERE log.seq > ? ORDER BY log.seq LIMIT ?"
)
# What the programs look for by index must be in the index: else a repeat would be taken for something new.
UNINDEXED = (
    "SELECT e.seq FROM log AS e NOT INDEXED WHERE e.seq BETWEEN ? AND ? AND (external_id IS NOT NULL AND about IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM log AS i INDEXED BY log_external_id"
    " WHERE i.external_id = e.external_id AND i.about IS NULL AND i.seq = e.seq) OR about IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM log AS i INDEXED BY log_about WHERE i.about = e.about AND i.seq = e.seq))"
)

Row = tuple[Any, ...]


@dataclass(slots=True)
class Book:
    """One book, and what the walk has found so far."""

    path: Path
    name: str
    seq: int = 0  # of the last entry seen
    digest: bytes = chain.ZERO
    broken: bool = False  # it can't be read to its end, which has been said
    born: int = 0  # a delivery book: the journal's head when it was created
    claims: list[tuple[int, int, str]] = field(default_factory=list)  # (entry, seq and digest of the other book's head)
    problems: list[dict[str, Any]] = field(default_factory=list)

    def found(self, seq: int, what: str) -> None:
        """Note a problem."""
        self.problems.append({"book": self.name, "seq": seq, "what": what})


def verify(journal: Path, delivery: Path) -> dict[str, Any]:
    """Both books (the second if it is there), as `omneo-journal verify --json` prints it."""
    ours, theirs = Book(journal, "journal"), Book(delivery, "delivery")
    _reading(ours, lambda db: _walk(ours, db))
    second: dict[str, Any] = {"entries": 0, "head": None}
    if delivery.exists():
        _reading(theirs, lambda db: _walk(theirs, db))
        second = {"entries": theirs.seq, "head": theirs.digest.hex()}
        # What the journal said before this delivery book was begun was about an earlier one, which was lost.
        told = [claim for claim in ours.claims if claim[0] > theirs.born]
        _reading(theirs, lambda db: _agrees(theirs, db, told))
        _reading(ours, lambda db: _agrees(ours, db, theirs.claims))
        _reading(theirs, lambda db: _reading(ours, lambda first: _abouts(theirs, db, first)))
    problems = ours.problems + theirs.problems
    first = {"ok": not problems, "entries": ours.seq, "head": ours.digest.hex()}
    return first | {"delivery": second, "problems": problems}


def _reading(book: Book, act: Callable[[sqlite3.Connection], None]) -> None:
    """Do something with a book, open; what keeps it from being read is a finding, or NotNow."""
    if book.broken:
        return
    book.broken = True
    try:
        with closing(log.open_book(book.path, book.name, write=False)) as db:
            db.text_factory = _text
            act(db)
        book.broken = False
    except log.Damaged as damage:
        book.found(0, str(damage))
    except sqlite3.OperationalError as error:
        known = log.reading_failed(error, book.path)
        if isinstance(known, log.NotNow):
            raise known from error
        book.found(book.seq + 1, f"can't be read from here on: {error}")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite may quote bytes that are no text
        words = str(error) if isinstance(error, sqlite3.Error) else "malformed text"
        book.found(book.seq + 1, f"the file is damaged here: {words}")


def _text(raw: bytes) -> str | bytes:
    """Text that isn't UTF-8 is not text, and `_is_entry` says so."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _walk(book: Book, db: sqlite3.Connection) -> None:
    """Every entry, from the first to the last."""
    if not _schema(book, db):
        return
    sound = not book.problems
    for piece in _pieces(db):
        low = book.seq
        for row in piece:
            _entry(book, row)
        if sound:
            for (seq,) in db.execute(UNINDEXED, (low, book.seq)):
                book.found(seq, "an index does not hold this entry, so that our own programs overlook it")
    if book.seq == 0:
        book.found(0, "there is no entry in it")
    _strays(book, db)


def _schema(book: Book, db: sqlite3.Connection) -> bool:
    """Tables, triggers and indexes must be ours, to the letter. False: there is nothing that could be walked."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ideal:
        log.lay_tables(ideal)
        ours = set(ideal.execute(SCHEMA))
    theirs = set(db.execute(SCHEMA))
    for kind, name, *_ in sorted(ours - theirs, key=str):
        book.found(0, f"the {kind} {name} is missing or altered")
    for kind, name, *_ in sorted(theirs - ours, key=str):
        book.found(0, f"the {kind} {name} does not belong here as it is")
    tables = {name for kind, name, _, sql in theirs if kind == "table" and str(sql).startswith("CREATE TABLE")}
    return {"log", "body"} <= tables


def _pieces(db: sqlite3.Connection) -> Iterator[list[Row]]:
    """All rows in order. Where SQLite stumbles, one at a time, so that what can be read is, and the place is known."""
    last, most = -(2**63), PIECE
    while True:
        piece: list[Row] = []
        try:
            with closing(db.execute(ENTRIES, (last, most))) as rows:
                size = 0
                for row in rows:
                    piece.append(row)
                    size += len(row[9] or b"") if isinstance(row[9], bytes) else 0
                    if size > PIECE_BYTES:
                        break
        except (sqlite3.Error, UnicodeDecodeError):
            if most == 1:
                raise
            most = 1
            continue
        if not piece:
            return
        yield piece
        last = piece[-1][0]


def _entry(book: Book, row: Row) -> None:
    """What is wrong with one entry, given the one before it."""
    seq, _, kind, _, _, facts, body_hash, digest, salt, body = row
    if not _is_entry(row):
        book.seq = seq if isinstance(seq, int) else book.seq + 1
        book.digest = digest if isinstance(digest, bytes) else chain.ZERO
        book.found(book.seq, "a column holds what no entry holds")
        return
    if seq != book.seq + 1:
        missing = f"entries {book.seq + 1} to {seq - 1} are missing" if seq > book.seq else "no entry has such a number"
        book.found(seq, missing)
    if chain.link(book.digest, chain.Row(*row[:7])) != digest:
        book.found(seq, "the digest does not fit: this entry was altered, or the one before it")
    if body is not None and not (isinstance(body, bytes) and isinstance(salt, bytes)):
        book.found(seq, "the body is no bytes")
    elif body is not None and chain.body_hash(salt, body) != body_hash:
        book.found(seq, "the body was altered" if body_hash else "there is a body that the entry knows nothing of")
    if (kind == "created") != (seq == 1):
        book.found(seq, "a book begins with the entry that created it, and has only one of that kind")
    book.seq, book.digest = seq, digest
    if kind in VOUCHING:
        _vouches(book, seq, facts)


def _is_entry(row: Row) -> bool:
    """Only what the tables of `schema.sql` let in."""
    seq, at, kind, about, external_id, facts, body_hash, digest = row[:8]
    return (
        isinstance(seq, int)
        and isinstance(at, str)
        and isinstance(kind, str)
        and isinstance(about, int | None)
        and isinstance(external_id, str | None)
        and isinstance(facts, str)
        and isinstance(body_hash, bytes | None)
        and isinstance(digest, bytes)
    )


def _vouches(book: Book, seq: int, facts: str) -> None:
    """Note what this entry says of the other book's head."""
    try:
        other = json.loads(facts).get("other_book")
        entries, head = (other["entries"], other["head"]) if other else (0, "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if isinstance(entries, int) and 0 < entries < 2**63:
        book.claims.append((seq, entries, str(head)))
        if seq == 1:
            book.born = entries


def _strays(book: Book, db: sqlite3.Connection) -> None:
    """Bodies without an entry, and documents whose body is gone without a word."""
    gone = (
        "SELECT log.seq FROM log LEFT JOIN body ON body.seq = log.seq"
        " WHERE log.seq BETWEEN ? AND ? AND body_hash IS NOT NULL AND body.seq IS NULL AND NOT EXISTS ("
        "SELECT 1 FROM log AS why WHERE why.about = log.seq AND why.kind IN ('redaction', 'archived'))"
    )
    lost = "SELECT seq FROM body WHERE seq BETWEEN ? AND ? AND seq NOT IN (SELECT seq FROM log)"
    for low in range(1, book.seq + 1, PIECE):
        for (seq,) in db.execute(gone, (low, min(low + PIECE - 1, book.seq))):
            book.found(seq, "the body is gone, and no entry says why")
        for (seq,) in db.execute(lost, (low, min(low + PIECE - 1, book.seq))):
            book.found(seq, "there is a body without an entry")
    for (seq,) in db.execute("SELECT seq FROM body WHERE seq < 1 OR seq > (SELECT max(seq) FROM log) LIMIT 100"):
        book.found(seq, "there is a body without an entry")


def _agrees(book: Book, db: sqlite3.Connection, claims: list[tuple[int, int, str]]) -> None:
    """Does a book still hold what the other one saw at its head? The first difference says it all."""
    for entry, seq, digest in claims:
        row = db.execute("SELECT digest FROM log WHERE seq = ?", (seq,)).fetchone()
        if row is None or not isinstance(row[0], bytes) or row[0].hex() != digest:
            words = f"entry {entry} of the other book saw another one here: it was rewritten, or the end was cut off"
            book.found(seq, words)
            return


def _abouts(book: Book, db: sqlite3.Connection, journal: sqlite3.Connection) -> None:
    """Whatever the delivery book says, it says about a document that the journal holds."""
    for low in range(1, book.seq + 1, PIECE):
        query = "SELECT seq, about FROM log WHERE seq BETWEEN ? AND ? AND about IS NOT NULL"
        for seq, about in db.execute(query, (low, low + PIECE - 1)).fetchall():
            row = journal.execute("SELECT kind, about FROM log WHERE seq = ?", (about,)).fetchone()
            if row is None or row[0] not in DOCUMENTS or row[1] is not None:
                book.found(seq, f"speaks of entry {about}, which is no document of this journal")
