"""
The way to head office, killed: PostgreSQL, the shipper or the connection, at random points, again and again.

    python -m tests.fleet.kills [--points 1000] [--seed N] [--keep]

A journal and a delivery book grow; at each point something is shipped, and in the middle of it one of the three dies.
The connection is cut after a random number of bytes, in either direction, so also between a commit and the word of it.
Then it is shipped once more and left alone, and the ledger has to hold both books, each entry once, and sums to match.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

sys.path.append(str(Path(__file__).parents[1]))

import cluster

from forwarder.ledger import Ledger, check_url
from forwarder.ship import Shipper
from journal import log
from tests.fleet import scale
from tests.fleet.relay import Relay

WAYS = ("connection", "shipper", "server")
WEIGHTS = (75, 20, 5)


class Store:
    """Two books that grow, and what ought to be said of them."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.db, self.delivery, self.dice = root / "journal.db", root / "delivery.db", dice
        name = str(uuid.uuid4())
        log.create(self.db, "journal", {"journal": name})
        log.create(self.delivery, "delivery", {"journal": name, "unknown_upto": 0})
        self.sales = 0
        self.open: list[int] = []

    def grow(self) -> None:
        """Some sales come, some are delivered."""
        new = self.dice.choice([1, 1, 2, 5, 40, 400])
        facts = {"total": "1.50", "currency": "AUD", "terminal": "till-1", "bytes": 900}
        with closing(log.open_book(self.db, "journal", write=True)) as db:
            came = [log.Entry("sale", external_id=f"S-{self.sales + each}", facts=facts) for each in range(new)]
            log.append(db, came)
        self.sales += new
        self.open += [entry.seq for entry in came]
        gone = self.open[: self.dice.randrange(len(self.open) + 1)]
        self.open = self.open[len(gone) :]
        with closing(log.open_book(self.delivery, "delivery", write=True)) as db:
            log.append(db, [log.Entry("delivered", seq, None, {"omneo_id": seq}) for seq in gone])


class Yard:
    """One ledger, one store, and the ways to break what is between them."""

    def __init__(self, server: cluster.Cluster, place: Path, dice: random.Random) -> None:
        self.server, self.dice = server, dice
        self.owner = server.ledger("ledger")
        cluster.enrol(self.owner, "store")
        self.store = Store(place, dice)
        front = Path(tempfile.mkdtemp(dir=place))
        self.cut = Relay(str(front / ".s.PGSQL.5432"), str(server.root / ".s.PGSQL.5432"))
        self.near, self.through = server.url("store", "ledger"), f"postgresql://store@/ledger?host={front}"
        self.died: Counter[str] = Counter()
        self.batch_bytes, self.batch_s = 20_000, 0.05

    def shipper(self, url: str) -> Shipper:
        return Shipper(
            self.store.db,
            self.store.delivery,
            Ledger(check_url(url), 20),
            lambda *_, **__: None,
            batch=self.dice.choice([7, 100, 5000]),
        )

    def ship(self, url: str) -> bool:
        shipper = self.shipper(url)
        try:
            return shipper.go()
        finally:
            shipper.ledger.close()

    def point(self, way: str) -> None:
        """Something dies while something is shipped."""
        self.store.grow()
        getattr(self, f"_{way}")()
        self.died[way] += 1

    def _connection(self) -> None:
        self.cut.passed, self.cut.left = 0, self.dice.randrange(self.batch_bytes)
        with suppress(log.NotNow, log.Unusable):
            self.ship(self.through)
            self.died["too late"] += 1
        self.batch_bytes = max(2000, (4 * self.batch_bytes + int(1.2 * self.cut.passed)) // 5)
        self.cut.left = None

    def _shipper(self) -> None:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                self.ship(self.near)
            os._exit(0)
        time.sleep(self.dice.uniform(0, self.batch_s))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == 0:
            self.died["too late"] += 1

    def _server(self) -> None:
        running = threading.Thread(target=self._quietly, args=(self.near,))
        began = time.monotonic()
        running.start()
        time.sleep(self.dice.uniform(0, self.batch_s))
        self.server.crash()
        running.join()
        self.batch_s = (4 * self.batch_s + min(0.2, time.monotonic() - began)) / 5
        self.server.start()

    def _quietly(self, url: str) -> None:
        with suppress(log.NotNow, log.Unusable):
            self.ship(url)

    def judge(self, *, whole: bool) -> list[str]:
        """Ship what is left, undisturbed; what is wrong with what is there."""
        wrong = [] if self.ship(self.near) else ["the ledger refuses"]
        with psycopg.connect(self.owner) as db:
            ask = lambda query: db.execute(query).fetchall()  # noqa: E731
            for book, path in (("journal", self.store.db), ("delivery", self.store.delivery)):
                with closing(log.open_book(path, book, write=False)) as here:
                    head = log.head(here)
                    rows = here.execute("SELECT seq, digest FROM log ORDER BY seq").fetchall() if whole else []
                there = ask(f"SELECT seq, digest FROM ledger.current WHERE book = '{book}'")
                count = ask(
                    "SELECT count(*), max(e.seq) FROM ledger.entry AS e JOIN ledger.current AS c ON c.chain = e.chain"
                    f" WHERE c.book = '{book}'"
                )
                if there != [head] or count != [(head[0], head[0])]:
                    wrong.append(f"{book}: {head[0]} entries here, {there[0][0]} there, in {count} rows")
                if (
                    whole
                    and ask(
                        "SELECT e.seq, e.digest FROM ledger.entry AS e JOIN ledger.current AS c ON c.chain = e.chain"
                        f" WHERE c.book = '{book}' ORDER BY e.seq"
                    )
                    != rows
                ):
                    wrong.append(f"{book}: entries differ")
            if ask("SELECT seq FROM ledger.waiting ORDER BY seq") != [(seq,) for seq in self.store.open]:
                wrong.append("what waits is not what waits")
            if ask("SELECT coalesce(sum(sales), 0)::int FROM ledger.day") != [(self.store.sales,)]:
                wrong.append("the days' sums are not the sales")
            wrong += [f"finding: {row}" for row in ask("SELECT what, seq FROM ledger.finding")]
        return wrong


@contextmanager
def yard(seed: int) -> Iterator[Yard]:
    with (
        tempfile.TemporaryDirectory(prefix="omneo-kills-", dir=cluster.scratch()) as place,
        cluster.running() as server,
    ):
        made = Yard(server, Path(place), random.Random(seed))
        yield made
        made.cut.down()


def campaign(points: int, seed: int, say: Any = print) -> Counter[str]:
    """So many points; raises AssertionError for the first after which something is wrong."""
    with yard(seed) as here:
        for number in range(1, points + 1):
            way = here.dice.choices(WAYS, WEIGHTS)[0]
            here.point(way)
            wrong = here.judge(whole=number % 50 == 0 or number == points)
            assert not wrong, f"seed {seed}, point {number} ({way}): {'; '.join(wrong)}"
            if number % 100 == 0:
                say(f"{number} points: {dict(here.died)}; {here.store.sales:,} sales", flush=True)
        return here.died


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="the figures, for docs/scale.md")
    given = parser.parse_args()
    print(f"seed {given.seed}")
    died = campaign(given.points, given.seed)
    print(f"{given.points} points, nothing lost, nothing doubled: {dict(died)}")
    if given.keep:
        scale.keep("kills", {"points": given.points, "seed": given.seed, "died": dict(died)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
