"""
Both books from the forwarder's side: the journal, which it can only read, and its own delivery book.

How the position stays cheap: no status column, no cursor file. Every so many documents a `turn` entry says how far
everything is settled, how far documents may have left, and the totals so far. What is next and how many wait is then a
look at the last turn and at the few entries after it, at ten million entries as at ten.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from journal import log
from journal.document import parse

KINDS = ("sale", "redemption", "reversal", "return")
SETTLED = ("delivered", "refused", "held", "cancelled", "abandoned")
OURSELVES = "omneo-forwarder"
TURN = 64  # documents that a turn lets leave: after a crash, so many at the most are looked up before they are sent
FLUSH_S = 0.02  # settled documents are on disk after so many seconds, or before anything waits


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the journal whose turn may come."""

    seq: int
    kind: str
    external_id: str
    received_at: datetime
    content: dict[str, Any]  # empty if its body is gone
    gone: bool = False
    digest: bytes = b""  # of its entry


@dataclass(slots=True)
class Turn:
    """What the last turn said."""

    settled: int = 0  # every document up to this journal seq was settled
    upto: int = 0  # documents up to this journal seq may have left
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SETTLED, 0))


def create_delivery(journal: Path, delivery: Path, now: log.Clock = log.utc_now) -> None:
    """A new delivery book, bound to this journal. What the journal holds already is looked up before it is sent."""
    db = log.open_book(journal, "journal", write=False)
    try:
        seq, digest = log.head(db)
        identity = _identity(db)
    finally:
        db.close()
    facts = {"journal": identity, "other_book": {"entries": seq, "head": digest.hex()}, "unknown_upto": seq}
    log.create(delivery, "delivery", facts | log.boot_facts(), now)


def _identity(journal: sqlite3.Connection) -> str:
    row = journal.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
    return str(row[0]) if row else ""


