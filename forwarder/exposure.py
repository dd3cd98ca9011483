"""
What the tills have granted and Omneo does not know of yet: redemptions that wait or are held, and what they are worth.

A customer who redeems at two tills while the line is down may spend the same reward twice; nobody else sees that in
time. Looks once at everything, then only at what was written since, so that it may be asked every few seconds.
"""

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from forwarder.books import SETTLED
from journal import log
from journal.document import NotJSON, parse

PIECE = 20_000  # entries looked at at a time: a reader that holds a book for longer keeps its writer waiting
OPEN = {"waiting", "held"}


@dataclass(slots=True)
class Granted:
    """A redemption that Omneo does not have, as far as the books know."""

    external_id: str
    terminal: str | None
    amount: Decimal | None  # None: a benefit, which has no value of its own
    currency: str
    customer: tuple[str, str] | None  # only compared, never shown; None: its bytes are gone
    state: str = "waiting"


class Exposure:
    """The redemptions that are open, and how far both books were read for them."""

    def __init__(self) -> None:
        self._open: dict[int, Granted] = {}
        self._journal_upto = self._delivery_upto = 0
        self._begun = False

    def look(self, books: sqlite3.Connection, settled_upto: int, held: int) -> dict[str, Any]:
        """The figures now. `books`: both, with the views; `held`: how many documents are."""
        upto = log.head(books, "delivery")[0]
        if not self._begun:
            self._journal_upto, self._delivery_upto, self._begun = settled_upto, upto, True
            for seq in _left_behind(books, upto, held):
                self._add_one(books, seq)
        new = self._read_journal(books)
        self._read_delivery(books, upto)
        for seq in new:  # what was said of them before this look
            self._word(books, seq)
        return self._figures(books)

    def _read_journal(self, books: sqlite3.Connection) -> list[int]:
        last, new = log.head(books)[0], []
        while self._journal_upto < last:
            high = min(self._journal_upto + PIECE, last)
            query = "SELECT seq FROM main.log WHERE seq > ? AND seq <= ? AND kind = 'redemption' AND about IS NULL"
            found = [seq for (seq,) in books.execute(query, (self._journal_upto, high)).fetchall()]
            for seq in found:
                self._add_one(books, seq)
            new += found
            self._journal_upto = high
        return new

    def _read_delivery(self, books: sqlite3.Connection, upto: int) -> None:
        """What was said of open ones since the last look; one that is released may have been unknown to us."""
        kinds = ", ".join(f"'{kind}'" for kind in (*SETTLED, "released"))
        while self._delivery_upto < upto:
            low, high = self._delivery_upto, min(self._delivery_upto + PIECE, upto)
            query = (
                f"SELECT about, kind FROM delivery.log WHERE seq > ? AND seq <= ? AND kind IN ({kinds}) ORDER BY seq"
            )
            for about, kind in books.execute(query, (low, high)).fetchall():
                if about not in self._open and kind in {"held", "released"}:
                    self._add_one(books, about)
                self._settle(about, "waiting" if kind == "released" else kind)
            self._delivery_upto = high

    def _word(self, books: sqlite3.Connection, seq: int) -> None:
        row = books.execute("SELECT state FROM documents WHERE seq = ?", (seq,)).fetchone()
        self._settle(seq, row[0])

    def _settle(self, seq: int, state: str) -> None:
        if state not in OPEN:
            self._open.pop(seq, None)
        elif seq in self._open:
            self._open[seq].state = state

    def _add_one(self, books: sqlite3.Connection, seq: int) -> None:
        row = books.execute(
            "SELECT kind, external_id, facts, state, (SELECT bytes FROM main.body WHERE body.seq = documents.seq)"
            " FROM documents WHERE seq = ?",
            (seq,),
        ).fetchone()
        if row is None or row[0] != "redemption" or row[3] not in OPEN:
            return
        facts = json.loads(row[2])
        amount = Decimal(facts["amount"]) if "amount" in facts else None
        self._open[seq] = Granted(
            row[1], facts.get("terminal"), amount, facts.get("currency", ""), _customer(row[4]), row[3]
        )

    def _figures(self, books: sqlite3.Connection) -> dict[str, Any]:
        granted = [one for one in self._open.values() if not _taken_back(books, one)]
        by_customer: defaultdict[tuple[str, str], list[Granted]] = defaultdict(list)
        for one in granted:
            if one.customer is not None:
                by_customer[one.customer].append(one)
        return {
            "redemptions": len(granted),
            "held": sum(one.state == "held" for one in granted),
            "value": _value(granted),
            "without_value": sum(one.amount is None for one in granted),
            "two_tills": [
                {"redemptions": [one.external_id for one in same], "value": _value(same)}
                for same in by_customer.values()
                if len(same) > 1 and not _one_till(same)
            ],
        }


def _one_till(granted: list[Granted]) -> bool:
    """Are they all of one till, as far as they say so?"""
    terminals = {one.terminal for one in granted}
    return len(terminals) == 1 and None not in terminals


def _value(granted: list[Granted]) -> dict[str, Decimal]:
    """Sums by currency; where a till names none, under an empty name."""
    sums: dict[str, Decimal] = {}
    for one in granted:
        if one.amount is not None:
            sums[one.currency] = sums.get(one.currency, Decimal(0)) + one.amount
    return sums


def _customer(body: bytes | None) -> tuple[str, str] | None:
    """Whose it is, as the till wrote it: two handles of one person are two customers here."""
    try:
        content = parse(body) if body is not None else None
    except NotJSON:
        content = None
    if not isinstance(content, dict) or "profile_id" not in content:
        return None
    return str(content.get("profile_id_handle") or ""), str(content["profile_id"]).casefold()


def _taken_back(books: sqlite3.Connection, one: Granted) -> bool:
    """Has the till reversed it itself? Then the customer hasn't had the value."""
    query = "SELECT 1 FROM main.log WHERE json_extract(facts, '$.names') = ? AND kind = 'reversal' LIMIT 1"
    return books.execute(query, (f"external:{one.external_id}",)).fetchone() is not None


def _left_behind(books: sqlite3.Connection, upto: int, held: int) -> set[int]:
    """What may be open before the position: only what was once held can be held now, or wait again."""
    once = {about for (about,) in books.execute("SELECT about FROM delivery.log WHERE kind = 'released'").fetchall()}
    for low in range(1, upto + 1, PIECE) if held else ():
        query = "SELECT about FROM delivery.log WHERE seq BETWEEN ? AND ? AND kind = 'held' AND about IS NOT NULL"
        once.update(about for (about,) in books.execute(query, (low, low + PIECE - 1)).fetchall())
    return once
