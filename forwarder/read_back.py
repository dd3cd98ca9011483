"""
What Omneo holds of this journal, read back and compared. Changes nothing, here or there.

The books are not believed about what there is to be found: a sale that the journal has lost is in no book, so Omneo's
own list of the days is gone through too.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

from forwarder import witness
from forwarder.asking import SETTLE_S, Asking, Listing, Rest, sales_between
from forwarder.link import Link
from forwarder.witness import Problem, Seen
from journal import log, story
from journal.day import Days, between
from journal.verify import verify

NEWEST = 10  # of a sample: they vouch for all the others
NARROW = 64  # questions that find the place of a difference: each halves what is left
EVER = date(1970, 1, 2)  # before any sale

Period = tuple[str, str | None]


@dataclass(slots=True)
class Heard:
    """What Omneo said, and the way to ask it."""

    asking: Asking
    seen: set[Seen] = field(default_factory=set)  # what sales bear witness of
    bare: set[str] = field(default_factory=set)  # sales that bear none, by external_id
    absent: dict[str, int] = field(default_factory=dict)  # sales that it does not have, and their entries
    known: set[str] = field(default_factory=set)  # all of these
    others: int = 0  # sales of other journals in its list
    listed: str = "no"  # was its list gone through? "yes", "no", or only its "beginning"

    def ask_for(self, name: str, seq: int) -> None:
        """One sale by its external_id."""
        row = self.asking.sale(name)
        if row is not None:
            self._take(name, row)
        else:
            self.known.add(name)
            self.absent[name] = seq

    def go_through(self, when: Period, ours: str, chosen: Mapping[str, int]) -> None:
        """Omneo's list of a period: what bears witness of this journal, and what was to be asked for anyway."""
        listing = Listing(self.asking, lambda page: sales_between(*when, page))
        for row in listing:
            name, found = str(row.get("external_id")), witness.seen(row)
            if (found is not None and found.journal == ours) or (name in chosen and "meta" in row):
                self._take(name, row)
            elif found is not None:
                self.others += 1  # another store's, most likely
        self.listed = listing.shown

    def _take(self, name: str, row: dict[str, Any]) -> None:
        """A sale as Omneo shows it."""
        found = witness.seen(row)
        self.known.add(name)
        if found is None:
            self.bare.add(name)
        else:
            self.seen.add(found)


def examine(
    journal: Path, delivery: Path, link: Link, which: Days | int, *, dice: Random, rest: Rest
) -> dict[str, Any]:
    """
    Sales of some days, or so many at random, as `omneo-forwarder witness --json` tells of them.

    Both books are walked as `verify` does it, after Omneo has answered: what it knows, the journal had before.
    Raises log.NotNow and log.Unusable when Omneo can't be asked.
    """
    heard = Heard(Asking(link, rest))
    heard.asking.known_there()
    with story.both_books(journal, delivery) as books:
        db = books.conn
        chosen = dict(of_days(db, which) if isinstance(which, Days) else sample(db, which, dice))
        heard.go_through(period(db, which), witness.identity(db), chosen)
        for name, seq in chosen.items():
            if name not in heard.known:
                heard.ask_for(name, seq)
        narrow(db, heard)
        missing = delivered(db, heard.absent)
        if missing:  # it may have gone out meanwhile, or show only now
            rest(SETTLE_S)
            for name, seq in missing.items():
                del heard.absent[name]
                heard.ask_for(name, seq)
            missing = delivered(db, heard.absent)
        compared = witness.compare(db, heard.seen)
        walked = verify(journal, delivery)
        problems = [*witness.problems(db, compared), *map(_missing, missing.items()), *walked["problems"]]
    return {
        "ok": not problems,
        "agreeing": len(compared.agreeing),
        "differing": [{"seq": each.seq, "external_id": each.external_id} for each in compared.differing],
        "without_witness": len(heard.bare),
        "missing": len(missing),
        "not_delivered": len(heard.absent) - len(missing),
        "of_other_journals": heard.others,
        "listed": heard.listed,
        "vouched": compared.vouched,
        "entries": walked["entries"],
        "problems": problems,
    }


# -- which sales