class Books:
    """The two books, open. `record` keeps entries in hand for a moment, so that many share one commit."""

    def __init__(self, journal: Path, delivery: Path, *, now: log.Clock = log.utc_now, write: bool = True) -> None:
        """Open both. Raises log.Unusable if the delivery book belongs to another journal, or knows a longer one."""
        self.journal = log.open_book(journal, "journal", write=False)
        self.delivery = log.open_book(delivery, "delivery", write=write)
        self.path = journal
        self.identity = _identity(self.journal)
        self._write = write
        self.now = now
        self._pending: list[log.Entry] = []
        self._since = 0.0  # when the oldest of them was recorded (monotonic)
        self.again: set[int] = set()  # documents that Omneo had once and that a person has sent again
        self._check_pair(journal, delivery)
        self.turn = last_turn(self.delivery)
        lost = "SELECT max(json_extract(facts, '$.unknown_upto')) FROM log WHERE kind IN ('created', 'restored')"
        query = f"{lost} AND about IS NULL AND external_id IS NULL"
        self._lost_upto: int = self.delivery.execute(query).fetchone()[0] or 0
        self.unknown_upto = max(self.turn.upto, self._lost_upto)  # may have left before this process started

    def _check_pair(self, journal: Path, delivery: Path) -> None:
        row = self.delivery.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
        if row[0] != self.identity:
            raise log.Unusable(
                f"{delivery} belongs to another journal than {journal}; give the pair that belongs together."
            )
        known = self.delivery.execute("SELECT max(about) FROM log WHERE about IS NOT NULL").fetchone()[0] or 0
        if known > log.head(self.journal)[0]:
            raise log.Unusable(
                f"{journal} is older than its delivery book: it ends before document {known}. Restore the newer one."
            )
        entries, head = last_seen(self.delivery)
        row = self.journal.execute("SELECT digest FROM log WHERE seq = ?", (entries,)).fetchone()
        if entries and (row is None or row[0].hex() != head):
            raise log.Unusable(
                f"{journal} is not the journal that its delivery book saw: it differs at entry {entries}."
                " Restore the one that was here, or keep both for whoever examines them."
            )

    # -- reading ----------------------------------------------------------------------------------------------------

    def documents(self, after: int, most: int) -> list[Document]:
        """Documents of the journal in order, waiting or not, after a seq; those whose body is gone too."""
        rows = self.journal.execute(
            "SELECT log.seq, kind, external_id, at, digest, bytes FROM log LEFT JOIN body USING (seq)"
            " WHERE log.seq > ? AND kind IN ('sale', 'redemption', 'reversal', 'return') ORDER BY log.seq LIMIT ?",
            (after, most),
        ).fetchall()
        return [_document(row) for row in rows]

    def last_document(self) -> int:
        """Seq of the newest document of the journal, 0 if there is none."""
        row = self.journal.execute(
            "SELECT seq FROM log WHERE kind IN ('sale', 'redemption', 'reversal', 'return') ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return row[0] if row else 0

    def document(self, seq: int) -> Document | None:
        """One document by its journal seq."""
        found = self.documents(seq - 1, 1)
        return found[0] if found and found[0].seq == seq else None

    def by_external_id(self, external_id: str) -> Document | None:
        """One document by its external_id."""
        row = self.journal.execute(
            "SELECT seq FROM log WHERE external_id = ? AND about IS NULL AND kind <> 'invalid' LIMIT 1", (external_id,)
        ).fetchone()
        return self.document(row[0]) if row else None

    def settled(self, low: int, high: int) -> set[int]:
        """Which documents from low to high are settled (released ones are not)."""
        state: dict[int, str] = {}
        state.update(
            self.delivery.execute(
                "SELECT about, kind FROM log WHERE about BETWEEN ? AND ?"
                " AND kind IN ('delivered', 'refused', 'held', 'cancelled', 'abandoned', 'released') ORDER BY seq",
                (low, high),
            ).fetchall()
        )
        for entry in self._pending:
            if isinstance(entry.about, int) and low <= entry.about <= high and entry.kind in SETTLED:
                state[entry.about] = entry.kind
        return {about for about, kind in state.items() if kind != "released"}

    def released(self) -> list[int]:
        """Documents that a person released and that are not settled again, oldest first. Notes which were at Omneo."""
        query = "SELECT about, json_extract(facts, '$.was') FROM log WHERE kind = 'released' ORDER BY about"
        rows = dict(sorted(self.delivery.execute(query), key=lambda row: (row[0], row[1] or "")))
        self.again = {about for about, was in rows.items() if was == "delivered"}
        return [about for about in rows if not self.settled(about, about)]

    def failures(self, seq: int) -> list[str]:
        """When it failed with 5xx, since it was last released."""
        history = [(kind, at) for _, at, kind, _ in self.history(seq)]
        released = max((i for i, (kind, _) in enumerate(history) if kind == "released"), default=0)
        return [at for kind, at in history[released:] if kind == "deferred"]

    def history(self, seq: int) -> list[tuple[int, str, str, dict[str, Any]]]:
        """What this book says of a document: (seq, at, kind, facts) in order. What is still to be written is of now."""
        rows = self.delivery.execute("SELECT seq, at, kind, facts FROM log WHERE about = ? ORDER BY seq", (seq,))
        written = [(row[0], row[1], row[2], json.loads(row[3])) for row in rows]
        now = log.stamp(self.now())
        return written + [(0, now, entry.kind, entry.facts) for entry in self.pending if entry.about == seq]

    def lost(self, document: Document) -> bool:
        """Was the document in the journal before this book began? Then nobody knows whether it ever left."""
        return document.seq <= self._lost_upto

    def state(self, seq: int) -> str:
        """State of an accepted document."""
        last = next((e.kind for e in reversed(self._pending) if e.about == seq and e.kind in SETTLED), None)
        if last is None:
            row = self.delivery.execute(
                "SELECT kind FROM log WHERE about = ? AND kind IN ('delivered', 'refused', 'held', 'cancelled',"
                " 'abandoned', 'released') ORDER BY seq DESC LIMIT 1",
                (seq,),
            ).fetchone()
            last = row[0] if row else "released"
        return "waiting" if last == "released" else str(last)

    def attempted(self, seq: int) -> bool:
        """May a byte of it have left, as far as this book knows?"""
        row = self.delivery.execute("SELECT 1 FROM log WHERE about = ? AND kind = 'attempt' LIMIT 1", (seq,)).fetchone()
        return row is not None

    def flags_of(self, seq: int) -> set[str]:
        """Flags that this book has raised about a document."""
        query = "SELECT json_extract(facts, '$.flag') FROM log WHERE about = ? AND kind = 'flag'"
        return {name for (name,) in self.delivery.execute(query, (seq,)).fetchall()}

    # -- writing ----------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The entry at every start, before anything is sent."""
        seq, digest = log.head(self.journal)
        facts = {"program": "omneo-forwarder", "other_book": {"entries": seq, "head": digest.hex()}}
        log.append(self.delivery, [log.Entry("opened", facts=facts | log.boot_facts())], now=self.now)

    def record(self, *entries: log.Entry) -> None:
        """Keep entries for the next flush."""
        if not self._pending:
            self._since = time.monotonic()
        self._pending += entries

    @property
    def pending(self) -> Sequence[log.Entry]:
        """What waits for the next flush."""
        return self._pending

    @property
    def flush_due(self) -> bool:
        """Have entries been kept for long enough, or enough of them?"""
        return len(self._pending) >= TURN or (bool(self._pending) and time.monotonic() - self._since >= FLUSH_S)

    def flush(self) -> None:
        """What was recorded, in one commit. Opened without `write`, it stays a supposition."""
        if self._pending and self._write:
            log.append(self.delivery, self._pending, now=self.now)
            self._pending = []

    def take_turn(self, settled: int, upto: int) -> None:
        """
        Say how far everything is settled and how far documents may leave, in one commit with what was recorded.

        The totals are the last turn's and what was written since, by whomever (a person may have released something).
        """
        with log.writing(self.delivery):
            log.append(self.delivery, self._pending, now=self.now)
            totals = totals_since(self.delivery)
            seq, digest = log.head(self.journal)
            facts = {
                "settled": settled,
                "upto": upto,
                "totals": totals,
                "other_book": {"entries": seq, "head": digest.hex()},
            }
            log.append(self.delivery, [log.Entry("turn", facts=facts)], now=self.now)
        self._pending = []
        self.turn = Turn(settled, upto, totals)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self.journal.close()
        self.delivery.close()


def last_seen(delivery: sqlite3.Connection) -> tuple[int, str]:
    """The journal as this book last saw it: how many entries, and the digest of the last of them in hex."""
    newest = "SELECT coalesce(max(seq), 1) FROM log WHERE kind = '{}' AND about IS NULL AND external_id IS NULL"
    (facts,) = delivery.execute(
        f"SELECT facts FROM log WHERE seq = max(({newest.format('opened')}), ({newest.format('turn')}))"
    ).fetchone()
    seen = json.loads(facts)["other_book"]
    return int(seen["entries"]), str(seen["head"])


def last_turn(delivery: sqlite3.Connection, schema: str = "main") -> Turn:
    """The last turn, or what the book's creation said."""
    row = delivery.execute(
        f"SELECT facts FROM {schema}.log WHERE kind = 'turn' AND about IS NULL AND external_id IS NULL"
        " ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if row:
        facts = json.loads(row[0])
        return Turn(facts["settled"], facts["upto"], facts["totals"])
    facts = json.loads(delivery.execute(f"SELECT facts FROM {schema}.log WHERE seq = 1").fetchone()[0])
    return Turn(upto=facts["unknown_upto"])


def totals_since(delivery: sqlite3.Connection, schema: str = "main") -> dict[str, int]:
    """How many documents are in each settled state: the last turn's totals and the entries after it."""
    last = f"SELECT max(seq) FROM {schema}.log WHERE kind = 'turn' AND about IS NULL AND external_id IS NULL"
    row = delivery.execute(last).fetchone()
    totals = dict(last_turn(delivery, schema).totals)
    query = f"SELECT kind, json_extract(facts, '$.was') FROM {schema}.log WHERE seq > ? AND about IS NOT NULL"
    return count(totals, delivery.execute(query, (row[0] or 0,)))


def count(totals: dict[str, int], entries: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    """Add entries to totals. Only what was held can be abandoned; and released, unless the entry says what it was."""
    for kind, was in entries:
        if kind in totals:
            totals[kind] += 1
        if kind in {"released", "abandoned"}:
            totals[was or "held"] -= 1
    return totals


def _document(row: tuple[Any, ...]) -> Document:
    seq, kind, external_id, at, digest, body = row
    content = {} if body is None else parse(body)
    return Document(seq, kind, external_id, datetime.fromisoformat(at), content, body is None, digest)
