"""
Walk both books from their first entries and say what doesn't fit. Never raises for anything a hand can have done.

Each problem names the book, the entry and what is wrong with it (entry 0: the file as a whole). What can't be read
this moment is no finding: that is log.NotNow. Books are read in short pieces, so that nobody has to wait for us.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journal import log, migrate
from journal.checkpoint import Taken
from journal.note import Key
from journal.roots import Roots
from journal.walk import DOCUMENTS, Book, Row, walk

PIECE = 256  # entries read at a time: with their bodies they stay in the processor's cache …
PIECE_BYTES = 8 * 1024 * 1024  # … and bytes of bodies, for our own memory's sake, looked at …
FETCH = 64  # … after so many entries
GROWING_S, RESTS = 1.0, 6.0  # so long after a book has grown, rests of so many times what the last piece took
LOOK = 500  # entries of the delivery book whose documents are looked up at a time
CLAIMS = 4096  # what it says of the journal's head, in each turn, is compared so many at a time, for our memory's sake
BEFORE_ALL = -(2**63)  # the smallest number there is
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
UNSAID = (
    "SELECT log.seq FROM log LEFT JOIN body ON body.seq = log.seq"
    " WHERE log.seq BETWEEN ? AND ? AND body_hash IS NOT NULL AND body.seq IS NULL AND NOT EXISTS ("
    "SELECT 1 FROM log AS why WHERE why.about = log.seq AND why.kind IN ('redaction', 'archived'))"
)


@dataclass(slots=True)
class File:
    """A book, and the file that it is read from."""

    path: Path
    book: Book
    broken: bool = False  # it can't be read to its end, or has no entries to be read, which has been said


class Courtesy:
    """Whoever writes goes first: a walk that meets them at every commit, and on every processor, would slow them."""

    def __init__(
        self, *books: Path, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Of those who write these books. `clock` and `sleep` in seconds."""
        self._books, self._clock, self._sleep = books, clock, sleep
        self._changed = self._look()
        self._began = clock()
        self._until = self._began

    def __call__(self) -> None:
        """After each piece: rest, if somebody has written lately. The books are at rest most of the night."""
        now = self._clock()
        if (changed := self._look()) != self._changed:
            self._changed, self._until = changed, now + GROWING_S
        if now < self._until:
            self._sleep((now - self._began) * RESTS)
            now = self._clock()
        self._began = now

    def _look(self) -> list[int]:
        seen = []
        for book in self._books:
            with suppress(OSError):  # not there yet, or no longer
                seen.append(book.stat().st_mtime_ns)
        return seen


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a walk."""

    told: dict[str, Any]  # as `omneo-journal verify --json` prints it
    gone: dict[tuple[str, str, str], list[int]]  # bodies that went with a word: (kind, by, day) → how many, the first
    signed: int  # checkpoints among the entries that one of the keys has signed
    covered: int = 0  # entries of the journal that such a signature covers
    shown: str = ""  # of a proof: what it is the proof of


def verify(journal: Path, delivery: Path) -> dict[str, Any]:
    """Both books (the second if it is there), as `omneo-journal verify --json` prints it."""
    return examine(journal, delivery).told


def examine(journal: Path, delivery: Path, keys: Sequence[Key] = (), taken: Sequence[Taken] = ()) -> Verdict:
    """Both books, against checkpoints that were taken away earlier."""
    ours, theirs = File(journal, Book("journal")), File(delivery, Book("delivery"))
    rest = Courtesy(journal, delivery)
    roots = ours.book.roots = Roots(ours.book.found, keys, taken)
    _reading(ours, lambda db: _walk(ours, db, rest))
    roots.compare(ours.book.seq)
    second: dict[str, Any] = {"entries": 0, "head": None}
    if delivery.exists():
        _told(ours, theirs, rest)
        second = {"entries": theirs.book.seq, "head": theirs.book.digest.hex()}
        # What the journal said before this delivery book was begun was about an earlier one, which was lost.
        told = [claim for claim in ours.book.claims if claim[0] > theirs.book.born]
        _reading(theirs, lambda db: _agrees(theirs.book, db, told))
        _reading(theirs, lambda db: _reading(ours, lambda first: _abouts(theirs.book, db, first, rest)))
    problems = ours.book.problems + theirs.book.problems
    first = {"ok": not problems, "entries": ours.book.seq, "head": ours.book.digest.hex()}
    return Verdict(first | {"delivery": second, "problems": problems}, ours.book.gone, roots.signed, roots.covered)


def _reading(file: File, act: Callable[[sqlite3.Connection], object]) -> None:
    """Do something with a book, open; what keeps it from being read is a finding, or NotNow."""
    if file.broken:
        return
    file.broken, book = True, file.book
    try:
        with closing(log.open_book(file.path, book.name, write=False)) as db:
            db.text_factory = _text
            file.broken = act(db) is False
    except log.Damaged as damage:
        book.found(0, str(damage))
    except sqlite3.OperationalError as error:
        known = log.reading_failed(error, file.path)
        if isinstance(known, log.NotNow):
            raise known from error
        book.found(book.seq + 1, f"can't be read from here on: {error}")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite may quote bytes that are no text
        words = str(error) if isinstance(error, sqlite3.Error) else "malformed text"
        book.found(book.seq + 1, f"the file is damaged here: {words}")


class Garbled(str):
    """What stands in a column for text and is none."""

    __slots__ = ()


def _text(raw: bytes) -> str:
    """Text that isn't UTF-8 is not text, and the walk says so."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Garbled(f"\udcff{raw!r}")  # half a character, so that it is nobody's text


