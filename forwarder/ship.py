"""
The copy at head office: what both books say goes there as it comes, in their order, each entry once.

Nothing is kept here of how far it went: the ledger knows, and is asked. So no outage, kill or restored backup needs a
repair of its own. The journal goes first, then the delivery book as far as it was when the journal was looked at: what
it says is about documents that are there already.

Beside that, both books are walked through again and again, and the ledger is told what the walk came to: an entry that
is altered here long after it was shipped is known there when the walk comes by, at 20,000 entries a minute.
"""

import hmac
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from forwarder.exposure import customer_of
from forwarder.ledger import Claim, Ledger, Row, Word
from journal import chain, log
from journal.document import NotJSON, parse
from journal.rejected import printable
from journal.say import Say

BATCH = 5000  # entries in one transaction …
BATCH_BYTES = 8_000_000  # … or fewer, with so many bytes of bodies
SMALLEST = 50  # entries: a line that is too slow for a whole batch is given ever smaller ones
WALK = 20_000  # entries walked through with each sign of life
ALIVE_S = 60.0  # a store that has nothing new says so this often: head office knows that it is there
BOOKS = ("journal", "delivery")
BAD = {"fork", "shorter", "broken"}  # somewhere the two differ: where?

COLUMNS = "seq, at, kind, about, external_id, facts, body_hash, digest"


@dataclass(frozen=True, slots=True)
class Head:
    """One book as it stands."""

    path: Path
    book: str
    identity: str  # of the journal that it is or belongs to
    seq: int
    digest: bytes


@dataclass(slots=True)
class Step:
    """How far a walk through a book has come."""

    seq: int = 0
    digest: bytes = chain.ZERO