def of_days(db: sqlite3.Connection, days: Days) -> Iterator[tuple[str, int]]:
    """External ids and entries of the sales that came in a period."""
    query = "SELECT external_id, seq FROM log WHERE seq BETWEEN ? AND ? AND kind = 'sale' AND at >= ? AND at < ?"
    for piece in between(db, "main", days.begin, days.end):
        yield from db.execute(query, (*piece, days.begin, days.end)).fetchall()


def sample(db: sqlite3.Connection, count: int, dice: Random) -> set[tuple[str, int]]:
    """The newest sales, and others that nobody can foresee."""
    newest = "SELECT external_id, seq FROM log WHERE kind = 'sale' ORDER BY seq DESC LIMIT ?"
    some = "SELECT external_id, seq FROM log WHERE kind = 'sale' AND seq >= ? ORDER BY seq LIMIT 1"
    found = set(db.execute(newest, (min(count, NEWEST),)).fetchall())
    last, tries = log.head(db)[0], 5 * count
    while len(found) < count and (tries := tries - 1):
        found |= set(db.execute(some, (dice.randint(1, last),)).fetchall())
    return found


def period(db: sqlite3.Connection, which: Days | int) -> Period:
    """What part of Omneo's list: these days', or, beside a sample, all since shortly before the journal's newest."""
    if isinstance(which, Days):
        return f"{which.first} 00:00:00", f"{which.last + timedelta(days=1)} 00:00:00"
    query = "SELECT at FROM log WHERE kind IN ('sale', 'created') ORDER BY seq DESC LIMIT 1"
    try:
        newest = date.fromisoformat(db.execute(query).fetchone()[0][:10])
    except (ValueError, TypeError):  # somebody has tampered with it: `verify` tells
        newest = EVER
    return f"{newest - timedelta(days=1)} 00:00:00", None


# -- what differs


def narrow(db: sqlite3.Connection, heard: Heard) -> None:
    """Where does a difference begin? Sales between the last that agrees and the first that doesn't are asked for."""
    after = "SELECT external_id, seq FROM log WHERE kind = 'sale' AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?"
    before = "SELECT external_id, seq FROM log WHERE kind = 'sale' AND seq < ? AND seq > ? ORDER BY seq DESC LIMIT ?"
    for _ in range(NARROW):
        compared = witness.compare(db, heard.seen)
        if not compared.rewritten:
            return
        low, high = compared.vouched, min(compared.rewritten[0].seq, log.head(db)[0] + 1)
        middle, most = (low + high) // 2, len(heard.known) + 1
        rows = db.execute(after, (middle, high, most)).fetchall() + db.execute(before, (middle, low, most)).fetchall()
        unknown = next((row for row in rows if row[0] not in heard.known), None)
        if unknown is None:
            return
        heard.ask_for(*unknown)


def delivered(db: sqlite3.Connection, absent: Mapping[str, int]) -> dict[str, int]:
    """What the delivery book says Omneo has, of what Omneo does not have."""
    query = "SELECT 1 FROM documents WHERE seq = ? AND state = 'delivered'"
    return {name: seq for name, seq in absent.items() if db.execute(query, (seq,)).fetchone()}


def _missing(sale: tuple[str, int]) -> Problem:
    name, seq = sale
    return witness.problem(seq, f"Omneo does not have the sale {name}, though the delivery book says so")


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    for problem in told["problems"]:
        yield f"{problem['book']} entry {problem['seq']}: {problem['what']}"
    differing = len(told["differing"])
    yield f"{told['agreeing'] + differing} sales at Omneo bear witness: {told['agreeing']} agree, {differing} differ."
    if told["without_witness"]:
        yield f"{told['without_witness']} bear none."
    if told["not_delivered"]:
        yield f"{told['not_delivered']} were not delivered, and Omneo does not have them."
    if told["of_other_journals"]:
        yield f"Omneo's list has {told['of_other_journals']} sales of other journals."
    if told["listed"] != "yes":
        part = "" if told["listed"] == "no" else "all of "
        yield f"Omneo did not show {part}its list: a sale that the journal has lost can't be noticed."
    if not told["ok"]:
        yield f"{len(told['problems'])} problems."
    elif told["vouched"]:
        yield f"Nothing was altered. Omneo vouches for the journal up to entry {told['vouched']} of {told['entries']}."
    else:
        yield "Nothing is proven: none of these sales bears witness."
