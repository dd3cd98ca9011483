"""
How fast the ledger takes entries, how large they are there, and how soon it answers when it is full.

    python -m tests.fleet.rate [--stores 40] [--entries 5000] [--small 400] [--rows 0] [--processes 2] [--keep]

Whole journals and delivery books of many stores, shipped at once; small shipments of a few entries each, as on an
ordinary day; and with `--rows`, a ledger filled by a generator in SQL with so many entries, on which each of the
dashboard's queries is timed. What the generator makes is no chain: its digests are made up. `--keep` puts the figures
where docs/scale.md is computed from.

Exit 1 when it takes fewer than 20,000 entries a second, or a query of the dashboard lasts a second.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

sys.path.append(str(Path(__file__).parents[1]))

import cluster

from forwarder import headoffice_page
from forwarder.ledger import Ledger, check_url
from forwarder.ship import Shipper
from journal import log
from tests.fleet import scale

ENTRIES_S, ANSWER_MS = 20_000, 1000  # what is asked
BULK = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "autovacuum": "off",
}
FACTS = {"bytes": 900, "currency": "AUD", "terminal": "till-1", "total": "19.95"}


def make(root: Path, name: str, entries: int) -> None:
    """One store's books: as many sales, and all delivered."""
    root.mkdir()
    log.create(root / "journal.db", "journal", {"journal": name})
    log.create(root / "delivery.db", "delivery", {"journal": name, "unknown_upto": 0})
    with closing(log.open_book(root / "journal.db", "journal", write=True)) as db:
        sales = [
            log.Entry(
                "sale",
                external_id=f"{name}-T1-{number:08d}",
                facts=FACTS | {"n": number, "sequence": number},
                body=b"{}",
            )
            for number in range(entries)
        ]
        log.append(db, sales)
    with closing(log.open_book(root / "delivery.db", "delivery", write=True)) as db:
        log.append(
            db, [log.Entry("delivered", sale.seq, sale.external_id, {"omneo_id": 10**6 + sale.seq}) for sale in sales]
        )


def ship(work: list[tuple[str, str]], batch: int) -> int:
    """These stores, one after the other, all that they have."""
    shipped = 0
    for root, url in work:
        line = Ledger(check_url(url), 300)
        shipper = Shipper(Path(root, "journal.db"), Path(root, "delivery.db"), line, lambda *_, **__: None, batch=batch)
        assert shipper.go()
        shipped += shipper.shipped
        line.close()
    return shipped


def trickle(shippers: list[Shipper], run: str, times: int, *, hang_up: bool) -> float:
    """One sale and its delivery a store, again and again; how long the shipping of them took."""
    took = 0.0
    for number in range(times):
        for shipper in shippers:
            shipper._alive_at = time.monotonic()  # no walk: it has its own minute
            with closing(log.open_book(shipper.journal, "journal", write=True)) as db:
                name = f"more-{shipper.journal.parent.name}-{run}-{number}"
                seq = log.append(db, [log.Entry("sale", external_id=name, facts=FACTS)])
            with closing(log.open_book(shipper.delivery, "delivery", write=True)) as db:
                log.append(db, [log.Entry("delivered", seq, None, {"omneo_id": number})])
            began = time.perf_counter()
            assert shipper.go()
            if hang_up:
                shipper.ledger.close()
            took += time.perf_counter() - began
    return took


def sign(shippers: list[Shipper], times: int) -> float:
    """A sign of life from each, with a walk, and nothing new; how long they took."""
    began = time.perf_counter()
    for _ in range(times):
        for shipper in shippers:
            shipper._alive_at = -1e9
            assert shipper.go()
    return time.perf_counter() - began


def opened(work: list[tuple[str, str]]) -> list[Shipper]:
    return [
        Shipper(Path(root, "journal.db"), Path(root, "delivery.db"), Ledger(check_url(url), 300), lambda *_, **__: None)
        for root, url in work
    ]


