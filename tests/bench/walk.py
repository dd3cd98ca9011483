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
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

from forwarder.books import Books, create_delivery
from journal import checkpoint, document, ingest, log, note
from journal.log import Entry
from journal.verify import examine
from tests.bench.shop import omneo, sale, shop

ASKED = 150_000  # entries a second
BESIDE = 1.1  # times as long as alone
BATCH = 1000
OVER_AND_OVER = """
import os, sys
from pathlib import Path
from journal.verify import verify
os.nice(19)  # as the command does
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
    How much longer both programs take while verify walks their books over and over; in turns. The worse of the two.

    A burst of files that is taken, and the same sales delivered to the sandbox, at the forwarder's usual 10 a second:
    that is what a shop's box does while somebody audits it. And at full speed, for which this machine has to share
    two processors among four programs: printed, not judged.
    """
    took: dict[tuple[str, bool], list[float]] = {}
    with omneo() as there, shop() as place:
        deliver = place.command("forwarder", "run", "--once", "--url", there.url)
        place.run([*deliver, "--rate", "0"])
        number = 0
        for turn in range(2 * rounds):
            walking = None
            if turn % 2:
                delivery = place.journal.with_name("delivery.db")
                code = [sys.executable, "-c", OVER_AND_OVER, str(place.journal), str(delivery)]
                walking = subprocess.Popen(code, env=place.env)
            try:
                for what, size, rate in (("burst", documents, ""), ("full", documents, "0"), ("usual", 100, "10")):
                    if what != "full":
                        place.fill(range(number, number + size))
                        number += size
                        seconds = place.run(place.command("journal", "ingest", "--once"))
                    if rate:
                        seconds = place.run([*deliver, "--rate", rate])
                    took.setdefault((what, walking is not None), []).append(seconds)
            finally:
                if walking is not None:
                    walking.kill()
                    walking.wait()
    ratios = {}
    for what in ("burst", "usual", "full"):
        alone, with_it = (statistics.median(took[what, walked]) for walked in (False, True))
        ratios[what] = with_it / alone
        print(f"{what}: {alone:.2f} s alone, {ratios[what]:.2f} times that beside verify")
    return max(ratios["burst"], ratios["usual"])


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
