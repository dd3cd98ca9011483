"""
A chain of stores on one machine: real journals, forwarders and shippers in a few processes, a PostgreSQL, a sandbox.

    python -m tests.fleet [--stores 200] [--sales 60] [--seconds 120] [--processes 6] [--seed N] [--page FILE] [--keep]

The morning's rush, two regions without a line (one to Omneo only, one to everything), two stores restored from old
backups, and one that is tampered with. At the end head office accepts the two restores, by what the ledger has found
and by nothing else, and a table says whether every sale is at Omneo and in the ledger exactly once, and whether the
bad three were found.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psycopg

sys.path.append(str(Path(__file__).parents[1]))

import cluster
from psycopg.rows import dict_row
from standin import command

from forwarder import headoffice_page
from forwarder.sandbox.app import CONTROL
from tests.fleet import scale
from tests.fleet.relay import Relay
from tests.fleet.shops import Plan, work

REGIONS = ("Melbourne", "Sydney", "Brisbane", "Perth", "Adelaide")
OMNEO_GONE, ALL_GONE = "Sydney", "Perth"  # which region loses what
OUTAGE = (0.35, 0.65)  # of the run


class Fleet:
    """Everything that runs, and where it is."""

    def __init__(self, server: cluster.Cluster, place: Path, given: argparse.Namespace) -> None:
        self.server, self.place, self.given = server, place, given
        self.owner = server.ledger("ledger")
        with (place / "sandbox.log").open("wb") as out:
            self.sandbox = subprocess.Popen(
                command("forwarder", "sandbox", "--port", "0"), stdout=subprocess.PIPE, stderr=out, text=True
            )
        assert self.sandbox.stdout is not None
        self.origin = self.sandbox.stdout.readline().strip().removesuffix("/api/v3")
        port = int(self.origin.rpartition(":")[2])
        self.omneo = {region: Relay(("127.0.0.1", 0), ("127.0.0.1", port)) for region in REGIONS}
        self.ledger: dict[str, Relay] = {}
        for region in REGIONS:
            (place / region).mkdir()
            self.ledger[region] = Relay(f"{place / region}/.s.PGSQL.5432", f"{server.root}/.s.PGSQL.5432")
        self.plans = [self._plan(number) for number in range(given.stores)]

    def _plan(self, number: int) -> Plan:
        region = REGIONS[number % len(REGIONS)]
        name = f"store_{number:04d}"
        cluster.enrol(self.owner, name, name, region)
        host, port = self.omneo[region].near
        # The bad ones are in regions whose lines hold: one that is silent can't be found, and is seen to be silent.
        bad = {0: "restored", 2: "restored", 4: "tampered"}.get(number, "")
        return Plan(
            name=name,
            root=str(self.place / name),
            omneo=f"http://{host}:{port}/api/v3",
            ledger=f"postgresql://{name}@/ledger?host={self.place / region}",
            sales=self.given.sales,
            seconds=self.given.seconds,
            seed=self.given.seed * 1000 + number,
            bad=bad,
            redeems=region == OMNEO_GONE and number < 4 * len(REGIONS),
        )

    def run(self) -> list[dict[str, Any]]:
        """Everything from the first sale to the last, in some processes; then the two restores are accepted."""
        began = time.time() + 2 + 0.06 * len(self.plans)  # until then all are open
        share = [self.plans[each :: self.given.processes] for each in range(self.given.processes)]
        with multiprocessing.get_context("spawn").Pool(self.given.processes) as pool:
            running = pool.starmap_async(work, [(plans, began) for plans in share if plans])
            self._weather(began)
            told = [each for some in running.get(timeout=self.given.seconds * 10 + 600) for each in some]
        self.glance = self._rows("SELECT * FROM ledger.findings ORDER BY first_at")
        headoffice_page.write(self.owner, self.place / "chain.html")
        while self._accept():  # the journal's first; then the delivery book's is seen
            work([plan for plan in self.plans if plan.bad == "restored"], 0.0)
        return told

    def _weather(self, began: float) -> None:
        first, last = (began + part * self.given.seconds for part in OUTAGE)
        time.sleep(max(0.0, first - time.time()))
        self.omneo[OMNEO_GONE].down()
        self.omneo[ALL_GONE].down()
        self.ledger[ALL_GONE].down()
        time.sleep(max(0.0, last - time.time()))
        self.seen = self._rows(
            "SELECT region, line, count(*) AS n, min(unseen_s) AS unseen FROM ledger.stores GROUP BY 1, 2 ORDER BY 1, 2"
        )
        self.at_stake = self._rows("SELECT count(*) AS n, max(stores) AS stores FROM ledger.exposure_across_stores")[0]
        for relay in (self.omneo[OMNEO_GONE], self.omneo[ALL_GONE], self.ledger[ALL_GONE]):
            relay.up()

    def _accept(self) -> int:
        """What a person at head office does, who has heard of the restores: from the ledger's own findings."""
        with psycopg.connect(self.owner, row_factory=dict_row) as db:
            forks = db.execute(
                "SELECT s.role, f.book, f.seq FROM ledger.finding AS f JOIN ledger.store AS s ON s.id = f.store"
                " WHERE f.what = 'fork' AND f.closed_at IS NULL AND s.role = ANY(%s)",
                ([plan.name for plan in self.plans if plan.bad == "restored"],),
            ).fetchall()
            for row in forks:
                db.execute(
                    "SELECT ledger.accept_fork(%s, %s, %s, 'head office', 'a restored backup')",
                    (row["role"], row["book"], row["seq"] - 1),
                )
        return len(forks)

    def _rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.owner, row_factory=dict_row) as db:
            return db.execute(query, values).fetchall()

    def judge(self, told: list[dict[str, Any]]) -> tuple[list[tuple[str, str, bool]], dict[str, Any]]:
        """The table's lines, each with whether it is as it should be; and figures."""
        sold = Counter(name for each in told for name in each["sold"])
        state = httpx.get(f"{self.origin}{CONTROL}/state", params={"since": "0"}, timeout=120).json()
        omneo = Counter(row["external_id"] for row in state["transactions"])
        ledger = Counter(
            row["external_id"]
            for row in self._rows(
                "SELECT external_id FROM ledger.entry WHERE kind = 'sale' AND about IS NULL AND external_id IS NOT NULL"
            )
        )
        named = {row["name"]: set() for row in self.glance}
        for row in self.glance:
            named[row["name"]].add(row["what"])
        bad = {plan.name: plan.bad for plan in self.plans if plan.bad}
        counted = lambda found: f"{len(found):,} of {len(sold):,}, {sum(found.values()) - len(found)} twice"  # noqa: E731
        rechecked = [
            row["n"]
            for plan in self.plans
            for book in ("journal", "delivery")
            for row in self._rows("SELECT count(*) AS n FROM ledger.recheck(%s, %s)", plan.name, book)
        ]
        left = self._rows("SELECT sum(waiting)::int AS waiting, sum(not_here)::int AS not_here FROM ledger.stores")[0]
        given_up = self._rows("SELECT count(*) AS n FROM ledger.given_up WHERE kind = 'sale'")[0]["n"]
        lost = sum(len(each["lost"]) for each in told)
        lines = [
            ("sales at Omneo, each once", counted(omneo), omneo == sold),
            ("sales in the ledger, each once", counted(ledger), ledger == sold),
            ("every digest in the ledger, computed again", f"{sum(rechecked)} that don't fit", not sum(rechecked)),
            (
                "nothing waits, and nothing is still to come",
                f"{left['waiting']} and {left['not_here']}",
                not any(left.values()),
            ),
            ("stores found by the ledger", f"{len(named)}: {', '.join(sorted(named))}", named.keys() == bad.keys()),
            ("… and nothing found of the others", f"{len(named.keys() - bad.keys())}", not named.keys() - bad.keys()),
            (
                "sales that the restored stores forgot and the ledger has",
                f"{given_up:,} of {lost:,}",
                given_up == lost > 0,
            ),
            (f"seen while {ALL_GONE} and {OMNEO_GONE} were gone", self._sky(), self._saw()),
            ("one customer in several shops, meanwhile", f"{self.at_stake['n']} customers", self.at_stake["n"] > 0),
        ]
        return lines, self._figures(told)

    def _sky(self) -> str:
        return "; ".join(
            f"{row['region']} {row['line']} ({row['n']}), unseen for {row['unseen']} s"
            for row in self.seen
            if row["region"] in {OMNEO_GONE, ALL_GONE}
        )

    def _saw(self) -> bool:
        down = {row["region"] for row in self.seen if row["line"] == "down"}
        length = (OUTAGE[1] - OUTAGE[0]) * self.given.seconds
        unseen = {row["region"] for row in self.seen if (row["unseen"] or 0) > 0.5 * length}
        return down == {OMNEO_GONE} and unseen == {ALL_GONE}

    def _figures(self, told: list[dict[str, Any]]) -> dict[str, Any]:
        deeds = {each["name"]: each["deed_at"] for each in told if each["deed_at"]}
        first = {row["name"]: row["first_at"].timestamp() for row in reversed(self.glance)}
        found = {name: round(at - deeds.get(name, at), 1) for name, at in first.items()}
        asked = self._rows(
            """SELECT max(n) AS most, sum(n) AS entries,
                      (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
                       WHERE inhparent = 'ledger.entry'::regclass) AS bytes
               FROM (SELECT count(*) AS n FROM ledger.entry GROUP BY date_trunc('second', received)) AS seconds"""
        )[0]
        late = self._rows(
            """SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
                   ORDER BY extract(epoch FROM received - at)) AS late
               FROM ledger.log WHERE region NOT IN (%s, %s) AND name <> ALL(%s)""",
            ALL_GONE,
            OMNEO_GONE,
            list(deeds),
        )[0]["late"]
        documents = self._rows("SELECT count(*) AS n FROM ledger.documents")[0]["n"]
        return {
            "stores": self.given.stores,
            "seed": self.given.seed,
            "entries": int(asked["entries"]),
            "entries_a_document": round(int(asked["entries"]) / documents, 2),
            "entry_bytes": round(int(asked["bytes"]) / int(asked["entries"])),
            "busiest_second": asked["most"],
            "ledger_median_s": round(late[0], 2),
            "ledger_95_percent_s": round(late[1], 2),
            "found_after_s": found,
            "found": sorted({f"{row['name']}: {row['book']} {row['what']} at {row['seq']}" for row in self.glance}),
        }

    def close(self) -> None:
        self.sandbox.terminate()
        self.sandbox.wait(timeout=20)
        for relay in (*self.omneo.values(), *self.ledger.values()):
            relay.down()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--sales", type=int, default=60, help="of each store")
    parser.add_argument("--seconds", type=float, default=120, help="from the first sale to the last")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="the figures, for docs/scale.md")
    parser.add_argument("--page", type=Path, help="keep the chain's page, as it was before the restores were accepted")
    given = parser.parse_args()
    if cluster.binaries() is None:
        print("make fleet: SKIPPED, nothing was looked at: missing here is PostgreSQL (apt install postgresql).")
        return os.EX_UNAVAILABLE
    assert given.stores >= 10, "ten stores at least: the bad three, and two of each region"
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="omneo-fleet-", dir=cluster.scratch()) as place,
        cluster.running() as server,
    ):
        Path(place).chmod(0o755)
        fleet = Fleet(server, Path(place), given)
        try:
            told = fleet.run()
            lines, figures = fleet.judge(told)
            if given.page:
                given.page.write_bytes((Path(place) / "chain.html").read_bytes())
        finally:
            fleet.close()
    print(f"\n{given.stores} stores, {given.sales} sales each, seed {given.seed}, {time.monotonic() - began:.0f} s\n")
    width = max(len(what) for what, _, _ in lines)
    for what, said, well in lines:
        print(f"{'✓' if well else '✗'} {what:<{width}}  {said}")
    print("\n" + json.dumps(figures, indent=1, ensure_ascii=False))
    well = all(each for _, _, each in lines)
    if given.keep and well:
        scale.keep("fleet", figures | {"found": "; ".join(figures["found"])})
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