def _walk(file: File, db: sqlite3.Connection, rest: Callable[[], object]) -> bool:
    """Every entry, from the first to the last. False: there are no tables that could be walked."""
    book = file.book
    if not _schema(book, db):
        return False
    sound, last = not book.problems, BEFORE_ALL
    for piece in _pieces(db):
        low, bodies = book.seq, book.bodies
        walk(book, piece)
        if sound:
            for (seq,) in db.execute(UNINDEXED, (low, book.seq)):
                book.found(seq, "an index does not hold this entry, so that our own programs overlook it")
        if book.bare:
            for (seq,) in db.execute(UNSAID, (piece[0][0], piece[-1][0])):
                book.found(seq, "the body is gone, and no entry says why")
            book.bare.clear()
        here = (last, piece[-1][0])
        if (
            db.execute("SELECT count(*) FROM body WHERE seq > ? AND seq <= ?", here).fetchone()[0]
            != book.bodies - bodies
        ):
            _strays(book, db, "seq > ? AND seq <= ?", here)
        last = piece[-1][0]
        rest()
    if book.seq == 0:
        book.found(0, "there is no entry in it")
    _strays(book, db, "seq > ?", (last,))
    return True


def _told(ours: File, theirs: File, rest: Courtesy) -> None:
    """Walk the delivery book; what it says of the journal is held against that one, as it comes."""
    said, agreed = theirs.book.claims, len(ours.book.problems)

    def compare(least: int) -> None:
        if len(said) >= least:
            if len(ours.book.problems) == agreed:
                _reading(ours, lambda db: _agrees(ours.book, db, said))
            said.clear()

    def after_each() -> None:
        compare(CLAIMS)
        rest()

    _reading(theirs, lambda db: _walk(theirs, db, after_each))
    compare(1)


def _strays(book: Book, db: sqlite3.Connection, where: str, limits: tuple[Any, ...]) -> None:
    query = f"SELECT seq FROM body WHERE {where} AND seq NOT IN (SELECT seq FROM log) LIMIT 100"
    for (seq,) in db.execute(query, limits):
        book.found(seq, "there is a body without an entry")


def _schema(book: Book, db: sqlite3.Connection) -> bool:
    """Tables, triggers and indexes must be ours, to the letter. False: there is nothing that could be walked."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ideal:
        log.lay_tables(ideal)
        ours = set(ideal.execute(SCHEMA))
    theirs = set(db.execute(SCHEMA))
    may_lack = migrate.MAY_LACK.get(db.execute("PRAGMA user_version").fetchone()[0], set())
    there = {name for _, name, *_ in theirs}
    for kind, name, *_ in sorted(ours - theirs, key=str):
        if name in may_lack - there:
            continue
        book.found(0, f"the {kind} {name} is missing or altered")
    for kind, name, *_ in sorted(theirs - ours, key=str):
        book.found(0, f"the {kind} {name} does not belong here as it is")
    tables = {name for kind, name, _, sql in theirs if kind == "table" and str(sql).startswith("CREATE TABLE")}
    return {"log", "body"} <= tables


def _pieces(db: sqlite3.Connection) -> Iterator[list[Row]]:
    """All rows in order. Where SQLite stumbles, one at a time, so that what can be read is, and the place is known."""
    last, most = BEFORE_ALL, PIECE
    db.text_factory = str  # a function of ours would be called for each text: a tenth of the time
    while True:
        piece: list[Row] = []
        try:
            with closing(db.execute(ENTRIES, (last, most))) as rows:
                size = 0
                while size < PIECE_BYTES and (some := rows.fetchmany(FETCH)):
                    piece += some
                    size += sum([len(row[9]) for row in some if row[9]])
        except (sqlite3.Error, UnicodeDecodeError):
            if most == 1:
                raise
            most, db.text_factory = 1, _text
            continue
        if not piece:
            return
        first, end = piece[0][0], piece[-1][0]
        whole = isinstance(first, int) and isinstance(end, int)
        if most > 1 and not (whole and first > last and end - first == len(piece) - 1):
            most, db.text_factory = 1, _text
            continue
        if whole and first <= last:
            raise sqlite3.DatabaseError("entries follow one another in circles")
        yield piece
        last = end


def _agrees(book: Book, db: sqlite3.Connection, claims: list[tuple[int, int, str]]) -> None:
    """Does a book still hold what the other one saw at its head? The first difference says it all."""
    for entry, seq, digest in claims:
        row = db.execute("SELECT digest FROM log WHERE seq = ?", (seq,)).fetchone()
        if row is None or not isinstance(row[0], bytes) or row[0].hex() != digest:
            words = f"entry {entry} of the other book saw another one here: it was rewritten, or the end was cut off"
            book.found(seq, words)
            return


def _abouts(book: Book, db: sqlite3.Connection, journal: sqlite3.Connection, rest: Courtesy) -> None:
    """Whatever the delivery book says, it says about a document that the journal holds."""
    kinds = ", ".join(f"'{kind}'" for kind in sorted(DOCUMENTS))
    for low in range(1, book.seq + 1, LOOK):
        query = "SELECT seq, about FROM log WHERE seq BETWEEN ? AND ? AND about IS NOT NULL"
        told = db.execute(query, (low, low + LOOK - 1)).fetchall()
        there = (
            f"SELECT seq FROM log WHERE seq IN (SELECT value FROM json_each(?)) AND about IS NULL AND kind IN ({kinds})"
        )
        asked = "[" + ",".join({str(about) for _, about in told if isinstance(about, int)}) + "]"
        documents = {seq for (seq,) in journal.execute(there, (asked,))}
        for seq, about in told:
            if about not in documents:
                book.found(seq, f"speaks of entry {about}, which is no document of this journal")
        rest()
