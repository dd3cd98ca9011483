"""
A day of the journal held against Omneo, both ways: what is missing there or here, different, doubled; sums; balances.

Omneo is asked first and the books are looked at afterwards, so what it has the journal had before. What it seems not to
have is asked for twice. Nothing is changed there; here one entry says what came of it.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

from forwarder import compare, ours, status
from forwarder.asking import SETTLE_S, Asking, Rest
from forwarder.books import Books
from forwarder.compare import Field, clean, figure
from forwarder.customers import Customers
from forwarder.ours import Ours
from forwarder.theirs import Theirs
from journal import log
from journal.day import Days

WHATS = ("missing_there", "missing_here", "different", "doubled", "balance")
IDLE_S = 60  # for so long a question waits until nothing waits to be delivered
KEPT = 200  # differences that the entry names; it counts them all
FIELDS = 20  # of one document that are named
EXACT = Context(prec=1000)  # the sum of any two doubles, digit for digit

Row = dict[str, Any]


def idle(db: sqlite3.Connection, rest: Rest) -> None:
    """The tills' documents go first. Raises log.NotNow when they go on waiting."""
    for _ in range(IDLE_S):
        if not status.waiting(db):
            return
        rest(1.0)
    words = "Documents wait to be delivered, and a reconciliation makes way for them. Try again when none waits."
    raise log.NotNow(words)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator asks for."""

    days: Days
    routes: str = "reference"
    locations: frozenset[str] = frozenset()  # instead of those of our own sales at Omneo
    ignored: frozenset[str] = frozenset()  # fields that this tenant is known to write in its own way


@dataclass(slots=True)
class Reconciling:
    """One day, while it is looked at."""

    books: Books
    db: sqlite3.Connection  # both, with the views
    asking: Asking
    wanted: Wanted
    customers: Customers = field(init=False)
    documents: list[Ours] = field(init=False)
    theirs: Theirs = field(init=False)

    def __post_init__(self) -> None:
        """Find the day's documents."""
        self.customers = Customers(self.asking, self.wanted.routes)
        self.documents = list(ours.of_days(self.books, self.db, self.wanted.days))
        self.theirs = Theirs(self.asking, self.db, self.wanted.days, self.books.identity, self.wanted.locations)

    def listen(self) -> None:
        """Everything that Omneo has of the day, and of its documents."""
        self.asking.known_there()
        sales = [mine for mine in self.documents if mine.kind == "sale"]
        self.theirs.sales(sales)
        self.theirs.redemptions(mine for mine in self.documents if mine.kind != "sale")
        for mine in self.documents:
            ours.refresh(self.books, mine)
        absent = [mine for mine in self.documents if mine.state == "delivered" and not mine.rows]
        if absent:
            self.asking.rest(SETTLE_S)
        for mine in absent:
            self.theirs.look_for(mine)

    def differences(self) -> Iterator[Row]:
        """All that doesn't fit, in journal order; then what is in no book."""
        for mine in self.documents:
            if mine.state == "delivered" and not mine.rows:
                yield told("missing_there", mine)
            if mine.state == "delivered" and len(mine.rows) > 1:
                yield told("doubled", mine) | {"ids": sorted(mine.rows)}
            if (row := mine.row) is not None and (fields := self._fields(mine, row)):
                yield told("different", mine) | {"fields": fields}
        for known, name, ids in self.theirs.doubles.values():
            about = {"seq": known.seq, "kind": known.kind, "external_id": name, "omneo_id": known.omneo_id}
            yield NOTHING | {"what": "doubled", "ids": sorted(ids)} | about
        for kind, row in self.theirs.strangers:
            there = {"kind": kind, "external_id": clean(row["external_id"]), "omneo_id": clean(row["id"])}
            yield NOTHING | {"what": "missing_here", "amount": _text(figure(row.get("total")))} | there
        redeemed = [mine for mine in self.documents if mine.kind == "redemption" and mine.state == "delivered"]
        for mine, fields in self.customers.purses(redeemed):
            yield told("balance", mine) | {"fields": fields}

    def _fields(self, mine: Ours, row: Row) -> list[Field]:
        """Which fields say something else at Omneo than here."""
        if mine.state == "waiting":
            return []
        if mine.state != "delivered":
            found = [compare.field("state", mine.state, "delivered")]
        else:
            found = [] if mine.omneo_id in mine.rows else [compare.field("id", mine.omneo_id, clean(row.get("id")))]
            found += self._of_sale(mine, row) if mine.kind == "sale" else self._of_spent(mine, row)
            if self.customers.is_another(mine.document.content, row):
                found.append(compare.field("profile_id"))
        return [each for each in found if each["field"] not in self.wanted.ignored][:FIELDS]

    def _of_sale(self, mine: Ours, row: Row) -> Iterator[Field]:
        link = compare.linked(row)
        yield from compare.sale(ours.sent(self.books, mine), row)
        if "redemption" in row or "redemption_id" in row:
            wanted = ours.wanted_links(self.books, mine)
            if link not in wanted:
                yield compare.field("redemption_id", next(iter(wanted - {None}), None), clean(link))
        if ours.bears_other(mine, row, self.books.identity):
            yield compare.field("meta.omneo_journal")

    def _of_spent(self, mine: Ours, row: Row) -> Iterator[Field]:
        yield from compare.spent(ours.worth(self.books, mine), mine.types, row)
        source, shown = ours.redemption_named(self.books, mine.names)[0], row.get("linked_source_id")
        if source is not None and shown is not None and str(shown) != source:
            yield compare.field("linked_source_id", source, clean(shown))
        if not mine.told.get("found"):
            borrowed = None if mine.names is None else mine.names.removeprefix("external:")
            yield from compare.reference(row, mine.external_id, borrowed)

    def terminals(self) -> list[Row]:
        """Counts and sums by terminal, kind and currency: what the books call delivered, and what Omneo has of it."""
        groups: dict[tuple[str, str, str], list[Any]] = {}
        for mine in self.documents:
            facts = mine.facts
            key = (str(facts.get("terminal") or ""), mine.kind, str(facts.get("currency") or ""))
            group = groups.setdefault(key, [0, Decimal(0), 0, Decimal(0)])
            worth = ours.worth(self.books, mine)  # None: nobody here knows, and it stays out of both sums
            if mine.state == "delivered":
                group[0] += 1
                group[1] = _plus(group[1], worth)
            for kept in mine.rows.values() if mine.state != "waiting" else ():
                group[2] += 1
                group[3] = _plus(group[3], None if worth is None else figure(compare.unpacked(kept).get("total")))
        for kind, row in self.theirs.strangers:
            group = groups.setdefault(
                ("", kind, clean(_plain(row.get("currency"))) or ""), [0, Decimal(0), 0, Decimal(0)]
            )
            group[2] += 1
            group[3] = _plus(group[3], figure(row.get("total")))
        return [
            {"terminal": terminal or None, "kind": kind, "currency": currency or None}
            | {"count": count, "sum": _text(sum_), "there": there, "there_sum": _text(there_sum)}
            for (terminal, kind, currency), (count, sum_, there, there_sum) in sorted(groups.items())
        ]


