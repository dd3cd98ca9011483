"""What both books know of a redemption and of the documents that name it: a reversal, a return, a sale. Reads only."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from json import loads
from typing import Any

from forwarder.books import OURSELVES, SETTLED, Books, Document
from forwarder.window import Instant, Made
from journal.document import local_time, names
from journal.log import Entry

LOOK_BACK = 100_000  # entries of the delivery book before an attempt: more than a day of a large shop


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A redemption that Omneo made, and when, as far as anybody can tell."""

    omneo_id: str
    made: Made
    total: Decimal | None = None  # what it was worth; None: ask Omneo
    benefit: bool = False


def named_by(document: Document) -> str | None:
    """The redemption that a document names."""
    return names(document.kind, document.content)


def naming(books: Books, name: str, kind: str) -> list[tuple[Document, str]]:
    """Documents of a kind that name this redemption, with their state."""
    rows = books.journal.execute(
        "SELECT seq FROM log WHERE json_extract(facts, '$.names') = ? AND kind = ? ORDER BY seq", (name, kind)
    ).fetchall()
    found = [books.document(seq) for (seq,) in rows]
    return [(document, books.state(document.seq)) for document in found if document is not None]


def archived(books: Books, seq: int) -> tuple[str, Any] | None:
    """What a document had become (state, Omneo's id) when its body was archived, if it was."""
    row = books.journal.execute(
        "SELECT json_extract(facts, '$.state'), json_extract(facts, '$.omneo_id') FROM log"
        " WHERE about = ? AND kind = 'archived' LIMIT 1",
        (seq,),
    ).fetchone()
    return (str(row[0]), row[1]) if row else None


def released_by_hand(books: Books, seq: int) -> bool:
    """Is it waiting because a person said so?"""
    last = [(kind, facts) for _, _, kind, facts in books.history(seq) if kind in {*SETTLED, "released"}][-1:]
    return bool(last) and last[0][0] == "released" and last[0][1].get("by") != OURSELVES


def waits_for(books: Books, seq: int, name: str) -> bool:
    """Was a document held only until this redemption is no longer doubtful?"""
    held = [facts for _, _, kind, facts in books.history(seq) if kind == "held"][-1:]
    return bool(held) and held[0].get("until") == name


def freed(books: Books, redemption: Document) -> list[tuple[Document, Entry]]:
    """What was held only because this redemption was doubtful, with the entries that release it."""
    name, facts = f"external:{redemption.external_id}", {"by": OURSELVES, "note": "its redemption is settled"}
    return [
        (document, Entry("released", document.seq, document.external_id, facts))
        for kind in ("reversal", "return")
        for document, state in naming(books, name, kind)
        if state == "held" and waits_for(books, document.seq, name)
    ]


def redemption(books: Books, name: str) -> tuple[Document | None, str]:
    """The redemption that a name means, with its state: a document's, or `never came`, `online`, `doubtful`."""
    if name.startswith("omneo:"):
        return None, "online"
    document = books.by_external_id(name.removeprefix("external:"))
    if document is None or document.kind != "redemption":
        return None, "never came"
    state = books.state(document.seq)
    return document, "doubtful" if state == "held" and books.attempted(document.seq) else state


def reversing(books: Books, name: str) -> bool:
    """Has a redemption been reversed, or may it have been, or is it about to be?"""
    return any(
        state in {"waiting", "delivered"} or (books.attempted(document.seq) and not _came_to_nothing(books, document))
        for document, state in naming(books, name, "reversal")
    )


def _came_to_nothing(books: Books, reversal: Document) -> bool:
    """Is it sure that Omneo did not reverse anything? A no alone does not make it sure: an answer may be wrong."""
    held = [facts for _, _, kind, facts in books.history(reversal.seq) if kind == "held"][-1:]
    return any(facts.get("undone") is False for facts in held)


def redeemed(books: Books, name: str, naming: Document | None = None) -> Redeemed:
    """A redemption that Omneo has: from the delivery book, or from what the document says of one made online."""
    if name.startswith("omneo:"):
        created = None
        if naming is not None and naming.content.get("redeemed_at") is not None:
            created = local_time(naming.content["redeemed_at"], naming.content["timezone"])
        benefit = naming is not None and naming.content.get("count") is not None
        return Redeemed(name.removeprefix("omneo:"), Made(created_at=created), benefit=benefit)
    document = books.by_external_id(name.removeprefix("external:"))
    assert document is not None
    history = books.history(document.seq)
    facts = next(facts for _, _, kind, facts in reversed(history) if kind == "delivered")
    made = Made(left(books, document), _moment(facts.get("created_at")), _moment(facts.get("date")))
    total = Decimal(facts["total"]) if facts.get("total") is not None else None
    benefit = document.content.get("benefit_id") is not None
    if document.gone and naming is not None:
        benefit = naming.content.get("count") is not None
    return Redeemed(str(facts["omneo_id"]), made, total, benefit)


def clocks(books: Books, seq: int) -> Instant | None:
    """Both clocks as the journal noted them last before a document came: what was set since shows against them."""
    row = books.journal.execute(
        "SELECT at, facts FROM log WHERE kind IN ('created', 'opened', 'clock') AND about IS NULL"
        " AND external_id IS NULL AND seq < ? ORDER BY seq DESC LIMIT 1",
        (seq,),
    ).fetchone()
    facts = loads(row[1]) if row else {}
    if facts.get("boot") is None:
        return None
    return Instant(facts["boot"], float(facts["since_boot_s"]), datetime.fromisoformat(row[0]))


def left(books: Books, document: Document) -> Instant | None:
    """Just before the first byte of it can have left; None if this book can't tell."""
    attempt = next(((at, facts) for _, at, kind, facts in books.history(document.seq) if kind == "attempt"), None)
    if attempt is None or books.lost(document):
        return None
    at, facts = attempt
    return Instant(facts["boot"], facts["since_boot_s"], datetime.fromisoformat(at))


def redeemed_by_others(books: Books, seq: int) -> frozenset[str]:
    """Omneo's ids of redemptions that are other documents', looking back as far as may matter to this one's attempt."""
    (first,) = books.delivery.execute(
        "SELECT min(seq) FROM log WHERE about = ? AND kind = 'attempt'", (seq,)
    ).fetchone()
    rows = books.delivery.execute(
        "SELECT json_extract(facts, '$.omneo_id') FROM log WHERE seq > ? AND kind = 'delivered' AND about <> ?"
        " AND json_type(facts, '$.late_s') IS NOT NULL",
        ((first or 0) - LOOK_BACK, seq),
    ).fetchall()
    pending = (entry.facts for entry in books.pending if entry.kind == "delivered" and "late_s" in entry.facts)
    return frozenset([str(omneo_id) for (omneo_id,) in rows] + [str(facts["omneo_id"]) for facts in pending])


def returned(books: Books, name: str) -> frozenset[str]:
    """Omneo's ids of the returns of a redemption that are known."""
    histories = (
        books.history(document.seq) for document, state in naming(books, name, "return") if state == "delivered"
    )
    return frozenset(
        str(facts["omneo_id"]) for history in histories for _, _, kind, facts in history if kind == "delivered"
    )


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
