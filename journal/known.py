"""What the journal holds already, asked as a batch needs it. Reads only, one look-up at a time, each by an index."""

import sqlite3
from decimal import Decimal
from typing import Any

from journal.document import Document, NotJSON, parse, same
from journal.log import Entry

CONFLICT = "conflict"  # the reason of an invalid entry whose document is valid: only its external_id was taken


class Known:
    """What the journal holds already, asked as a batch needs it, with what the batch itself adds on top."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.ordinal = _ordinal(db)
        self._firsts: dict[str, tuple[Entry, Document]] = {}
        self._invalid: list[tuple[Entry, Document]] = []
        self.numbers: dict[str, dict[int, Entry]] = {}  # terminal → sequence number → entry, of this batch only

    def first(self, external_id: str) -> tuple[Entry | int, Any] | None:
        """The accepted document of this external_id: (its entry, its content)."""
        if external_id in self._firsts:
            entry, document = self._firsts[external_id]
            return entry, document.content
        row = self.db.execute(
            "SELECT seq, (SELECT bytes FROM body WHERE body.seq = log.seq) FROM log"
            " WHERE external_id = ? AND about IS NULL AND kind <> 'invalid' LIMIT 1",
            (external_id,),
        ).fetchone()
        if row is None:
            return None
        return row[0], _content(row[1])

    def invalid(self, document: Document) -> Entry | int | None:
        """The entry that holds the very same bytes as evidence already."""
        for entry, other in self._invalid:
            if other.body == document.body and other.reason == document.reason:
                return entry
        row = self.db.execute(
            "SELECT log.seq FROM log JOIN body USING (seq) WHERE kind = 'invalid'"
            " AND json_extract(facts, '$.bytes') = ? AND json_extract(facts, '$.reason') = ? AND bytes = ? LIMIT 1",
            (len(document.body), document.reason, document.body),
        ).fetchone()
        return int(row[0]) if row else None

    def oversize(self, document: Document, size: int, sha256: str) -> Entry | int | None:
        """The entry that holds size and hash of a file over the limit already."""
        for entry, other in self._invalid:
            if other.reason == document.reason and entry.facts.get("sha256") == sha256:
                return entry
        row = self.db.execute(
            "SELECT seq FROM log WHERE kind = 'invalid' AND json_extract(facts, '$.bytes') = ?"
            " AND json_extract(facts, '$.sha256') = ? LIMIT 1",
            (size, sha256),
        ).fetchone()
        return int(row[0]) if row else None

    def conflicting(self, document: Document) -> tuple[Entry | int, str] | None:
        """An earlier conflict with the same content: (its entry, the name of its file)."""
        for entry, other in self._invalid:
            if other.external_id == document.external_id and same(other.content, document.content):
                return entry, entry.facts["file"]
        for seq, file, body in self.db.execute(
            "SELECT log.seq, json_extract(facts, '$.file'), bytes FROM log JOIN body USING (seq)"
            " WHERE external_id = ? AND about IS NULL AND kind = 'invalid' AND json_extract(facts, '$.reason') = ?",
            (document.external_id, CONFLICT),
        ):
            if same(_content(body), document.content):
                return int(seq), str(file)
        return None

    def canary(self) -> int | None:
        """Number of the last canary."""
        row = self.db.execute(
            "SELECT json_extract(facts, '$.canary') FROM log WHERE kind = 'canary' AND about IS NULL"
            " AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return int(row[0]) if row else None

    def arrived(self, terminal: str, low: int, high: int) -> set[int]:
        """Which of these numbers of a terminal, both ends included, are in the log."""
        rows = self.db.execute(
            "SELECT DISTINCT json_extract(facts, '$.sequence') FROM log WHERE json_extract(facts, '$.terminal') = ?"
            " AND json_extract(facts, '$.sequence') BETWEEN ? AND ?",
            (terminal, low, high),
        )
        return {int(row[0]) for row in rows}

    def last_number(self, terminal: str) -> int | None:
        """Highest sequence number of a terminal in the log."""
        query = (
            "SELECT max(json_extract(facts, '$.sequence')) FROM log"
            " WHERE json_extract(facts, '$.terminal') = ? AND json_extract(facts, '$.sequence') IS NOT NULL"
        )
        last = self.db.execute(query, (terminal,)).fetchone()[0]
        return None if last is None else int(last)

    def open_gaps(self, terminal: str) -> list[tuple[int, int, int, int]]:
        """Open gap flags of a terminal: (seq of the flag, what it is about, from, to)."""
        return self.db.execute(
            "SELECT seq, about, json_extract(facts, '$.from'), json_extract(facts, '$.to') FROM log"
            " WHERE kind = 'flag' AND json_extract(facts, '$.flag') = 'sequence_gap'"
            " AND json_extract(facts, '$.terminal') = ?"
            " AND NOT EXISTS (SELECT 1 FROM log AS r WHERE r.kind = 'resolution'"
            " AND json_extract(r.facts, '$.flag') = 'J' || log.seq)",
            (terminal,),
        ).fetchall()

    def redeemed(self, content: dict[str, Any]) -> Decimal | None:
        """Amount of the intent that a sale names, if it has come."""
        named = content.get("redemption_external_id")
        known = self.first(named) if named else None
        amount = (known[1] or {}).get("amount") if known else None
        return Decimal(amount) if isinstance(amount, (int, Decimal)) else None

    def add(self, document: Document, entry: Entry) -> None:
        """Count a document of this batch among the known."""
        if document.kind == "invalid":
            self._invalid.append((entry, document))
            return
        assert document.external_id is not None
        self._firsts[document.external_id] = (entry, document)
        terminal, number = entry.facts.get("terminal"), entry.facts.get("sequence")
        if terminal is not None and number is not None:
            self.numbers.setdefault(terminal, {}).setdefault(number, entry)


def _ordinal(db: sqlite3.Connection) -> int:
    """How many documents were accepted so far: the last one says it, so nobody has to count ten million rows."""
    row = db.execute(
        "SELECT json_extract(facts, '$.n') FROM log WHERE json_extract(facts, '$.n') IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return int(row[0]) if row else 0


def _content(body: Any) -> Any:
    """What a stored body says; None if it was redacted, or a hand has spoilt it: then nothing can be equal to it."""
    try:
        return parse(body) if isinstance(body, bytes) else None
    except NotJSON:
        return None
