"""
One file at a time, both programs running, at random moments: until it is gone, is seen in the journal, is at Omneo.

A file goes when its commit is on disk, and not before. A reader that asks for its entry again and again keeps its lock
half of the time and is kept out the other half: that figure is the reader's, and stands beside the other.
"""

import contextlib
import random
import sqlite3
import time
from typing import Any

from tests.bench import idle
from tests.bench.shop import Quick, Shop, quick, sale, shop, wait
from tests.bench.turns import high, middle

SEED = 4
ASKED_S = 0.03
DRAIN = ("--rate", "0")


def single(files: int, backlog: int) -> dict[str, Any]:
    """Alone, and while the forwarder drains a backlog; beside a raw commit of this disk after the same idle moment."""
    dice = random.Random(SEED)
    times: dict[str, list[float]] = {}
    with shop() as place, quick() as there:
        forwarder = ("forwarder", "run", "--url", there.url, *DRAIN)
        place.run(place.command(*forwarder, "--once"))
        with place.daemon("journal", "ingest"), place.daemon(*forwarder):
            for number in range(files):
                _pause(dice)
                times.setdefault("floor", []).append(_floor(place, number))
                _pause(dice)
                # In turns: a reader's lock can hold up a commit for a moment, so only every other file is watched so.
                if number % 2:
                    times.setdefault("gone", []).append(_until_gone(place, number))
                else:
                    times.setdefault("seen", []).append(_until_entered(place, number))
            wait(lambda: there.last()["posts"] == files, 60)
            for number in range(files, files + files // 2):
                _pause(dice)
                times.setdefault("at_omneo", []).append(_until_there(place, there, number))
    times["draining"] = _draining(files, backlog, dice)
    figures: dict[str, Any] = {"files": files, "backlog": backlog}
    for name, found in times.items():
        figures[f"{name}_ms"] = middle(found)
        figures[f"{name}_p95_ms"] = high(found)
    figures["times_floor"] = figures["gone_ms"] / figures["floor_ms"]
    return figures


def _draining(files: int, backlog: int, dice: random.Random) -> list[float]:
    """The forwarder sends a backlog as fast as it goes all the while."""
    times = []
    with shop() as place, quick() as there:
        forwarder = ("forwarder", "run", "--url", there.url, *DRAIN)
        place.run(place.command(*forwarder, "--once"))
        idle.pile(place.journal, backlog)
        with place.daemon("journal", "ingest"), place.daemon(*forwarder):
            wait(lambda: there.last()["posts"] > 0, 60)
            for number in range(backlog, backlog + files):
                _pause(dice)
                times.append(_until_gone(place, number))
                if there.last()["posts"] >= backlog:
                    break
    if len(times) < files:
        raise RuntimeError(f"the backlog was gone after {len(times)} files: make it longer")
    return times


def _pause(dice: random.Random) -> None:
    time.sleep(dice.uniform(0.020, 0.070))


def _floor(place: Shop, number: int) -> float:
    """The least there is to do, in this process: read, one durable commit, unlink; after the same idle moment."""
    path = place.spool.parent / f"floor-{number}"
    path.write_bytes(sale(number))
    with contextlib.closing(sqlite3.connect(place.naive, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("CREATE TABLE IF NOT EXISTS floor (body BLOB)")
        began = time.perf_counter()
        db.execute("INSERT INTO floor VALUES (?)", (path.read_bytes(),))
        path.unlink()
        return (time.perf_counter() - began) * 1000


def _until_gone(place: Shop, number: int) -> float:
    path = place.drop(number)
    began = time.perf_counter()
    wait(lambda: not path.exists())
    return (time.perf_counter() - began) * 1000


def _until_entered(place: Shop, number: int) -> float:
    """Until a reader of its own sees the entry."""
    with contextlib.closing(sqlite3.connect(f"{place.journal.as_uri()}?mode=ro", uri=True)) as db:
        wanted = f"MEL01-T{number % 4}-{number:07d}"
        query = "SELECT 1 FROM log WHERE external_id = ? AND about IS NULL"
        place.drop(number)
        began = time.perf_counter()
        wait(lambda: db.execute(query, (wanted,)).fetchone() is not None)
        return (time.perf_counter() - began) * 1000


def _until_there(place: Shop, there: Quick, number: int) -> float:
    """Until the server has all of it, by its own word and the clock of this machine: asking it would hold it up."""
    place.drop(number)
    began = time.monotonic()
    wait(lambda: there.last()["posts"] == number + 1, nap_s=ASKED_S)
    return float(there.last()["last"] - began) * 1000
