"""
How fast the ledger takes entries, how large they are there, and how soon it answers when it is full.

    python -m tests.fleet.rate [--stores 40] [--entries 5000] [--batch 5000] [--small 400] [--rows 0] [--processes 2]

Three figures for docs/scale.md: whole journals and delivery books of many stores shipped at once (catching up); small
shipments of a few entries each, as on an ordinary day; and with `--rows`, a ledger filled by a generator in SQL with so
many entries, on which each of the dashboard's queries is timed. What the generator makes is no chain: its digests are
made up.
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


def trickle(work: list[tuple[str, str]], times: int, *, hang_up: bool) -> int:
    """One sale and its delivery a store, again and again; how many shipments that were."""
    quiet = lambda *_, **__: None  # noqa: E731
    shippers = [
        Shipper(Path(root, "journal.db"), Path(root, "delivery.db"), Ledger(check_url(url), 300), quiet)
        for root, url in work
    ]
    for number in range(times):
        for shipper in shippers:
            shipper._alive_at = time.monotonic()  # no walk: it has its own minute
            with closing(log.open_book(shipper.journal, "journal", write=True)) as db:
                name = f"more-{shipper.journal.parent.name}-{hang_up}-{number}"
                seq = log.append(db, [log.Entry("sale", external_id=name, facts=FACTS)])
            with closing(log.open_book(shipper.delivery, "delivery", write=True)) as db:
                log.append(db, [log.Entry("delivered", seq, None, {"omneo_id": number})])
            assert shipper.go()
            if hang_up:
                shipper.ledger.close()
    for shipper in shippers:
        shipper.ledger.close()
    return times * len(shippers)


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
    told: dict[str, Any] = {
        "entries shipped": shipped,
        "shippers at once": given.processes,
        "entries a second, catching up": round(shipped / took),
        "the server's processor, us an entry": round(1e6 * cpu / shipped, 1),
    }
    for name, hang_up in (("lines that stay", False), ("a new line each", True)):
        trickle(work, 1, hang_up=hang_up)
        before, began = server.cpu_s(), time.perf_counter()
        shipments = trickle(work, max(1, given.small // given.stores), hang_up=hang_up)
        told[f"small shipments, {name}: the server's processor, ms"] = round(
            1000 * (server.cpu_s() - before) / shipments, 2
        )
        told[f"small shipments, {name}: ms"] = round(1000 * (time.perf_counter() - began) / shipments, 2)
    with psycopg.connect(owner, autocommit=True) as db:
        size = (
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'ledger.entry'::regclass"
        )
        row = db.execute(f"SELECT ({size}) / count(*) FROM ledger.entry").fetchone()
        told["bytes an entry, with indexes"] = round(row[0])  # type: ignore[index]
    return told


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
    return {"rows": 2 * stores * each, "filled in s": round(filled), "GB": round(size / 1e9, 2), "ms": took}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=40)
    parser.add_argument("--entries", type=int, default=5000, help="in each book")
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--small", type=int, default=400, help="small shipments")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=0, help="of the full ledger; 0: none")
    given = parser.parse_args()
    # As a real one is run, but for fsync: the figures are the processor's, and no commit waits for a disk.
    with tempfile.TemporaryDirectory(prefix="omneo-rate-") as place:
        if given.stores:
            with cluster.running(shared_buffers="1GB", max_wal_size="4GB", full_page_writes="on") as server:
                print(json.dumps(catching_up(server, Path(place), given), indent=1))
        if given.rows:
            settings = {
                "shared_buffers": "2GB",
                "max_wal_size": "8GB",
                "wal_level": "minimal",
                "max_wal_senders": 0,
                "autovacuum": "off",
            }
            with cluster.running(**settings) as server:
                print(json.dumps(full(server, given.rows), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
