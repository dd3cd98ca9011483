"""
Walk a book from its first entry and say what doesn't fit. Never raises for anything a hand can have done to the file.

`problems` is empty for a sound book. Each problem names the book, the entry and what is wrong with it.
"""

import json
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from journal import chain, log

PIECE = 2000  # entries read at a time: no lock is held longer than that takes
COLUMNS = "log.seq, at, kind, about, external_id, facts, body_hash, digest, body.salt, body.bytes, body.seq"
DOCUMENTS = {"sale", "redemption", "reversal", "return", "invalid"}

Problem = dict[str, Any]


def verify(journal: Path, delivery: Path) -> dict[str, Any]:
    """Both books (the second if it is there), as `omneo-journal verify --json` prints it."""
    problems: list[Problem] = []
    head, heads = _walk(journal, "journal", problems)
    result: dict[str, Any] = {"ok": False, "entries": head[0], "head": head[1].hex()}
    result["delivery"] = {"entries": 0, "head": None}
    if delivery.exists():
        second, vouched = _walk(delivery, "delivery", problems)
        result["delivery"] = {"entries": second[0], "head": second[1].hex()}
        problems += _agree(journal, vouched, "journal")
        problems += _agree(delivery, heads, "delivery")
        problems += _about(journal, delivery)
    return result | {"ok": not problems, "problems": problems}


Heads = list[tuple[int, int, str]]  # (entry that vouches, seq in the other book, digest there in hex)


def _walk(path: Path, book: str, problems: list[Problem]) -> tuple[tuple[int, bytes], Heads]:
    """Walk one book; returns its head and what it says of the other book's head."""
    heads: Heads = []
    at = (0, chain.ZERO)
    try:
        db = log.open_book(path, book, write=False)
    except log.NotNow:
        raise
    try:
        problems += _schema(db, book)
        for row in _entries(db):
            seq, digest = row[0], row[7]
            for what in _entry(row, at):
                problems.append({"book": book, "seq": seq, "what": what})
            heads += _vouches(row)
            at = (seq, digest if isinstance(digest, bytes) else chain.ZERO)
        problems += [{"book": book, "seq": seq, "what": what} for seq, what in _strays(db)]
    except sqlite3.OperationalError as error:
        known = log.reading_failed(error, path)
        if isinstance(known, log.NotNow):
            raise known from error
        problems.append({"book": book, "seq": at[0] + 1, "what": f"can't be read: {error}"})
    except sqlite3.DatabaseError as error:
        problems.append({"book": book, "seq": at[0] + 1, "what": f"the file is damaged: {error}"})
    finally:
        db.close()
    return at, heads


