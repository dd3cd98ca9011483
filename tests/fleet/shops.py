"""The stores of a fleet, many in a process: each with a till, an intake, a forwarder and a shipper of its own."""

import os
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from standin import Store, encode, quiet, sale
from tills import LIMIT

from forwarder.books import Books, create_delivery
from forwarder.errand import Policy
from forwarder.ledger import Ledger, check_url
from forwarder.link import Credentials, Link
from forwarder.link import check_url as omneo_url
from forwarder.replay import Replay, step
from forwarder.sandbox.customers import JANE
from forwarder.ship import Shipper, pause
from forwarder.wire import Wire
from journal import backup, ingest, log, restore
from journal.spool import Spool

KEY = b"the key that all stores of this chain share"
RUSH, IN_RUSH = 0.25, 0.6  # in the first quarter of the run come three fifths of its sales
BACKED_UP, DEED = 0.2, 0.45  # of the run
EVERY_S = 1.0  # between two shipments of a store
AT_A_TIME = 20  # documents that a store delivers before it is the next one's turn


@dataclass(frozen=True)
class Plan:
    """What one store is told before it opens."""

    name: str
    root: str
    omneo: str
    ledger: str
    sales: int
    seconds: float
    seed: int
    bad: str
    redeems: bool


class Shop:
    """One store, open."""

    def __init__(self, plan: Plan, began: float) -> None:
        self.plan, self.dice = plan, random.Random(plan.seed)
        self.root = Path(plan.root)
        fresh = not self.root.exists()
        self.root.mkdir(exist_ok=True)
        if fresh:
            Store(self.root)
            (self.root / "token").write_text("sandbox\n")
        self.db, self.delivery, self.spool = (self.root / name for name in ("journal.db", "delivery.db", "spool"))
        self.due = sorted(self._moments(began)) if fresh else []
        self.began, self.sold, self.lost = began, [], []
        self.deed_at = 0.0
        self.backed_up = plan.bad != "restored" or not fresh
        self.done = not plan.bad or not fresh
        self.omneo_at = self.ledger_at = 0.0
        self.failures = {"omneo": 0, "ledger": 0}
        self.settled = self.shipped = False
        self.redeemed = False
        self._open()

    def _moments(self, began: float) -> Iterator[float]:
        spread = self.plan.seconds
        for _ in range(self.plan.sales):
            rush = self.dice.random() < IN_RUSH
            yield began + spread * (self.dice.uniform(0, RUSH) if rush else self.dice.uniform(RUSH, 1))

    def _open(self) -> None:
        self.book = log.open_book(self.db, "journal", write=True)
        self.files = Spool(self.spool, LIMIT, lambda *_: None)
        if not self.delivery.exists():
            create_delivery(self.db, self.delivery)
        self.wire = Wire(10.0)
        books = Books(self.db, self.delivery)
        books.opened()
        link = Link(omneo_url(self.plan.omneo), Credentials(self.root / "token"), self.wire, rate=0, sleep=time.sleep)
        self.replay = Replay(books, link, Policy(), quiet)
        self.shipper = Shipper(self.db, self.delivery, Ledger(check_url(self.plan.ledger), 30), quiet, key=KEY)

    def close(self) -> None:
        self.replay.books.close()
        self.wire.close()
        self.shipper.ledger.close()
        self.book.close()

    # -- one round ----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """What is due now: sales, taking, delivering, shipping, and what a bad store does."""
        now = time.time()
        self._sell(now)
        if not self.backed_up and now > self.began + BACKED_UP * self.plan.seconds:
            backup.backup(self.db, self.delivery, self.root / "old")
            self.backed_up = True
        if now >= self.omneo_at:
            self._deliver(now)
        if now >= self.ledger_at:
            self._ship(now)
        if not self.done and now > self.began + DEED * self.plan.seconds and self.settled and self.shipped:
            self._deed()

    def _sell(self, now: float) -> None:
        ready = [moment for moment in self.due if moment <= now]
        if not ready:
            return
        self.due = self.due[len(ready) :]
        for _ in ready:
            number = len(self.sold)
            name = f"{self.plan.name}-{number:05d}"
            self._drop(name, sale(name, terminal="till-1", sequence=number + 1))
            self.sold.append(name)
        if not self.redeemed and now > self.began + 0.45 * self.plan.seconds and self.plan.redeems:
            self.redeemed = True  # the same customer, in several shops of the region that has no line to Omneo
            told = {"issued_at": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)), "timezone": "UTC"}
            worth = {"profile_id": JANE, "amount": 5, "strategies": ["rewards"], "currency": "AUD"}
            self._drop("r", {"kind": "redemption", "external_id": f"{self.plan.name}-R"} | told | worth)
        ingest.sweep(self.files, self.book, say=quiet)
        self.settled = self.shipped = False

    def _drop(self, name: str, content: dict[str, Any]) -> None:
        draft = self.spool / f".{name}"
        draft.write_bytes(encode(content))
        draft.rename(self.spool / f"{name}.json")

    def _deliver(self, now: float) -> None:
        for _ in range(AT_A_TIME):
            result = step(self.replay)
            if result is None:
                self.settled = not self.due or self.due[0] > now
                self.failures["omneo"] = 0
                break
            if not result.settles:
                self.failures["omneo"] += 1
                self.omneo_at = now + min(8.0, pause(self.failures["omneo"], lambda most: self.dice.uniform(0, most)))
                break
            self.failures["omneo"] = 0
        self.replay.books.flush()

    def _ship(self, now: float) -> None:
        self.ledger_at = now + EVERY_S * self.dice.uniform(0.9, 1.1)
        try:
            self.shipper.go()
        except (log.NotNow, log.Unusable):
            self.failures["ledger"] += 1
            self.ledger_at = now + min(8.0, pause(self.failures["ledger"], lambda most: self.dice.uniform(0, most)))
            return
        self.failures["ledger"] = 0
        self.shipped = self.settled

    def _deed(self) -> None:
        """A disk dies and an old backup takes its place; or somebody alters a sale that was shipped long ago."""
        self.done = True
        self.deed_at = time.time()
        if self.plan.bad == "tampered":
            with closing(sqlite3.connect(self.db, isolation_level=None)) as db:
                db.execute("DROP TRIGGER log_no_update")
                db.execute("UPDATE log SET facts = replace(facts, '19.95', '9.95') WHERE seq = 7")
            return
        self.close()
        restore.restore(self.root / "old", self.db, self.delivery, "the shop", "the disk died", anyway=True)
        self._open()
        self.settled = self.shipped = False
        kept = {row[0] for row in self.book.execute("SELECT external_id FROM log WHERE kind = 'sale'").fetchall()}
        self.lost = [name for name in self.sold if name not in kept]

    def over(self) -> bool:
        """Has everything happened, and is everything where it should be (or refused there)?"""
        found = self.plan.bad != "tampered" or self.shipper.altered  # by the next walk, which is every minute
        return bool(self.done and not self.due and self.settled and self.shipped and found)

    def told(self) -> dict[str, Any]:
        return {"name": self.plan.name, "sold": self.sold, "lost": self.lost, "deed_at": self.deed_at}


def work(plans: list[Plan], began: float) -> list[dict[str, Any]]:
    """One process's stores, each in turn, until all is done."""
    os.nice(5)
    shops = [Shop(plan, began) for plan in plans]
    time.sleep(max(0.0, began - time.time()))
    give_up = time.time() + (shops[0].plan.seconds if began else 0) * 6 + 300
    try:
        while not all(shop.over() for shop in shops):
            assert time.time() < give_up, [shop.plan.name for shop in shops if not shop.over()]
            for shop in shops:
                shop.round()
            time.sleep(0.05)
        return [shop.told() for shop in shops]
    finally:
        for shop in shops:
            with suppress(OSError, sqlite3.Error):
                shop.close()
