"""
How fast `verify` walks, and what it costs the programs that run beside it.

    python -m tests.bench.walk [--documents 100000] [--rounds 5] [--beside]

Two books as a shop has them: sales of 2 KB with their bodies, a delivery for each, a turn every 64, a checkpoint every
10,000 entries. Entries of both books a second, in one process; the best round counts, since others use this machine.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

from forwarder.books import Books, create_delivery
from journal import checkpoint, document, ingest, log, note
from journal.log import Entry
from journal.verify import examine
from tests.bench.shop import Omneo, Shop, omneo, sale, shop, wait

ASKED = 150_000  # entries a second
BESIDE = 1.1  # times as long as alone
SINGLE, REST_S = 100, 0.02  # files one at a time, a turn; the rest before each
BATCH = 1000
OVER_AND_OVER = """
import os, sys
from pathlib import Path
from journal.verify import verify
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # as the command does
while True:
    verify(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def fill(root: Path, documents: int) -> tuple[Path, Path, note.Key]:
    """Both books, made by the programs' own code."""
    journal, delivery = root / "journal.db", root / "delivery.db"
    log.create(journal, "journal", {"journal": "0e5d8a9c-6f0d-4f58-9a5f-2f6c3b1d7e40"} | log.boot_facts())
    private, public = note.generate("omneo-journal/0e5d8a9c-6f0d-4f58-9a5f-2f6c3b1d7e40")
    with closing(log.open_book(journal, "journal", write=True)) as db:
        for low in range(0, documents, BATCH):
            due = []
            for number in range(low, min(low + BATCH, documents)):
                body = sale(number)
                contents = SimpleNamespace(file=SimpleNamespace(size=len(body), name="x"), sha256=None, body=body)
                due.append((contents, document.read("x.json", body)))
            ingest.enter(due, db, log.utc_now)  # type: ignore[arg-type]
            if low % 10_000 == 0:
                checkpoint.make(db, checkpoint.head_of(delivery), note.private_key(private))
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM log WHERE kind = 'sale' ORDER BY seq")]
    create_delivery(journal, delivery)
    books = Books(journal, delivery)
    books.opened()
    for low in range(0, len(seqs), 64):
        some = seqs[low : low + 64]
        for seq in some:
            books.record(Entry("delivered", seq, f"MEL01-T{seq % 4}-{seq:07d}", {"omneo_id": seq + 4_000_000}))
        books.take_turn(some[-1], some[-1] + 64)
    books.close()
    return journal, delivery, note.public_key(public)


def speed(documents: int, rounds: int) -> float:
    """Entries a second, and of processor time."""
    with tempfile.TemporaryDirectory(prefix="walk-") as root:
        journal, delivery, public = fill(Path(root), documents)
        wall, cpu = [], []
        for _ in range(rounds):
            began, used = time.perf_counter(), time.process_time()
            found = examine(journal, delivery, [public])
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
            if not found.told["ok"]:
                raise RuntimeError(found.told["problems"])
        entries = found.told["entries"] + found.told["delivery"]["entries"]
    print(
        f"{entries} entries: {entries / min(wall):,.0f} a second (median {entries / statistics.median(wall):,.0f}),"
        f" {min(cpu) / entries * 1e6:.2f} µs of processor time each"
    )
    return entries / min(wall)


def beside(documents: int, rounds: int) -> float:
    """
    How much longer both programs take while verify walks their books over and over; in turns. The worst of the three.

    burst: so many files are taken. full: the same sales go to the sandbox as fast as both can, for which this machine
    shares two processors among four programs. one: a file at a time, through both programs, until the sandbox has it.
    """
    took: dict[tuple[str, bool], list[float]] = {}
    with omneo() as there, shop() as place:
        forwarder = ["run", "--url", there.url, "--rate", "0"]
        place.run(place.command("forwarder", *forwarder, "--once"))
        sold = 0
        for turn in range(2 * rounds + 2):
            with walking(place) if turn % 2 else nullcontext():
                place.fill(range(sold, sold + documents))
                sold += documents
                times = {"burst": place.run(place.command("journal", "ingest", "--once"))}
                times["full"] = place.run(place.command("forwarder", *forwarder, "--once"))
                with place.daemon("journal", "ingest"), place.daemon("forwarder", *forwarder):
                    times["one"] = statistics.median(one_by_one(place, there, range(sold, sold + SINGLE)))
                sold += SINGLE
            for what, seconds in times.items():
                if turn > 1:  # the first turns fill the books: before that there is little to walk
                    took.setdefault((what, turn % 2 == 1), []).append(seconds)
    ratios = {}
    for what in ("burst", "full", "one"):
        alone, with_it = (statistics.median(took[what, walked]) for walked in (False, True))
        ratios[what] = with_it / alone
        print(f"{what}: {ratios[what]:.2f} times as long beside verify as alone ({alone:.3f} s)")
    return max(ratios.values())


def one_by_one(place: Shop, there: Omneo, numbers: range) -> Iterator[float]:
    """Seconds from the rename of each file until the sandbox has the sale; a moment's rest before each."""
    for number in numbers:
        time.sleep(REST_S)
        place.drop(number)
        began = time.perf_counter()
        wait(lambda count=number + 1: there.sales == count)
        yield time.perf_counter() - began


@contextmanager
def walking(place: Shop) -> Iterator[None]:
    """Somebody verifies, again and again, until the block ends."""
    code = [sys.executable, "-c", OVER_AND_OVER, str(place.journal), str(place.journal.with_name("delivery.db"))]
    with subprocess.Popen(code, env=place.env) as process:
        try:
            yield
        finally:
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.walk", description="See tests/bench/walk.py.")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", action="store_true", help="also what it costs both programs")
    chosen = parser.parse_args()
    reached = speed(chosen.documents, chosen.rounds) >= ASKED
    if chosen.beside:
        reached = beside(5000, chosen.rounds) <= BESIDE and reached
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
