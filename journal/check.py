"""
What a document means beside what the journal holds already: new, a repeat, a conflict; and which flags it raises.

Nothing here writes: `judge` says what to append and what becomes of the file, `ingest` does it.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from journal.document import Document, parse, read, same
from journal.log import Entry
from journal.spool import printable
from journal.totals import totals

TOO_LARGE = "over the size limit"
CONFLICT = "conflict"


@dataclass(slots=True)
class Verdict:
    """What becomes of one file: the entries to append, and whether it is taken or set aside."""

    document: Document
    fate: str  # accept: it is in the log with this batch; repeat: it was there before; reject: it goes to rejected/
    entries: list[Entry] = field(default_factory=list)
    first: "Entry | int" = 0  # the entry that holds this document: of this batch, or the seq of an earlier one
    reason: str = ""

    @property
    def seq(self) -> int:
        """Seq of the entry that holds the document, once the batch has been appended."""
        return self.first.seq if isinstance(self.first, Entry) else self.first


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
        return row[0], parse(row[1]) if row[1] is not None else None

    def invalid(self, document: Document) -> Entry | int | None:
        """The entry that holds the very same bytes as evidence already."""
        for entry, other in self._invalid:
            if other.body == document.body and other.reason == document.reason:
                return entry
        for seq, reason, body in self.db.execute(
            "SELECT log.seq, json_extract(facts, '$.reason'), bytes FROM log JOIN body USING (seq)"
            " WHERE kind = 'invalid' AND json_extract(facts, '$.bytes') = ?",
            (len(document.body),),
        ):
            if body == document.body and reason == document.reason:
                return int(seq)
        return None

    def conflicting(self, document: Document) -> Entry | int | None:
        """The entry of an earlier conflict with the same content."""
        for entry, other in self._invalid:
            if other.external_id == document.external_id and same(other.content, document.content):
                return entry
        for seq, body in self.db.execute(
            "SELECT log.seq, bytes FROM log JOIN body USING (seq)"
            " WHERE external_id = ? AND about IS NULL AND kind = 'invalid'"
            " AND json_extract(facts, '$.reason') = 'conflict'",
            (document.external_id,),
        ):
            if same(parse(body), document.content):
                return int(seq)
        return None

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


def judge(document: Document, known: Known, *, size: int, sha256: str | None = None) -> Verdict:
    """
    Decide on one document, in the order in which they came: what to append, and what becomes of the file.

    `size` is the file's in bytes; `sha256` stands for the body of a file over the limit, which is not kept.
    """
    if sha256 is not None:
        return _oversize(document, known, size, sha256)
    if document.kind == "invalid":
        return _invalid(document, known)
    assert document.external_id is not None
    first = known.first(document.external_id)
    if first is not None:
        entry, content = first
        if content is not None and same(content, document.content):
            return Verdict(document, "repeat", first=entry)
        return _conflict(document, known)
    known.ordinal += 1
    entry = Entry(document.kind, None, document.external_id, _facts(document, known.ordinal), document.body)
    entries = [entry]
    for check in CHECKS:
        entries += check(document, entry, known)
    known.add(document, entry)
    return Verdict(document, "accept", entries, entry)


def flag(name: str, entry: Entry, **detail: Any) -> Entry:
    """A flag: something a person must know about a document."""
    return Entry("flag", entry, entry.external_id, {"flag": name, **detail})


def _invalid(document: Document, known: Known) -> Verdict:
    reason = document.reason
    if (first := known.invalid(document)) is not None:
        return Verdict(document, "reject", first=first, reason=reason)
    facts = {
        "file": printable(document.name),
        "bytes": len(document.body),
        "reason": reason,
        "pointers": [problem.pointer for problem in document.problems],
    }
    entry = Entry("invalid", None, document.external_id, facts, document.body)
    known.add(document, entry)
    return Verdict(document, "reject", [entry, flag("invalid", entry, reason=reason)], entry, reason)


def _oversize(document: Document, known: Known, size: int, sha256: str) -> Verdict:
    """A file over the limit: its size and hash are the evidence, its bytes stay in rejected/."""
    reason = document.reason
    row = known.db.execute(
        "SELECT seq FROM log WHERE kind = 'invalid' AND json_extract(facts, '$.bytes') = ?"
        " AND json_extract(facts, '$.sha256') = ?",
        (size, sha256),
    ).fetchone()
    if row:
        return Verdict(document, "reject", first=row[0], reason=reason)
    facts = {"file": printable(document.name), "bytes": size, "sha256": sha256, "reason": reason}
    entry = Entry("invalid", facts=facts)
    return Verdict(document, "reject", [entry, flag("invalid", entry, reason=reason)], entry, reason)


def _conflict(document: Document, known: Known) -> Verdict:
    """The same external_id with other content: kept as evidence, never forwarded."""
    if (repeated := known.conflicting(document)) is not None:
        return Verdict(document, "repeat", first=repeated)
    facts = {"file": printable(document.name), "bytes": len(document.body), "reason": CONFLICT}
    entry = Entry("invalid", None, document.external_id, facts, document.body)
    invalid = replace(document, kind="invalid", reason=CONFLICT)
    known.add(invalid, entry)
    return Verdict(document, "reject", [entry, flag("conflict", entry, claimed=document.kind)], entry, CONFLICT)


def _facts(document: Document, ordinal: int) -> dict[str, Any]:
    """What the log says of a document beside its body: enough to count, sum and find gaps, and nothing personal."""
    content = document.content or {}
    facts: dict[str, Any] = {"bytes": len(document.body), "n": ordinal}
    if content.get("terminal") is not None:
        facts["terminal"] = content["terminal"]
    if content.get("sequence") is not None:
        facts["sequence"] = int(content["sequence"])  # JSON Schema takes 17.0 for an integer
    for name in ("total", "amount", "count"):
        if isinstance(content.get(name), (int, Decimal)):
            facts[name] = str(content[name])
    if (named := names(document.kind, content)) is not None:
        facts["names"] = named
    if isinstance(content.get("currency"), str):
        facts["currency"] = content["currency"][:8]
    return facts


def names(kind: str, content: dict[str, Any]) -> str | None:
    """The redemption that a document names: `external:…` for an intent in this journal, `omneo:…` for one made online."""
    if kind == "redemption":
        return None
    if content.get("redemption_external_id") is not None:
        return f"external:{content['redemption_external_id']}"
    return f"omneo:{int(content['redemption_id'])}" if content.get("redemption_id") is not None else None


def _totals(document: Document, entry: Entry, known: Known) -> list[Entry]:
    if document.kind != "sale" or document.content is None:
        return []
    detail = totals(document.content, known.redeemed(document.content))
    return [flag("totals_mismatch", entry, **detail)] if detail else []


def gaps(known: Known) -> list[Entry]:
    """
    What a whole batch says about the terminals' numbers: a gap is flagged on the document after it, and closed when
    the last late file that fills it has come. Judged once a batch, because files of one moment come in any order.
    """
    found = []
    for terminal, numbers in known.numbers.items():
        last = known.last_number(terminal)
        if last is None:
            last = next(iter(numbers))  # a terminal starts at the first number seen
        for number in sorted(numbers):
            if number > last + 1:
                detail = {"terminal": terminal, "from": last + 1, "to": number - 1}
                found.append(flag("sequence_gap", numbers[number], **detail))
            last = max(last, number)
        for seq, about, low, high in known.open_gaps(terminal):
            late = {number for number in numbers if low <= number <= high}
            if late and len(late | known.arrived(terminal, low, high)) == high - low + 1:
                facts = {"flag": f"J{seq}", "by": "omneo-journal", "note": "what was missing has come"}
                found.append(Entry("resolution", about, None, facts))
    return found


Check = Callable[[Document, Entry, Known], list[Entry]]
CHECKS: tuple[Check, ...] = (_totals,)


def _ordinal(db: sqlite3.Connection) -> int:
    """How many documents were accepted so far: the last one says it, so nobody has to count ten million rows."""
    row = db.execute(
        "SELECT json_extract(facts, '$.n') FROM log WHERE json_extract(facts, '$.n') IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return int(row[0]) if row else 0


def on_its_own(name: str, body: bytes | None) -> tuple[Document, list[str]]:
    """What can be said of a file without a journal: the document, and the flags it would raise. None: over the limit."""
    if body is None:
        return Document(name, b"", "invalid", None, None, TOO_LARGE), []
    document = read(name, body)
    if document.kind != "sale" or document.content is None:
        return document, []
    return document, ["totals_mismatch"] if totals(document.content) else []