NOTHING: Row = {"seq": None, "terminal": None, "amount": None, "fields": [], "ids": []}


def told(what: str, mine: Ours) -> Row:
    """A difference about a document of ours."""
    facts = mine.facts
    return NOTHING | {
        "what": what,
        "kind": mine.kind,
        "seq": mine.seq,
        "external_id": mine.external_id,
        "terminal": facts.get("terminal"),
        "omneo_id": mine.omneo_id,
        "amount": facts.get("total", facts.get("amount")),
    }


def examine(books: Books, db: sqlite3.Connection, asking: Asking, wanted: Wanted) -> Row:
    """A day's reconciliation, as `reconcile --json` tells it. Raises log.NotNow and log.Unusable."""
    day = Reconciling(books, db, asking, wanted)
    day.listen()
    found = list(day.differences())
    counts = Counter(each["what"] for each in found)
    return {
        "day": wanted.days.first.isoformat(),
        "timezone": wanted.days.zone_name,
        "begins": wanted.days.begin,
        "ends": wanted.days.end,
        "ok": not found,
        "complete": set(day.theirs.listed.values()) == {"yes"} and not day.customers.unseen,
        "documents": len(day.documents),
        "waiting": sum(mine.state == "waiting" for mine in day.documents),
        "counts": {what: counts[what] for what in WHATS},
        "terminals": day.terminals(),
        "customers": day.customers.looked_at,
        "customers_unseen": day.customers.unseen,
        "listed": day.theirs.listed,
        "of_others": day.theirs.others,
        "made_online": day.theirs.online,
        "ignored": sorted(wanted.ignored),
        "differences": found,
    }


def facts(books: Books, result: Row) -> Row:
    """The same as the delivery book keeps it: the first differences by name, and which journal it was."""
    seq, digest = log.head(books.journal)
    kept = {"differences": result["differences"][:KEPT], "other_book": {"entries": seq, "head": digest.hex()}}
    return result | kept


def _plus(total: Decimal, more: Decimal | None) -> Decimal:
    return EXACT.add(total, more or Decimal(0))


def _text(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else None
