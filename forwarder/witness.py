"""
The witness that nobody has to run: what each sale takes along to Omneo, and what that says of the journal later on.

A sale's `meta` gets the number and digest of its entry. A digest covers everything before it, so one sale at Omneo
vouches for the whole journal up to there, against whoever may write on the shop's disk and not at Omneo.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from journal import log

NAME = "omneo_journal"  # in `meta`: docs/format.md

Problem = dict[str, Any]  # as `verify` has them


@dataclass(frozen=True, slots=True)
class Seen:
    """What a sale at Omneo says of the journal that it came from."""

    external_id: str
    journal: str
    seq: int
    digest: bytes


def mark(journal: str, seq: int, digest: bytes) -> dict[str, Any]:
    """What a sale takes along. It follows from its entry alone, so it is the same however often the sale is sent."""
    return {"journal": journal, "seq": seq, "digest": digest.hex()}


def beside(own: Any, marked: dict[str, Any]) -> Any:
    """A sale's own `meta` with the witness beside; as it is, where the till uses the name itself or has no object."""
    return {**own, NAME: marked} if isinstance(own, dict) and NAME not in own else own


def seen(row: dict[str, Any]) -> Seen | None:
    """The witness that a sale at Omneo bears; None if there is none, or the till has put something else there."""
    meta = row.get("meta")
    borne = meta.get(NAME) if isinstance(meta, dict) else None
    if not isinstance(borne, dict):
        return None
    seq, digest = str(borne.get("seq")), str(borne.get("digest"))
    if not re.fullmatch("[1-9][0-9]{0,17}", seq, re.ASCII) or not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    return Seen(str(row.get("external_id")), str(borne.get("journal")), int(seq), bytes.fromhex(digest))


@dataclass(slots=True)
class Compared:
    """What sales that bear witness say of the journal as it is now."""

    agreeing: list[int] = field(default_factory=list)
    other_digest: list[Seen] = field(default_factory=list)  # the entry of that number is another one, or isn't there
    other_sale: list[Seen] = field(default_factory=list)  # it is that entry, but not this sale's
    foreign: list[Seen] = field(default_factory=list)  # from another journal

    @property
    def vouched(self) -> int:
        """Up to here the journal is what it was when Omneo got to know it."""
        return max(self.agreeing, default=0)

    @property
    def rewritten(self) -> list[Seen]:
        """What differs after the last entry that agrees, from the first on: there the journal is another one."""
        return sorted((each for each in self.other_digest if each.seq > self.vouched), key=lambda each: each.seq)

    @property
    def forked(self) -> list[Seen]:
        """What differs before an entry that agrees: the journal can't have been changed there since."""
        return sorted((each for each in self.other_digest if each.seq <= self.vouched), key=lambda each: each.seq)

    @property
    def differing(self) -> list[Seen]:
        """All that does not fit."""
        return sorted((*self.other_digest, *self.other_sale, *self.foreign), key=lambda each: each.seq)


def compare(db: sqlite3.Connection, seen_there: Iterable[Seen]) -> Compared:
    """Each sale that bears witness against the journal's entry of that number. Whether it follows, `verify` says."""
    compared, ours = Compared(), identity(db)
    for each in seen_there:
        row = db.execute("SELECT digest, kind, external_id FROM log WHERE seq = ?", (each.seq,)).fetchone()
        if each.journal != ours:
            compared.foreign.append(each)
        elif row is None or row[0] != each.digest:
            compared.other_digest.append(each)
        elif row[1:] != ("sale", each.external_id):
            compared.other_sale.append(each)
        else:
            compared.agreeing.append(each.seq)
    return compared


def problems(db: sqlite3.Connection, compared: Compared) -> Iterator[Problem]:
    """In words: one for each way to differ, at the first place."""
    if compared.forked:
        what = "left from another copy of this journal, or was altered at Omneo"
        who = _names(compared.forked)
        yield problem(compared.forked[0].seq, f"{who} {what}: later entries are those that Omneo knows{_restored(db)}")
    if compared.rewritten:
        first, last = compared.rewritten[0].seq, log.head(db)[0]
        what = "the journal was rewritten at or before this entry"
        if first > last:
            what = f"the journal ends at {last}: its end was cut off, or an older copy was put in its place"
        since = f"; they agree up to {compared.vouched}" if compared.vouched else ""
        who = _names(compared.rewritten)
        yield problem(first, f"{what}. {who} left when another one stood here{since}{_restored(db)}")
    for each in compared.other_sale:
        yield problem(each.seq, f"Omneo's {each.external_id} says that it is this entry, which is another document")
    if compared.foreign:
        journals = ", ".join(sorted({each.journal for each in compared.foreign}))
        yield problem(0, f"{_names(compared.foreign)} came to Omneo from another journal than this one: {journals}")


def problem(seq: int, what: str) -> Problem:
    """One of the journal's."""
    return {"book": "journal", "seq": seq, "what": what}


def _names(some: list[Seen]) -> str:
    more = f" (and {len(some) - 1} more)" if len(some) > 1 else ""
    return f"Omneo's {some[0].external_id}{more}"


def _restored(db: sqlite3.Connection) -> str:
    """A restore says so by itself, and what was lost with it."""
    query = "SELECT max(seq) FROM log WHERE kind = 'restored' AND about IS NULL AND external_id IS NULL"
    (seq,) = db.execute(query).fetchone()
    return f"; entry {seq} tells of a backup that was restored" if seq else ""


def identity(db: sqlite3.Connection) -> str:
    """Which journal this is, by its first entry."""
    row = db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
    return str(row[0]) if row else ""