def _entries(db: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """All rows in order, a piece at a time."""
    last = -(2**63)
    while True:
        piece = db.execute(
            f"SELECT {COLUMNS} FROM log NOT INDEXED LEFT JOIN body ON body.seq = log.seq"
            " WHERE log.seq > ? ORDER BY log.seq LIMIT ?",
            (last, PIECE),
        ).fetchall()
        if not piece:
            return
        yield from piece
        last = piece[-1][0]


def _entry(row: tuple[Any, ...], before: tuple[int, bytes]) -> Iterator[str]:
    """What is wrong with one entry, given the one before it."""
    seq, at, kind, about, external_id, facts, body_hash, digest, salt, body, _ = row
    if seq != before[0] + 1:
        yield f"entries {before[0] + 1} to {seq - 1} are missing" if seq > before[0] else "out of order"
    if not isinstance(digest, bytes) or not _is_row(row):
        yield "a column holds what no entry holds"
        return
    if chain.link(before[1], chain.Row(seq, at, kind, about, external_id, facts, body_hash)) != digest:
        yield "the digest does not fit: this entry or the one before it was altered"
    if (body is None) != (body_hash is None) and body is not None:
        yield "there is a body that the entry knows nothing of"
    elif isinstance(body, bytes) and isinstance(salt, bytes) and chain.body_hash(salt, body) != body_hash:
        yield "the body was altered"
    if kind == "created" and seq != 1:
        yield "the book was begun a second time"


def _is_row(row: tuple[Any, ...]) -> bool:
    """Only what `schema.sql` lets in."""
    seq, at, kind, about, external_id, facts, body_hash = row[:7]
    return (
        isinstance(seq, int)
        and isinstance(at, str)
        and isinstance(kind, str)
        and isinstance(about, int | None)
        and isinstance(external_id, str | None)
        and isinstance(facts, str)
        and isinstance(body_hash, bytes | None)
    )


def _vouches(row: tuple[Any, ...]) -> Heads:
    """An `opened` or `turn` entry says what the other book's head was when it was written."""
    if row[2] not in {"opened", "turn"} or not isinstance(row[5], str):
        return []
    try:
        other = json.loads(row[5]).get("other_book")
        return [(row[0], int(other["entries"]), str(other["head"]))] if other else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _agree(path: Path, heads: Heads, book: str) -> list[Problem]:
    """Does a book still hold what the other book saw at its head?"""
    db = log.open_book(path, book, write=False)
    try:
        problems = []
        for _, seq, digest in heads:
            row = db.execute("SELECT digest FROM log WHERE seq = ?", (seq,)).fetchone()
            if seq and (row is None or row[0] != bytes.fromhex(digest)):
                what = "the other book saw another entry here: this one was rewritten or its end was cut off"
                problems.append({"book": book, "seq": seq, "what": what})
        return problems[:1]
    except (sqlite3.DatabaseError, ValueError) as error:
        return [{"book": book, "seq": 0, "what": f"can't be compared with the other book: {error}"}]
    finally:
        db.close()


def _about(journal: Path, delivery: Path) -> list[Problem]:
    """Whatever the delivery book says, it says about a document that the journal holds."""
    db = log.open_book(delivery, "delivery", write=False)
    try:
        from journal.story import attach_delivery  # the same attachment, seen from the journal

        db.close()
        db = log.open_book(journal, "journal", write=False)
        attach_delivery(db, delivery)
        rows = db.execute(
            "SELECT min(d.seq), d.about FROM delivery.log AS d LEFT JOIN main.log AS j ON j.seq = d.about"
            " WHERE d.about IS NOT NULL AND (j.seq IS NULL OR j.about IS NOT NULL) GROUP BY d.about"
        )
        return [
            {"book": "delivery", "seq": seq, "what": f"speaks of entry {about}, which is no document of this journal"}
            for seq, about in rows
        ]
    except sqlite3.DatabaseError:
        return []  # the walk has said it
    finally:
        db.close()


def _strays(db: sqlite3.Connection) -> list[tuple[int, str]]:
    """Bodies without an entry, and documents whose body is gone without a word."""
    gone = db.execute(
        "SELECT log.seq FROM log LEFT JOIN body ON body.seq = log.seq"
        " WHERE body_hash IS NOT NULL AND body.seq IS NULL AND NOT EXISTS ("
        "SELECT 1 FROM log AS why WHERE why.about = log.seq AND why.kind IN ('redaction', 'archived'))"
    )
    found = [(row[0], "the body is gone, and no entry says why") for row in gone]
    lost = db.execute("SELECT seq FROM body WHERE seq NOT IN (SELECT seq FROM log)")
    return found + [(row[0], "there is a body without an entry") for row in lost]


def _schema(db: sqlite3.Connection, book: str) -> list[Problem]:
    """Tables, triggers and indexes must be ours, to the letter."""
    ours = {_flat(statement) for statement in log.statements((files("journal") / "schema.sql").read_text())}
    theirs = {
        _flat(row[0])
        for row in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_stat%'")
    }
    found = []
    for statement in sorted(ours - theirs):
        found.append({"book": book, "seq": 0, "what": f"missing or altered: {statement[:60]}"})
    for statement in sorted(theirs - ours):
        found.append({"book": book, "seq": 0, "what": f"does not belong here: {statement[:60]}"})
    return found


def _flat(sql: str) -> str:
    """A statement without comments and layout, as a comparison needs it."""
    lines = (line.split("--")[0] for line in sql.splitlines())
    return " ".join(" ".join(lines).split()).rstrip(";").strip()
