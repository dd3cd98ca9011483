"""
A busy store after ten years, 500 documents a day, all delivered: how big are its books, and how long does it take to …?

`python -m tests.bench.ten_years DIR [--documents N]` makes both books in DIR, if they aren't there, through the real
`log.append`, then measures. Not part of `make test`: it takes some minutes and six gigabytes.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from journal import log
from journal.log import Entry

BEGIN = datetime(2015, 7, 1, tzinfo=UTC)
A_DAY, BATCH, CUSTOMERS, TURN = 500, 5000, 20_000, 64
PROGRAM = [sys.executable, "-c", "from journal.cli import main; main()"]
STATUS = [sys.executable, "-c", "from forwarder.cli import main; main()"]


def sale(number: int, dice: random.Random) -> bytes:
    """About 2 KB, one in two with a customer; one in fifty with a redemption."""
    content = {
        "kind": "sale",
        "external_id": f"MEL01-T{number % 4}-{number:09d}",
        "terminal": f"MEL01-T{number % 4}",
        "sequence": number // 4,
        "total": 100,
        "transacted_at": "2025-06-15 14:32:00",
        "timezone": "Australia/Melbourne",
        "location_id": "MEL01",
        "receipt_ref": f"T-{number:09d}",
        "items": [
            {
                "name": f"Article {dice.randrange(10**6)} of the summer's range",
                "sku": f"SKU-{dice.randrange(10**9)}",
                "quantity": 1,
                "price_current": 20,
                "price_sell": 20,
                "product_variant_id": dice.randrange(10**6),
                "meta": {"colour": dice.choice(["red", "green", "blue"]), "batch": f"{dice.getrandbits(320):x}"},
            }
            for _ in range(5)
        ],
    }
    if number % 2:
        customer = dice.randrange(CUSTOMERS)
        handle = ("email", f"customer{customer}@example.org") if number % 4 == 1 else ("card", f"60{customer:08d}")
        content |= {"profile_id_handle": handle[0], "profile_id": handle[1]}
    if number % 50 == 1:
        content["redemption_id"] = number
    return json.dumps(content).encode()


def make(directory: Path, documents: int) -> None:
    """Both books, as quickly as they can be written."""
    dice, begun = random.Random(1), time.monotonic()
    journal, delivery = directory / "journal.db", directory / "delivery.db"
    log.create(journal, "journal", {"journal": "ten-years"}, lambda: BEGIN)
    facts = {"journal": "ten-years", "unknown_upto": 0}
    log.create(delivery, "delivery", facts, lambda: BEGIN)
    with (
        closing(log.open_book(journal, "journal", write=True)) as ours,
        closing(log.open_book(delivery, "delivery", write=True)) as theirs,
    ):
        for db in (ours, theirs):
            db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA cache_size = -400000")
        for low in range(0, documents, BATCH):
            now = BEGIN + timedelta(days=low / A_DAY)
            entries = []
            for number in range(low, min(low + BATCH, documents)):
                body = sale(number, dice)
                facts = {
                    "bytes": len(body),
                    "n": number + 1,
                    "terminal": f"MEL01-T{number % 4}",
                    "sequence": number // 4,
                    "total": "100",
                }
                if number % 50 == 1:
                    facts["names"] = f"omneo:{number}"
                entries.append(Entry("sale", None, f"MEL01-T{number % 4}-{number:09d}", facts, body))
            log.append(ours, entries, now=lambda now=now: now)
            seq, digest = log.head(ours)
            told = []
            for entry in entries:
                told.append(Entry("delivered", entry.seq, entry.external_id, {"omneo_id": 10**7 + entry.seq}))
                if entry.seq % TURN == 0:
                    totals = {"delivered": entry.seq, "refused": 0, "held": 0, "cancelled": 0, "abandoned": 0}
                    turn = {"settled": entry.seq, "upto": entry.seq + TURN, "totals": totals}
                    told.append(Entry("turn", facts=turn | {"other_book": {"entries": seq, "head": digest.hex()}}))
            done = {"delivered": seq - 1, "refused": 0, "held": 0, "cancelled": 0, "abandoned": 0}
            turn = {"settled": seq, "upto": seq, "totals": done, "other_book": {"entries": seq, "head": digest.hex()}}
            told.append(Entry("turn", facts=turn))
            log.append(theirs, told, now=lambda now=now: now)
    print(f"{'made':12} {documents:,} documents in {time.monotonic() - begun:.0f} s")


def timed(name: str, *command: str, runs: int = 1) -> None:
    """The program itself, start included; the best of several runs: seconds by the clock, and of a processor."""
    found = []
    for _ in range(runs):
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append((took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        if done.returncode not in {0, 1}:
            print(done.stdout[-500:], done.stderr[-500:])
    took, cpu = min(found)
    print(f"{name:12} {took:8.2f} s, processor {cpu:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--documents", type=int, default=500 * 3650)
    options = parser.parse_args()
    directory, count = options.directory, options.documents
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "journal.db").exists():
        make(directory, count)
    for name in ("journal.db", "delivery.db"):
        print(f"{name:12} {(directory / name).stat().st_size / 1e9:8.2f} GB")
    db = ("--db", str(directory / "journal.db"))
    middle = f"MEL01-T{count // 2 % 4}-{count // 2:09d}"
    shutil.rmtree(directory / "backup", ignore_errors=True)
    timed("show", *PROGRAM, "show", middle, *db, runs=3)
    timed("status", *STATUS, "status", *db, runs=3)
    timed("close-check", *PROGRAM, "close-check", *db)
    timed("person", *PROGRAM, "person", "customer77@example.org", *db, "--out", str(directory / "person.json"))
    (directory / "person.json").unlink(missing_ok=True)
    timed("redact", *PROGRAM, "redact", middle, "--by", "a", "--reason", "b", *db)
    timed("verify", *PROGRAM, "verify", *db)
    timed("backup", *PROGRAM, "backup", str(directory / "backup"), *db)
    day = (BEGIN + timedelta(days=365)).date().isoformat()
    timed("archive", *PROGRAM, "archive", "--before", day, "--out", str(directory / "packs"), *db)
    packs = list((directory / "packs").glob("*.zip"))
    print(f"{'packs':12} {sum(path.stat().st_size for path in packs) / 1e9:8.2f} GB in {len(packs)}")


if __name__ == "__main__":
    main()
