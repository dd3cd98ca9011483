"""
What Omneo has of a day: its lists gone through, single documents asked for, and what is in no book told apart.

Omneo's lists hold other stores' rows too. A sale is ours that bears our witness, or bears none and is from a location
of ours; a reversal or return that undoes a redemption of ours; and what bears a reference and belongs to a sale of ours
or is from a location of ours. What a till has done online by itself bears none, and is only counted.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from forwarder import compare, omneo, ours, outcome, witness
from forwarder.asking import Asking, Listing, not_now, redemptions_between, sales_between, sales_named
from forwarder.ours import Accepted, Ours
from journal.day import Days

Row = dict[str, Any]
KEPT = ("id", "external_id", "type", "linked_source_id", "total", "currency")
TYPES = {"redeem": ("redemption",), "reversal": ("reversal",), "return": ("return", "reversal")}


@dataclass(slots=True)
class Theirs:
    """What was heard; each document of ours gets the rows that are of it."""

    asking: Asking
    db: sqlite3.Connection  # both books, with the views
    days: Days
    identity: str  # of our journal
    named: frozenset[str]  # locations, by any of their names; empty: those of our own sales at Omneo
    places: set[str] = field(default_factory=set)  # those, by Omneo's ids
    strangers: list[tuple[str, Row]] = field(default_factory=list)  # ours by all appearances, and in no book: with kind
    doubles: dict[int, tuple[Accepted, str, set[str]]] = field(default_factory=dict)  # of documents of other days
    others: int = 0  # rows of other stores, or of nobody we know
    online: int = 0  # redemptions at a location of ours that no document names
    listed: dict[str, str] = field(default_factory=dict)

    # -- sales ------------------------------------------------------------------------------------------------------

    def sales(self, mine: Iterable[Ours]) -> None:
        """Omneo's list of the day; then each of ours that was not in it, by its name."""
        by_name = {each.external_id: each for each in mine}
        # By the shop's clock, or in UTC: it isn't known how Omneo keeps the time of a sale (omneo-api, 2.9).
        begin = min(f"{self.days.first} 00:00:00", _utc(self.days.begin))
        end = max(f"{self.days.last + timedelta(days=1)} 00:00:00", _utc(self.days.end))
        listing = Listing(self.asking, lambda page: sales_between(begin, end, page))
        strays: dict[str, Row] = {}
        for row in listing:
            name, number = row.get("external_id"), str(row.get("id"))
            if (known := by_name.get(str(name))) is not None and name is not None:
                known.rows[number] = compare.kept(row)
                if known.omneo_id == number and (place := compare.place(row)) is not None:
                    self.places.add(place)
            elif not self._in_time(row.get("transacted_at")):
                continue
            elif self._somebody_elses(row):
                self.others += 1
            else:
                strays[number] = _stray(row)
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

    def _somebody_elses(self, row: Row) -> bool:
        """Most rows of a chain's list are other stores', and say so: only counted."""
        seen = witness.seen(row)
        return seen is not None and seen.journal != self.identity

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
        elif row["vouched"] or self._here(row):
            self.strangers.append(("sale", row))
        else:
            self.others += 1

    def _in_time(self, at: Any) -> bool:
        """About these days, if it says when: a server may pass over a filter that it doesn't know, and show all."""
        when, day = outcome.moment(at), timedelta(days=1)
        return when is None or self.days.first - day <= when.date() <= self.days.last + day

    def _here(self, row: Row) -> bool:
        """Of a row as `_stray` keeps it: is it from a location that was named, else from one of our own sales'?"""
        return bool(row["names"] & self.named) if self.named else row["place"] in self.places

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
                told = {"external_id": omneo.reference(row), "of_sale": self._of_a_sale(row)}
                strays[number] = _stray(row) | told
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
        if omneo.is_redemption(answer, number):
            return answer.data
        if outcome.meaning(answer) != "missing":
            raise not_now(answer)  # it doesn't say that it isn't there
        return None

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
        if ours.is_named(self.db, number):
            return  # made online, and a document tells of it
        here = row["of_sale"] or self._here(row)
        if source in of_ours or (here and not nameless):
            self.strangers.append((TYPES.get(str(row["type"]), ("redemption",))[0], row))
        elif here:
            self.online += 1
        else:
            self.others += 1

    def _of_a_sale(self, row: Row) -> bool:
        """Does it belong to a sale of this journal?"""
        shown = row.get("transaction")
        names = {row.get("transaction_external_id"), shown.get("external_id") if isinstance(shown, dict) else None}
        found = [ours.accepted(self.db, str(name)) for name in names if name is not None]
        return any(each is not None and each.kind == "sale" for each in found)


def _stray(row: Row) -> Row:
    """What is kept of a row that may be anybody's: a chain's list is long."""
    places = {"place": compare.place(row), "names": compare.locations(row) or set()}
    return {name: row.get(name) for name in KEPT} | places | {"vouched": witness.seen(row) is not None}


def _utc(at: str) -> str:
    """A book's moment as Omneo writes `created_at`."""
    return datetime.fromisoformat(at).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
