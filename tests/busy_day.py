"""
A shop's whole day, made through the real code in some seconds: three tills, about 400 sales, redemptions, two outages.

`PYTHONPATH=.:tests python tests/busy_day.py DIR` leaves both books in DIR, to look at with `report` and `browse`.
"""

import os
import random
import sys
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

from redeeming import Box, Counter
from standin import Omneo, Store

from forwarder import line
from forwarder.sandbox.customers import WEI
from forwarder.sandbox.serve import running
from forwarder.window import Instant
from journal import log, story

ZONE = ZoneInfo("Australia/Melbourne")
DAY = datetime(2025, 6, 16, tzinfo=ZONE)
PERSONAL = {"name": "Zelda Quillfeather", "email": "wei@example.com"}
DOWN, PAUSED = (10 * 60 + 41, 11 * 60 + 23), (15 * 60 + 8, 15 * 60 + 31)  # minutes of the day


def at(minute: float) -> datetime:
    return DAY + timedelta(minutes=minute)


OPENS = at(8 * 60 + 40)


@dataclass
class Clockwork(Box):
    """Every clock stands still unless the day says otherwise; Omneo's goes with it."""

    moment: datetime = OPENS

    def now(self) -> datetime:
        return self.moment

    def facts(self) -> dict[str, Any]:
        return {"boot": "a-boot", "since_boot_s": 5000 + (self.moment - DAY).total_seconds()}

    def instant(self) -> Instant:
        return Instant(**self.facts(), wall=self.moment)

    def passes(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.omneo.control("/clock", offset_s=(self.moment - log.utc_now()).total_seconds())

    def reaches(self, moment: datetime) -> None:
        self.passes(max(0.0, (moment - self.moment).total_seconds()))


@dataclass
class Shop:
    """The day as it is made."""

    counter: Counter
    box: Clockwork
    dice: random.Random
    sequence: dict[str, int] = field(default_factory=lambda: {"till-1": 4120, "till-2": 880, "till-3": 17})
    kept: list[dict[str, Any]] = field(default_factory=list)  # copied out of a till late

    def till(self) -> dict[str, Any]:
        name = self.dice.choices(["till-1", "till-2", "till-3"], [5, 4, 2])[0]
        self.sequence[name] += 1
        return {"terminal": name, "sequence": self.sequence[name]}

    def sale(self, **fields: Any) -> dict[str, Any]:
        till = self.till()
        price = Decimal(self.dice.randrange(995, 24995, 5)) / 100
        number = f"{till['terminal'].replace('till-', '')}-{till['sequence']:05d}"
        return (
            {
                "kind": "sale",
                "external_id": f"S-{number}",
                "total": price,
                "currency": "NZD" if self.dice.random() < 0.04 else "AUD",
                "transacted_at": self.box.said(),
                "timezone": ZONE.key,
                "receipt_ref": number,
                "items": [{"name": "Shirt", "quantity": 1, "price_current": price, "price_sell": price}],
            }
            | till
            | self._customer(till["sequence"])
            | fields
        )

    def _customer(self, number: int) -> dict[str, Any]:
        """One customer comes again and again."""
        known = {"profile_id": PERSONAL["email"], "profile_id_handle": "email", "meta": {"name": PERSONAL["name"]}}
        return known if number % 97 == 50 else {}

    def redemption(self, number: int, amount: int) -> dict[str, Any]:
        worth = {"amount": Decimal(amount), "strategies": ["rewards"], "profile_id": WEI}
        return self.counter.redemption(f"R-{number:04d}", **worth, currency="AUD", **self.till())

    def reversal(self, number: int) -> dict[str, Any]:
        named = {"redemption_external_id": f"R-{number:04d}"}
        return self.counter.reversal(f"V-{number:04d}", **named, **self.till())

    def drop(self, *documents: dict[str, Any] | bytes) -> None:
        self.counter.store.take(*documents)

    def deliver(self) -> None:
        """The forwarder does what it can; a request takes its time."""
        for _ in range(600):
            run = self.counter.open()
            self.box.passes(self.dice.lognormvariate(-1.4, 0.8))
            outcome = _step(self.counter)
            if outcome is None or not outcome.settles:
                run.line.settle()
                break
        self.counter.open().books.flush()


def _step(counter: Counter) -> Any:
    from forwarder.replay import step

    return step(counter.open())


def moments(dice: random.Random, sales: int) -> list[float]:
    """Minutes of the day at which somebody pays: few in the morning, most at noon and after work."""
    peaks = [(12.6 * 60, 55), (16.9 * 60, 45), (10.5 * 60, 80), (14.5 * 60, 90)]
    found: list[float] = []
    while len(found) < sales:
        middle, width = dice.choices(peaks, [4, 4, 2, 2])[0]
        minute = dice.gauss(middle, width)
        if 9 * 60 <= minute <= 17 * 60 + 55:
            found.append(minute)
    return sorted(found)


def busy_day(root: Path, omneo: Omneo, token: Path, sales: int = 400, seed: int = 7) -> Store:
    """Both books of the day; afterwards a few documents still wait."""
    dice = random.Random(seed)
    store = Store(root)
    counter = Counter(store, omneo, token)
    box = Clockwork(omneo)
    counter.box, store.now = box, box.now
    box.passes(0)
    shop = Shop(counter, box, dice)
    with mock.patch.object(line, "boot_facts", box.facts):
        plan = [(minute, "sale") for minute in moments(dice, sales)]
        plan += [(9.2 * 60 + 23 * n, "redemption") for n in range(19)] + [(10 * 60 + 58, "pair")]
        plan += [(DOWN[0], "down"), (DOWN[1], "up"), (PAUSED[0], "paused"), (PAUSED[1], "up")]
        plan += [(9.9 * 60, "reversal"), (12.1 * 60, "reversal"), (14.3 * 60, "late reversal")]
        plan += [(9.6 * 60, "broken"), (13.3 * 60, "conflict"), (13.9 * 60, "gap"), (16.4 * 60, "late file")]
        plan += [(float(minute), "refused") for minute in (11 * 60 + 50, 14 * 60 + 2, 17 * 60 + 11)]
        plan += [(16.1 * 60, "repeat"), (17.6 * 60, "decide")]
        for minute, what in sorted(plan):
            box.reaches(at(minute))
            _happens(shop, what)
    counter.close()
    box.reaches(at(18 * 60 + 2))
    shop.drop(*(shop.sale() for _ in range(3)))  # the forwarder has been stopped
    omneo.mend()
    return store


def _happens(shop: Shop, what: str) -> None:
    """One moment of the day."""
    match what:
        case "sale":
            shop.drop(shop.sale())
        case "redemption":
            shop.drop(shop.redemption(int((shop.box.now() - DAY).total_seconds() // 60), shop.dice.choice([5, 10, 20])))
        case "pair":  # both come while nothing can go: neither ever does
            shop.drop(shop.redemption(9001, 10), shop.reversal(9001))
        case "reversal" | "late reversal":
            number = 9100 + int((shop.box.now() - DAY).total_seconds() // 60)
            shop.drop(shop.redemption(number, 10))
            shop.deliver()
            shop.box.passes(140 if what == "reversal" else 1500)
            shop.drop(shop.reversal(number))
        case "broken":
            shop.drop(b'{"kind": "sale", "external_id": "S-broken", "total": "a lot"}')
        case "conflict" | "repeat":
            with story.both_books(shop.counter.store.db, shop.counter.store.delivery) as books:
                rows = list(story.documents(books, kind="sale"))
                body = story.show(books, rows[len(rows) // 2]["external_id"])["body"]
            shop.drop(body | ({"total": body["total"] + 1} if what == "conflict" else {}))
        case "gap":
            shop.sequence["till-2"] += 2  # two receipts that never come
            kept = shop.sale()
            shop.kept = [kept]  # and one that comes late
        case "late file":
            shop.drop(*shop.kept)
        case "refused":
            sale = shop.sale()
            shop.counter.omneo.fault("status", code=422, contains=sale["external_id"], method="POST")
            shop.drop(sale)
        case "down":
            shop.counter.omneo.fault("drop_before")
        case "paused":
            shop.counter.omneo.fault("unauthorized")
        case "up":
            shop.counter.omneo.mend()
        case "decide":
            _decide(shop.counter.store)
    shop.deliver()


def _decide(store: Store) -> None:
    """Somebody looks at the flags before the shop closes."""
    with story.both_books(store.db, store.delivery) as books:
        opened = [row["id"] for row in story.flags(books) if row["flag"] in {"conflict", "invalid"}]
        entries = [story.resolution(books, each, "Ana", "keyed in again at till-1") for each in opened]
    with closing(log.open_book(store.db, "journal", write=True)) as book:
        log.append(book, entries, now=store.now)


def main(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    token = root / "token"
    token.write_text("sandbox\n")
    with running() as server:
        omneo = Omneo(server)
        store = busy_day(root, omneo, token)
        omneo.desk.close()
    store.verified()
    print(os.fspath(store.db))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
