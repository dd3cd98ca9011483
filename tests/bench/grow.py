"""
How the figures grow with the journal: an empty one, and one with millions of entries; `make bench-long`.

The books are made by the programs' own `log.append`. Only where it isn't measured, nothing is synced meanwhile.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from forwarder.books import Books, create_delivery
from forwarder.lane import Strict
from forwarder.status import figures as figures_of
from journal import check, log, story
from journal.log import Entry
from tests.bench import burst
from tests.bench.deliver import forwarder
from tests.bench.shop import Quick, Shop, quick, sale, shop
from tests.bench.turns import in_turns, middle, ratio

BATCH = 1000
TURN = 64
STARTS = 5
SHORT = 1000  # documents of a journal that is short
FLAGGED = 100_000  # each so many-th sale has an open flag
SMALL = (
    b'{"kind":"sale","external_id":"%s","total":1,"items":[],"timezone":"UTC","transacted_at":"2025-06-15 14:32:00"}'
)


def grow(entries: int, files: int, rounds: int, room: Path | None = None) -> dict[str, Any]:
    """A small and a large journal, all delivered; then a burst, a catch-up and what an operator asks, in turns."""
    with big(entries, room) as place, quick() as there:
        figures: dict[str, Any] = {"entries": entries, "files": files, **place.made}
        figures |= questions(place.shop, entries)
        figures["first_taken_s"] = middle([_first_taken(place.shop, 10**9 + number) for number in range(STARTS)])
        figures["verify_mb"] = place.verify_mb()
        with big(SHORT, room) as short:
            figures["verify_growth_mb"] = figures["verify_mb"] - short.verify_mb()
        turns: dict[str, Callable[[], tuple[float, float]]] = {
            "empty": lambda: _empty(there, files),
            "grown": lambda: _through(place.shop, there, place.fresh(files)),
        }
        found = in_turns(rounds, turns)
    for at, what in enumerate(("burst", "catch_up")):
        figures[f"{what}_of_empty"] = ratio(*([row[at] for row in found[name]] for name in ("empty", "grown")))
        figures |= {f"{what}_{name}_a_second": files / middle([row[at] for row in found[name]]) for name in found}
    return figures


class Grown:
    """A shop with a long past."""

    def __init__(self, place: Shop, made: dict[str, Any]) -> None:
        self.shop, self.made, self._next = place, made, 2 * 10**8

    def verify_mb(self) -> float:
        """The most that `verify` held in memory."""
        return self.shop.spend(self.shop.command("journal", "verify")).most_mb

    def fresh(self, files: int) -> range:
        """Numbers that no document has had."""
        self._next += files
        return range(self._next - files, self._next)


@contextmanager
def big(entries: int, room: Path | None) -> Iterator[Grown]:
    """So many delivered documents. Their bodies are short, for they are not what is asked about."""
    with shop(room) as place:
        rates = pile(place.journal, entries, lambda number: SMALL % f"MEL01-T{number % 4}-{number:09d}".encode())
        delivery = place.journal.with_name("delivery.db")
        create_delivery(place.journal, delivery)
        settle(place.journal, delivery)
        sizes = {"journal_gb": place.journal.stat().st_size / 1e9, "delivery_gb": delivery.stat().st_size / 1e9}
        yield Grown(place, {"made_a_second": statistics.median(rates), **sizes})


def pile(journal: Path, entries: int, body: Callable[[int], bytes], *, synced: bool = False) -> list[float]:
    """So many sales; entries a second of each tenth, without the making of them."""
    rates, tenth, took = [], max(BATCH, entries // 10), 0.0
    with closing(log.open_book(journal, "journal", write=True)) as book:
        if not synced:
            book.execute("PRAGMA synchronous = OFF")
        for low in range(0, entries, BATCH):
            some = []
            for number in range(low, min(low + BATCH, entries)):
                facts = {"bytes": 100, "n": number + 1, "terminal": f"MEL01-T{number % 4}", "sequence": number // 4}
                name = f"MEL01-T{number % 4}-{number:09d}"
                some.append(Entry("sale", None, name, facts | {"total": "1"}, body(number)))
                if number % FLAGGED == 1:
                    some.append(check.flag("totals_mismatch", some[-1]))
            began = time.perf_counter()
            log.append(book, some)
            took += time.perf_counter() - began
            if (low + BATCH) % tenth == 0:
                rates.append(tenth / took)
                took = 0.0
    return rates


def settle(journal: Path, delivery: Path) -> None:
    """Everything is delivered, as the forwarder would have written it."""
    books = Books(journal, delivery)
    books.delivery.execute("PRAGMA synchronous = OFF")
    books.opened()
    last = books.last_document()
    rows = books.journal.execute("SELECT seq, external_id FROM log WHERE kind = 'sale' ORDER BY seq")
    while some := rows.fetchmany(TURN):
        books.record(*(Entry("delivered", seq, name, {"omneo_id": 10**7 + seq}) for seq, name in some))
        books.take_turn(some[-1][0], min(some[-1][0] + TURN, last))
    books.close()


def questions(place: Shop, entries: int) -> dict[str, Any]:
    """How long each takes in milliseconds, without the start of a process: medians over the whole journal."""
    delivery = place.journal.with_name("delivery.db")
    asked: dict[str, Callable[[int], object]] = {}
    with (
        story.both_books(place.journal, delivery) as books,
        closing(Books(place.journal, delivery, write=False)) as own,
    ):
        asked["show"] = lambda number: story.show(books, f"MEL01-T{number % 4}-{number:09d}")
        asked["flags"] = lambda _: list(story.flags(books))
        asked["status"] = lambda _: figures_of(books.conn, delivery=True, now=log.utc_now())
        asked["next_document"] = lambda _: Strict(own).next_ready()
        figures = {}
        for name, ask in asked.items():
            times = []
            for number in range(1, entries, max(1, entries // 21)):
                began = time.perf_counter()
                ask(number)
                times.append((time.perf_counter() - began) * 1000)
            figures[f"{name}_ms"] = statistics.median(times)
        figures["slowest_question_ms"] = max(figures.values())
    return figures


def _first_taken(place: Shop, number: int) -> float:
    """From the start of the program to the first document in the journal."""
    path = place.drop(number)
    began = time.perf_counter()
    with subprocess.Popen(burst.ours(place), env=place.env, stderr=subprocess.DEVNULL):
        while path.exists():
            time.sleep(0.001)
        return time.perf_counter() - began


def _empty(there: Quick, files: int) -> tuple[float, float]:
    with shop() as place:
        place.run(forwarder(place, there))
        return _through(place, there, range(files))


def _through(place: Shop, there: Quick, numbers: range) -> tuple[float, float]:
    """In and out again, each without its start."""
    starts = place.run(burst.ours(place)), place.run(forwarder(place, there))
    place.fill(numbers)
    return place.run(burst.ours(place)) - starts[0], place.run(forwarder(place, there)) - starts[1]


# -- bodies of 2 KB -------------------------------------------------------------------------------------------------


def bodies(entries: int, room: Path | None = None) -> dict[str, Any]:
    """So many sales of 2 KB: does the rate of inserting hold, and how much disk do they take beside their bytes?"""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=room) as root:
        journal = Path(root) / "journal.db"
        log.create(journal, "journal", {"journal": "grown"})
        rates = pile(journal, entries, sale, synced=True)
        size = sum(len(sale(number)) for number in range(0, entries, max(1, entries // 1000)))
        size *= entries / len(range(0, entries, max(1, entries // 1000)))
        used = journal.stat().st_size
    return {
        "entries": entries,
        "rates": rates,
        "last_tenth_of_first": rates[-1] / rates[0],
        "disk_of_bodies": used / size,
    }