@dataclass(slots=True)
class Shipper:
    """One store's way to head office."""

    journal: Path
    delivery: Path
    ledger: Ledger
    say: Say
    bodies: bool = False
    key: bytes | None = None  # for customers' hashes; the same in all stores of a chain
    now: log.Clock = log.utc_now
    batch: int = BATCH
    goes_on: Callable[[], bool] = lambda: True  # asked before each batch: a first shipment may last for an hour
    refused: dict[str, Word] = field(default_factory=dict)  # by book: what the ledger would not take
    altered: dict[str, int] = field(default_factory=dict)  # by book: the entry that is another here than there
    shipped: int = 0
    _steps: dict[str, Step] = field(default_factory=dict)
    _sent: list[Head] = field(default_factory=list)
    _alive_at: float = -ALIVE_S  # monotonic
    _size: int = BATCH  # of the next batch

    def go(self) -> bool:
        """Bring everything there that is here. False: something is wrong with a book. Raises NotNow and Unusable."""
        try:
            heads = self.heads()
            due = time.monotonic() - self._alive_at >= ALIVE_S
            if heads != self._sent or due:
                self._go(heads, walk=due)
                self._sent = heads
            if due:
                self._alive_at = time.monotonic()
        except sqlite3.OperationalError as error:
            raise log.reading_failed(error, self.journal) from error
        return not self.refused and not self.altered

    def _go(self, heads: Sequence[Head], *, walk: bool) -> None:
        for head in heads:
            if not self._bring(head):
                return  # of documents that are not there, nothing has to be said either
            if walk:
                self._walk(head)

    def heads(self) -> list[Head]:
        """Both books now, the journal first. The delivery book is looked at before it, so that it is no further."""
        delivery = _head(self.delivery, "delivery") if self.delivery.exists() else None
        return [_head(self.journal, "journal"), *([delivery] if delivery is not None else [])]

    def _bring(self, head: Head) -> bool:
        while self.goes_on():
            shipped = self.shipped
            try:
                word = self.ledger.bring(self._claim(head), lambda told: self._rows(head, told.seq))
            except log.NotNow:
                self._size = max(SMALLEST, min(self._size, self.batch) // 2)
                raise
            self._size = min(self.batch, 2 * self._size)
            if not self._heard(head, word):
                return False
            if word.seq >= head.seq or self.shipped == shipped:  # or the book has been replaced meanwhile
                return True
        return False

    def _rows(self, head: Head, after: int) -> tuple[bytes, Sequence[Row]]:
        """The digest at the ledger's head and what comes next, as it stands in the book: the ledger judges, not we."""
        with closing(_open(head.path, head.book)) as db:
            last = db.execute("SELECT digest FROM log WHERE seq = ?", (after,)).fetchone()
            query = f"SELECT {COLUMNS} FROM log WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            size = min(self.batch, self._size)
            found = db.execute(query, (after, head.seq, size)).fetchall()
            rows = list(_cut((self._mail(db, row, head.book) for row in found), BATCH_BYTES * size // self.batch))
        self.shipped += len(rows)
        return (_raw(last[0]) or b"") if last else (b"" if after else chain.ZERO), rows

    def _mail(self, db: sqlite3.Connection, row: Row, book: str) -> Row:
        seq, at, kind, about, external_id, facts, *hashes = row
        salt = body = customer = what = None
        if book == "journal" and (self.bodies or (self.key and kind == b"redemption")):
            kept = db.execute("SELECT salt, bytes FROM body WHERE seq = ?", (seq,)).fetchone()
            salt, body = map(_raw, kept or (None, None))
        if self.key and kind == b"redemption" and body is not None:
            customer, what = hashed(self.key, body), reward(body)
        said = (seq, _raw(at), _raw(kind), about if isinstance(about, int) else None, _raw(external_id), _raw(facts))
        return (*said, *map(_raw, hashes), *((salt, body) if self.bodies else (None, None)), customer, what)

    def _heard(self, head: Head, word: Word) -> bool:
        """Is it well? If not, it is said once, and the ledger is told where the two books part."""
        before = self.refused.pop(head.book, None)
        if word.verdict == "ok":
            if before is not None:
                self.say("ledger_takes_again", book=head.book)
            return True
        parted = self._part(head, word) if word.verdict in BAD else None  # each time: head office may have closed it
        if before is None or before.verdict != word.verdict:
            self.say("ledger_refuses", book=head.book, why=word.verdict, there=word.seq, here=head.seq, parted=parted)
        self.refused[head.book] = word
        return False

    def _part(self, head: Head, word: Word) -> int | None:
        """The first entry that is not the same here and there, found by asking for ever smaller stretches."""
        low, high = 0, min(word.seq, head.seq) + 1  # the same at `low`, not at `high`
        with closing(_open(head.path, head.book)) as db:
            while high - low > 1 and self.goes_on():
                middle = (low + high) // 2
                row = db.execute("SELECT digest FROM log WHERE seq = ?", (middle,)).fetchone()
                claim = replace(self._claim(head), at=middle, digest=row[0] if row else b"")
                same = self.ledger.tell(claim).verdict != "fork"
                low, high = (middle, high) if same else (low, middle)
        return high if high - low == 1 and high <= word.seq else None

    def _walk(self, head: Head) -> None:
        """Compute the next stretch of digests anew, and tell the ledger what the stretch ends with."""
        step = self._steps.pop(head.book, Step())  # from the beginning, when it isn't put back
        sound = True
        with closing(_open(head.path, head.book)) as db:
            query = f"SELECT {COLUMNS} FROM log WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            for row in db.execute(query, (step.seq, head.seq, WALK)).fetchall():
                step.seq, step.digest = row[0], _link(step.digest, row)
                sound = step.digest == row[7]
                if not sound:
                    break
        if sound:  # whether it is heard or not: the next stretch's digest is over this one too
            self._steps[head.book] = step
        word = self.ledger.tell(replace(self._claim(head), at=step.seq, digest=step.digest))
        if not sound or word.verdict == "fork":
            if self.altered.get(head.book) != step.seq:
                self.say("altered", book=head.book, seq=step.seq)
            self.altered[head.book] = step.seq
            self._steps.pop(head.book, None)
        elif step.seq >= head.seq:  # it begins anew, however fast the book grows
            self.altered.pop(head.book, None)  # all of it is sound again
            self._steps.pop(head.book, None)

    def _claim(self, head: Head) -> Claim:
        return Claim(head.identity, head.book, head.seq, head.seq, head.digest, self.now())


def _open(path: Path, book: str) -> sqlite3.Connection:
    """A book, whose texts come as the bytes that its digests are over."""
    db = log.open_book(path, book, write=False)
    db.text_factory = bytes
    return db


def _head(path: Path, book: str) -> Head:
    with closing(_open(path, book)) as db:
        try:
            seq, digest = log.head(db)
            row = db.execute("SELECT facts FROM log ORDER BY seq LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            raise log.reading_failed(error, path) from error
    try:
        identity = json.loads(row[0])["journal"]
    except (ValueError, TypeError, KeyError, RecursionError):
        identity = ""
    return Head(path, book, str(identity), seq, digest if isinstance(digest, bytes) else b"")


def _raw(value: Any) -> bytes | None:
    """The bytes that a digest is over, whatever type a hand has given the column."""
    return value if value is None or isinstance(value, bytes) else str(value).encode()


def _link(before: bytes, row: Row) -> bytes:
    """The digest of a row that came as bytes; nothing of one that is none."""
    try:
        seq, at, kind, about, external_id, facts, hashed = row[:7]
        named = None if external_id is None else external_id.decode()
        return chain.link(before, chain.Row(seq, at.decode(), kind.decode(), about, named, facts.decode(), hashed))
    except (ValueError, TypeError, AttributeError):
        return b""


def _cut(rows: Iterator[Row], most: int) -> Iterator[Row]:
    """As many as have room in one batch, and one at least."""
    size = 0
    for row in rows:
        yield row
        size += len(row[9] or b"")
        if size > most:
            return


def hashed(key: bytes, body: bytes) -> bytes | None:
    """A customer as head office may know them: the same in every store, and nothing to anyone without the key."""
    customer = customer_of(body)
    return None if customer is None else hmac.digest(key, "\0".join(customer).encode(), sha256)[:16]


def reward(body: bytes) -> str | None:
    """Which reward a redemption was of: its benefit, or its strategies."""
    try:
        content = parse(body)
    except NotJSON:
        return None
    if not isinstance(content, dict):
        return None
    if content.get("benefit_id") is not None:
        return printable(f"benefit {content['benefit_id']}")[:64]
    return printable(", ".join(map(str, content.get("strategies") or ())))[:64] or None


Jitter = Callable[[float], float]  # from nothing to that, at random


def pause(failures: int, jitter: Jitter) -> float:
    """How long to wait after so many failures: full jitter, so that a region that comes back comes bit by bit."""
    return jitter(min(120.0, 2.0 * 1.6 ** min(failures, 20)))
