"""
What Omneo has of a day: its lists gone through, single documents asked for, and what is in no book told apart.

Omneo's lists hold other stores' rows too. A sale is ours that bears our witness, or bears none and is from a location
of ours; a redemption, reversal or return that belongs to a sale or redemption of ours, or bears a reference and is from
a location of ours. What a till has redeemed online by itself bears none, and is only counted.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from forwarder import compare, omneo, ours, outcome, witness
from forwarder.asking import Asking, Listing, redemptions_between, sales_between, sales_named
from forwarder.ours import Accepted, Ours
from journal.day import Days

Row = dict[str, Any]
KEPT = ("id", "type", "linked_source_id", "total", "currency")  # of what may be another store's: the list may be long
TYPES = {"redeem": ("redemption",), "reversal": ("reversal",), "return": ("return", "reversal")}


@dataclass(slots=True)
class Theirs:
    """What was heard; each document of ours gets the rows that are of it."""

    asking: Asking
    db: sqlite3.Connection  # both books, with the views
    days: Days
    identity: str  # of our journal
    locations: frozenset[str]
    strangers: list[tuple[str, Row]] = field(default_factory=list)  # ours by all appearances, and in no book: with kind
    doubles: dict[int, tuple[Accepted, str, set[str]]] = field(default_factory=dict)  # of documents of other days
    others: int = 0  # rows of other stores, or of nobody we know
    online: int = 0  # redemptions at a location of ours that no document names
    listed: dict[str, str] = field(default_factory=dict)

    # -- sales ------------------------------------------------------------------------------------------------------

    def sales(self, mine: Iterable[Ours]) -> None:
        """Omneo's list of the day; then each of ours that was not in it, by its name."""
        by_name = {each.external_id: each for each in mine}
        begin, end = self.days.first, self.days.last + timedelta(days=1)
        listing = Listing(self.asking, lambda page: sales_between(f"{begin} 00:00:00", f"{end} 00:00:00", page))
        strays: dict[str, Row] = {}
        for row in listing:
            name, number = row.get("external_id"), str(row.get("id"))
            if (known := by_name.get(str(name))) is not None and name is not None:
                known.rows[number] = compare.kept(row)
            elif self._in_time(row.get("transacted_at")) and self._stray(row):
                strays[number] = compare.kept(row)
        self.listed["sales"] = listing.shown
        for number, row in strays.items():
            self._in_no_days_books(number, row)
        for each in by_name.values():
            if not each.rows:
                self.look_for(each)

    def look_for(self, mine: Ours) -> None:
        """One document by its name, or by Omneo's id of it. None of these looks proves anything alone."""
        if mine.kind == "sale":
            answer = self.asking.ask(sales_named(mine.external_id))
            found = answer.rows if outcome.meaning(answer) == "yes" else []
            found = [row for row in found if omneo.echoes(row, mine.external_id)]
            if not found and (row := self.asking.sale(mine.external_id)) is not None:
                found = [row]
        elif mine.omneo_id is not None:
            row = self._redemption(mine.omneo_id)
            found = [row] if row is not None else []
        else:
            found = []
        mine.rows |= {str(row["id"]): compare.kept(row) for row in found}

    def _stray(self, row: Row) -> bool:
        """Is a sale that is not one of the day's documents to be looked into? Most are other stores': only counted."""
        seen, name = witness.seen(row), row.get("external_id")
        ours_ = self._here(row) if seen is None else seen.journal == self.identity
        if ours_ or (seen is None and name is not None and ours.accepted(self.db, str(name)) is not None):
            return True
        self.others += 1
        return False

    def _in_no_days_books(self, number: str, row: Row) -> None:
        """A sale at Omneo that did not come on the day: of another day, a double of one, or in no book at all."""
        name = row.get("external_id")
        known = None if name is None else ours.accepted(self.db, str(name))
        if known is not None and known.kind == "sale":
            if known.state == "delivered" and known.omneo_id != number:
                answer = self.asking.ask(sales_named(str(name)))
                ids = {str(each.get("id")) for each in answer.rows if omneo.echoes(each, str(name))}
                if known.omneo_id in ids:
                    self.doubles[known.seq] = (known, str(name), ids)
        elif witness.seen(row) is not None or self._here(row):
            self.strangers.append(("sale", row))

    def _in_time(self, at: Any) -> bool:
        """About these days, if it says when: a server may pass over a filter that it doesn't know, and show all."""
        when, day = outcome.moment(at), timedelta(days=1)
        return when is None or self.days.first - day <= when.date() <= self.days.last + day

    def _here(self, row: Row) -> bool:
        return bool((compare.locations(row) or set()) & self.locations)

    # -- redemptions, reversals, returns ----------------------------------------------------------------------------

    def redemptions(self, mine: Iterable[Ours]) -> None:
        """The same of what Omneo made on the day, by its own clock; then each of ours that was not among it, by id."""
        by_id, by_name = defaultdict(list), {}
        for each in mine:
            by_name[each.external_id] = each
            if each.omneo_id is not None:
                by_id[each.omneo_id].append(each)
        begin, end = (_utc(at) for at in (self.days.begin, self.days.end))
        listing = Listing(self.asking, lambda page: redemptions_between(begin, end, page))
        strays: dict[str, Row] = {}
        for row in listing:
            number = str(row.get("id"))
            named = by_name.get(str(omneo.reference(row)))
            known = by_id.get(number) or ([named] if named is not None and row.get("type") in named.types else [])
            for each in known:
                each.rows[number] = compare.kept(row)
            if not known and self._in_time(row.get("created_at")):
                told = {"external_id": omneo.reference(row), "here": self._here(row), "of_sale": self._of_a_sale(row)}
                strays[number] = {name: row.get(name) for name in KEPT} | told
        self.listed["redemptions"] = listing.shown
        for each in by_name.values():
            if not each.rows and each.omneo_id is not None:
                self.look_for(each)
        self.asking.first()  # what was on its way while Omneo made the list is written down then
        nameless = {number: row for number, row in strays.items() if not self._of_another_day(number, row)}
        of_ours = {*by_id, *ours.recorded(self.db, self._to_look_up(nameless))}
        for number, row in nameless.items():
            if number not in of_ours:
                self._unknown(number, row, of_ours)

    def _redemption(self, number: str) -> Row | None:
        answer = self.asking.ask(omneo.read_redemption(number))
        return answer.data if omneo.is_redemption(answer, number) else None

    def _of_another_day(self, number: str, row: Row) -> bool:
        """Does it bear the name of a document of another day? Then it is that one's, or its double."""
        name = omneo.reference(row)
        known = None if name is None else ours.accepted(self.db, name)
        if known is None or known.kind not in TYPES.get(str(row.get("type")), ()):
            return False
        if known.state != "delivered" or known.omneo_id in {None, number}:
            return True
        if known.seq in self.doubles or self._redemption(str(known.omneo_id)) is not None:
            ids = self.doubles.get(known.seq, (known, str(name), {str(known.omneo_id)}))[2]
            self.doubles[known.seq] = (known, str(name), ids | {number})
        return True

    @staticmethod
    def _to_look_up(rows: dict[str, Row]) -> set[str]:
        sources = {str(row["linked_source_id"]) for row in rows.values() if row.get("linked_source_id") is not None}
        return {*rows, *sources}

    def _unknown(self, number: str, row: Row, of_ours: set[str]) -> None:
        """No document bears its name, and the delivery book does not know its id."""
        nameless, source = row["external_id"] is None, str(row["linked_source_id"])
        online = nameless and row["type"] == "redeem"
        if ours.is_named(self.db, number):
            return  # made online, and a document tells of it
        if source in of_ours or (not online and (row["of_sale"] or (row["here"] and not nameless))):
            self.strangers.append((TYPES.get(str(row["type"]), ("redemption",))[0], row))
        elif online and (row["here"] or row["of_sale"]):
            self.online += 1
        else:
            self.others += 1

    def _of_a_sale(self, row: Row) -> bool:
        """Does it belong to a sale of this journal?"""
        shown = row.get("transaction")
        names = {row.get("transaction_external_id"), shown.get("external_id") if isinstance(shown, dict) else None}
        found = [ours.accepted(self.db, str(name)) for name in names if name is not None]
        return any(each is not None and each.kind == "sale" for each in found)


def _utc(at: str) -> str:
    """A book's moment as Omneo writes `created_at`."""
    return datetime.fromisoformat(at).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
