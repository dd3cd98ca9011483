"""The documents of a day from the books' side, and what Omneo should have of each. Reads only."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from forwarder import compare, known, witness
from forwarder.apportion import proportional
from forwarder.books import Books, Document
from forwarder.compare import figure
from journal import log
from journal.day import PIECE, Days, between

Row = dict[str, Any]


@dataclass(slots=True)
class Ours:
    """One document of the day: a day can be long, so contents are read when they are needed, and the rest is packed."""

    books: Books
    seq: int
    kind: str
    external_id: str
    state: str
    facts_text: str  # of its entry in the journal
    names: str | None  # the redemption that it names
    told_text: str  # of its delivery; an empty object without one
    rows: dict[str, bytes] = field(default_factory=dict)  # what Omneo has of it, by Omneo's id, as compare.kept left it

    @property
    def facts(self) -> Row:
        """Of its entry in the journal."""
        return dict(json.loads(self.facts_text))

    @property
    def told(self) -> Row:
        """What the delivery book says Omneo said of it, if that has it."""
        return dict(json.loads(self.told_text))

    @property
    def document(self) -> Document:
        """As it came."""
        found = self.books.document(self.seq)
        assert found is not None
        return found

    @property
    def omneo_id(self) -> str | None:
        """Omneo's, as far as the delivery book knows it."""
        found = self.told.get("omneo_id")
        return None if found is None else str(found)

    @property
    def types(self) -> set[str]:
        """What Omneo calls it, if it is no sale."""
        return {"return" if self.told.get("as") == "return" else self.kind.replace("redemption", "redeem")}

    @property
    def row(self) -> Row | None:
        """What Omneo has of it: the one that was delivered, else the first."""
        kept = self.rows.get(str(self.omneo_id)) or next(iter(self.rows.values()), None)
        return None if kept is None else compare.unpacked(kept)


def of_days(books: Books, db: sqlite3.Connection, days: Days) -> Iterator[Ours]:
    """Documents that came in a period, in journal order, whatever became of them."""
    query = (
        "SELECT seq, kind, external_id, state, facts FROM documents WHERE seq BETWEEN ? AND ?"
        " AND received_at >= ? AND received_at < ? AND kind <> 'invalid' ORDER BY seq"
    )
    for piece in between(db, "main", days.begin, days.end):
        for seq, kind, external_id, state, text in db.execute(query, (*piece, days.begin, days.end)).fetchall():
            names = json.loads(text).get("names")
            yield Ours(books, seq, kind, external_id, state, text, names, json.dumps(delivered(books, seq)))


def refresh(books: Books, mine: Ours) -> None:
    """What the books say of it now: it may have gone, or been released, while Omneo was asked."""
    mine.state, mine.told_text = books.state(mine.seq), json.dumps(delivered(books, mine.seq))


def delivered(books: Books, seq: int) -> Row:
    """What was written down when Omneo took a document; empty if it didn't."""
    return next((facts for _, _, kind, facts in reversed(books.history(seq)) if kind == "delivered"), {})


def redemption_named(books: Books, name: str | None) -> tuple[str | None, Decimal | None]:
    """Omneo's id of the redemption that is named, and its worth, as far as the books know."""
    if name is None or name.startswith("omneo:"):
        return (None if name is None else name.removeprefix("omneo:")), None
    document = books.by_external_id(name.removeprefix("external:"))
    told = {} if document is None else delivered(books, document.seq)
    found = told.get("omneo_id")
    return (None if found is None else str(found)), figure(told.get("total"))


def worth(books: Books, mine: Ours) -> Decimal | None:
    """What Omneo should say that it came to; None where it is no amount of money, or nobody knows."""
    match mine.kind:
        case "sale":
            return figure(mine.facts.get("total"))
        case "redemption":
            return figure(mine.told.get("total", mine.facts.get("amount")))
        case "reversal":
            whole = redemption_named(books, mine.names)[1]
            return None if mine.types == {"return"} and _gave_back(books, mine) else whole
        case _:
            return figure(mine.facts.get("amount"))


def _gave_back(books: Books, mine: Ours) -> bool:
    """Had parts of the redemption come back already, so that less was left to be returned?"""
    return any(state == "delivered" for _, state in known.naming(books, str(mine.names), "return"))


def sent(books: Books, mine: Ours) -> Row:
    """A sale as it left: lines net of their redemption, if the till asked for that. Without a body, what is known."""
    document = mine.document
    if document.gone:
        return {name: mine.facts[name] for name in ("total", "currency") if name in mine.facts}
    content = document.content
    if content.get("apply_redemption") != "proportional" or mine.names is None:
        return content
    amount = redemption_named(books, mine.names)[1]
    if amount is None or "redemption_missing" in books.flags_of(mine.seq):  # nobody here knows how much went off
        unpriced = [{**line, "price_sell": None, "price_original": None} for line in content["items"]]
        return content | {"items": unpriced}
    return content | {"items": proportional(content, amount)}


def wanted_links(books: Books, mine: Ours) -> set[str | None]:
    """Which redemption a sale may go with at Omneo. One that was missing once may have come for a second delivery."""
    named = redemption_named(books, mine.names)[0]
    return {named, None} if "redemption_missing" in books.flags_of(mine.seq) else {named}


def bears_other(mine: Ours, row: Row, identity: str) -> bool:
    """Does the sale at Omneo tell of another entry than ours?"""
    seen = witness.seen(row)
    return seen is not None and (seen.journal, seen.seq, seen.digest) != (identity, mine.seq, mine.document.digest)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A document of whatever day."""

    seq: int
    kind: str
    state: str
    omneo_id: str | None


def accepted(db: sqlite3.Connection, external_id: str) -> Accepted | None:
    """The document of this name in the journal."""
    row = db.execute(
        "SELECT seq, kind, state, omneo_id FROM documents WHERE external_id = ? AND state <> 'invalid' LIMIT 1",
        (external_id,),
    ).fetchone()
    return None if row is None else Accepted(row[0], row[1], row[2], None if row[3] is None else str(row[3]))


def is_named(db: sqlite3.Connection, redemption_id: str) -> bool:
    """Does a document name this redemption, made online?"""
    query = "SELECT 1 FROM main.log WHERE json_extract(facts, '$.names') = ? LIMIT 1"
    return db.execute(query, (f"omneo:{redemption_id}",)).fetchone() is not None


def recorded(db: sqlite3.Connection, ids: Iterable[str]) -> set[str]:
    """Which of these are Omneo's ids of redemptions, reversals and returns of whatever day. Walks the whole book."""
    wanted, found = set(ids), set()
    query = (
        "SELECT json_extract(s.facts, '$.omneo_id') FROM delivery.log AS s JOIN main.log AS d ON d.seq = s.about"
        " WHERE s.seq BETWEEN ? AND ? AND s.kind = 'delivered' AND d.kind <> 'sale'"
    )
    for low in range(1, log.head(db, "delivery")[0] + 1 if wanted else 0, PIECE):
        found |= wanted & {str(each) for (each,) in db.execute(query, (low, low + PIECE - 1))}
    return found