def small(server: cluster.Cluster, work: list[tuple[str, str]], times: int) -> dict[str, Any]:
    """What an ordinary day is made of: a sale and its delivery, a sign of life, a line that is open."""
    shippers, told = opened(work), {}
    before = server.private_mb()
    trickle(shippers, "first", 1, hang_up=False)
    told["line_mb"] = round((server.private_mb() - before) / len(shippers), 2)
    for name, what in (
        ("shipment", lambda: trickle(shippers, "kept", times, hang_up=False)),
        ("sign", lambda: sign(shippers, times)),
        ("shipment_new_line", lambda: trickle(shippers, "new", times, hang_up=True)),
    ):
        cpu = server.cpu_s()
        told[f"{name}_ms"] = round(1000 * what() / (times * len(shippers)), 2)
        told[f"{name}_cpu_ms"] = round(1000 * (server.cpu_s() - cpu) / (times * len(shippers)), 2)
    return told


def catching_up(server: cluster.Cluster, place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Whole books at once, then small shipments, with lines that stay and with new ones."""
    owner = server.ledger("ledger")
    work = []
    for number in range(given.stores):
        name = f"store{number:03d}"
        make(place / name, name, given.entries)
        cluster.enrol(owner, name)
        work.append((str(place / name), server.url(name, "ledger")))
    share = [work[each :: given.processes] for each in range(given.processes)]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        pool.map(time.sleep, [0.5] * given.processes)
        before, began = server.cpu_s(), time.perf_counter()
        shipped = sum(pool.starmap(ship, [(each, given.batch) for each in share]))
        took, cpu = time.perf_counter() - began, server.cpu_s() - before
    with psycopg.connect(owner, autocommit=True) as db:
        sizes = (
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'ledger.entry'::regclass"
        )
        row = db.execute(f"SELECT ({sizes}) / count(*) FROM ledger.entry").fetchone()
    assert row is not None
    told = {
        "stores": given.stores,
        "shippers": given.processes,
        "entries": shipped,
        "entries_s": round(shipped / took),
        "entry_cpu_us": round(1e6 * cpu / shipped, 1),
        "entry_bytes": round(row[0]),
    }
    return told | small(server, work, max(1, given.small // given.stores))


FILL = """
INSERT INTO ledger.entry
SELECT c.id, n, %(now)s::timestamptz + mod(n, 4) * interval '1 month', %(now)s::timestamptz + n * interval '1 ms',
       CASE WHEN c.book = 'delivery' THEN n END, CASE WHEN c.book = 'delivery' THEN 'delivered' ELSE 'sale' END,
       CASE WHEN c.book = 'journal' THEN 'S-' || c.id || '-' || n END,
       '{"bytes":900,"currency":"AUD","n":' || n || ',"sequence":' || n || ',"terminal":"till-1","total":"19.95"}',
       CASE WHEN c.book = 'journal' THEN sha256(int8send(n::bigint)) END, sha256(int8send(n::bigint + c.id))
FROM ledger.chain AS c, generate_series(1, %(each)s) AS n WHERE c.id BETWEEN %(low)s AND %(high)s
"""
AROUND = """
INSERT INTO ledger.waiting (chain, seq, store, kind, external_id, at, terminal, amount, currency, customer, what)
SELECT c.id, n, c.store, CASE WHEN mod(n, 4) = 0 THEN 'redemption' ELSE 'sale' END, 'W-' || c.id || '-' || n,
       now() - n * interval '1 min', 'till-1', 20, 'AUD',
       CASE WHEN mod(n, 4) = 0 THEN substr(sha256(int8send(mod(c.id * n, 5000)::bigint)), 1, 16) END, 'rewards'
FROM ledger.chain AS c, generate_series(1, 8) AS n WHERE c.book = 'journal';
INSERT INTO ledger.flag
SELECT c.store, c.id, 'D' || n,
       (ARRAY['sequence_gap', 'reversal_window_exceeded', 'sale_refused', 'invalid'])[1 + mod(n, 4)], n, 'S',
       now() - n * interval '7 h', '{"terminal": "till-1", "from": 5, "to": 6, "verdict": "out", "seconds": 700}',
       CASE WHEN mod(n, 50) <> 0 THEN now() END, 'Ann', 'seen'
FROM ledger.chain AS c, generate_series(1, 100) AS n WHERE c.book = 'delivery';
INSERT INTO ledger.day
SELECT s.id, current_date - n, 'AUD', 500, 10000, 20, 400, 5, 1 FROM ledger.store AS s, generate_series(0, 365) AS n;
INSERT INTO ledger.checkpoint
SELECT c.id, n * 50, now() - (20 - n) * interval '1 day', n * 50 - 1, sha256(''), '{}', true, true
FROM ledger.chain AS c, generate_series(1, 20) AS n WHERE c.book = 'journal';
"""
BEGUN = """
INSERT INTO ledger.store (role, name, region, timezone, journal, enrolled_at)
SELECT 's' || n, 'Store ' || n, 'region ' || mod(n, 40), 'Australia/Melbourne', n::text, now() - interval '1 year'
FROM generate_series(1, STORES) AS n;
INSERT INTO ledger.chain (store, book, seq, told_seq, seen_at, grown_at, complete_at, link, link_since)
SELECT id, book, 0, 0, now(), now(), now(), 'up', now()
FROM ledger.store, unnest(ARRAY['journal', 'delivery']) AS book;
INSERT INTO ledger.part SELECT id, id, 9223372036854775807 FROM ledger.chain;
"""


def full(server: cluster.Cluster, rows: int, stores: int = 10_000) -> dict[str, Any]:
    """A ledger of ten thousand stores and so many entries; how long each panel of the dashboard takes."""
    owner = server.ledger("filled")
    each = max(1, rows // (2 * stores))
    began = time.perf_counter()
    with psycopg.connect(owner, autocommit=True) as db:
        db.execute(BEGUN.replace("STORES", str(stores)).encode())
        for low in range(1, 2 * stores + 1, 500):
            asked = {"now": time.strftime("%Y-%m-%d", time.gmtime()), "each": each, "low": low, "high": low + 499}
            db.execute(FILL.encode(), asked)
        db.execute(f"UPDATE ledger.chain SET seq = {each}, told_seq = {each}")
        db.execute(AROUND.encode())
        filled = time.perf_counter() - began
        db.execute("VACUUM ANALYZE")
        size = db.execute("SELECT pg_database_size(current_database())").fetchone()[0]  # type: ignore[index]
        took = {}
        with psycopg.connect(owner) as reader:
            for panel in headoffice_page.panels() * 2:  # the second time counts: it is asked every half minute
                began = time.perf_counter()
                reader.execute(panel["sql"].encode()).fetchall()
                took[panel["title"]] = round(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            reader.execute(f"SELECT * FROM ledger.documents WHERE external_id = 'S-{stores - 1}-{each}'").fetchall()
            took["one document by its external_id"] = round(1000 * (time.perf_counter() - began))
    return {
        "rows": 2 * stores * each,
        "stores": stores,
        "filled_s": round(filled),
        "gb": round(size / 1e9, 2),
        "ms": took,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=40)
    parser.add_argument("--entries", type=int, default=5000, help="in each book")
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--small", type=int, default=400, help="small shipments")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=0, help="of the full ledger; 0: none")
    parser.add_argument("--keep", action="store_true", help="for docs/scale.md")
    given = parser.parse_args()
    told: dict[str, dict[str, Any]] = {}
    # As a real one is run, but for fsync: the figures are the processor's, and no commit waits for a disk.
    with tempfile.TemporaryDirectory(prefix="omneo-rate-", dir=cluster.scratch()) as place:
        if given.stores:
            with cluster.running(shared_buffers="1GB", max_wal_size="4GB", full_page_writes="on") as server:
                told["rate"] = catching_up(server, Path(place), given)
        if given.rows:
            with cluster.running(**BULK) as server:
                told["full"] = full(server, given.rows)
    for name, figures in told.items():
        print(name, json.dumps(figures, indent=1))
        if given.keep:
            scale.keep(name, figures)
    missed = ["entries a second"] if told.get("rate", {}).get("entries_s", ENTRIES_S) < ENTRIES_S else []
    missed += [name for name, took in told.get("full", {}).get("ms", {}).items() if took >= ANSWER_MS]
    print(f"missed: {', '.join(missed)}" if missed else "nothing was missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
