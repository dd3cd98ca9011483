"""The box itself, examined: books, disk, spool, the two programs. Reads, but for a probe in the spool."""

import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from forwarder import standing
from forwarder.books import Books
from journal import chain, hints, log
from journal.book import check_sqlite
from journal.log import NotNow, Unusable

RECENT = 1000  # entries of each book that are computed anew; `verify` does all of them
LOW_BYTES = 500 * 1024 * 1024
QUICK_MS = 0.05  # no disk keeps a promise so fast: something between us and it only says that it did
EVENT_S = 2.0  # how long a file event may take
OUT_S = 120.0  # a canary that is out for longer hangs
ALONE = {"clock", "disk space", "disk speed", "spool", "programs"}  # those behind them don't need them


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found. `ok` is None where it was not tried."""

    step: str
    ok: bool | None
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """One object of `--json`."""
        return {"step": self.step, "ok": self.ok, "found": self.found, "advice": self.advice}

    def told(self) -> str:
        """For people: a tick or a cross, and what to do."""
        mark = {True: "✓", False: "✗", None: "·"}[self.ok]
        advice = f"\n    {self.advice[0].upper()}{self.advice[1:]}." if self.advice else ""
        return f"{mark} {self.step}: {self.found}{advice}"


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined."""

    db: Path
    delivery: Path
    spool: Path | None
    url: str
    token_file: Path | None
    rate: float
    routes: str
    now: Callable[[], datetime]


class Ill(Exception):  # noqa: N818 - it ends a chain of steps
    """A step failed: what was found, and what to do."""


def in_turn(*steps: tuple[str, Callable[[Patient], str]], patient: Patient) -> Iterator[Finding]:
    """Steps of which each needs the one before."""
    broken = False
    for name, step in steps:
        if broken:
            yield Finding(name, None, "not tried")
            continue
        try:
            yield Finding(name, True, step(patient))
        except Ill as ill:
            found, advice = ill.args
            broken = name not in ALONE
            yield Finding(name, False, found, advice)
        except (Unusable, NotNow) as reason:
            broken = True
            yield Finding(name, False, str(reason))
        except sqlite3.DatabaseError as damage:
            broken = True
            advice = "keep the file as evidence, run omneo-journal verify, and restore a backup"
            yield Finding(name, False, f"a book can't be read: {damage}", advice)


def sqlite(_: Patient) -> str:
    check_sqlite()
    return f"version {sqlite3.sqlite_version}"


def journal(patient: Patient) -> str:
    with closing(log.open_book(patient.db, "journal", write=False)) as book:
        return f"{patient.db}: {_recent(book)}"


def delivery(patient: Patient) -> str:
    if not patient.delivery.exists():
        return "none yet: the first run creates it, and looks for what the journal holds already"
    books = Books(patient.db, patient.delivery, write=False)
    try:
        return f"{patient.delivery}: {_recent(books.delivery)}, it belongs to this journal"
    finally:
        books.close()


def _recent(book: sqlite3.Connection) -> str:
    """The newest entries, computed anew."""
    last = log.head(book)[0]
    rows = book.execute(
        "SELECT seq, at, kind, about, external_id, facts, body_hash, digest FROM log WHERE seq >= ? ORDER BY seq",
        (last - RECENT,),
    ).fetchall()
    for before, row in pairwise(rows):
        if chain.link(before[-1], chain.Row(*row[:-1])) != row[-1]:
            raise Ill(f"entry {row[0]} was altered", "run omneo-journal verify, and keep both books as evidence")
    return f"{last} entries, the newest {len(rows)} are sound"


def space(patient: Patient) -> str:
    there = os.statvfs(patient.delivery.parent)
    free = there.f_bavail * there.f_frsize
    if free < LOW_BYTES or not there.f_favail:
        raise Ill(f"{free // 1024**2} MiB free", "free some space, or move the books to a larger disk")
    return f"{free // 1024**2} MiB free"


def sync(patient: Patient) -> str:
    """As far as one can tell from outside: a sync that takes no time was none."""
    took = []
    try:
        with tempfile.TemporaryFile(dir=patient.delivery.parent) as file:
            for _ in range(9):
                file.write(b"x" * 4096)
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                took.append((time.perf_counter() - began) * 1000)
    except OSError as error:
        raise Ill(f"{patient.delivery.parent}: {error.strerror}", "let the forwarder's user write there") from None
    middle = statistics.median(took)
    if middle < QUICK_MS:
        raise Ill(
            f"a sync takes {middle:.3f} ms: the disk does not wait for its medium",
            "on a RAM disk or behind a cache without a battery, a power cut loses sales: use a real disk",
        )
    return f"a sync takes {middle:.1f} ms"


def spool(patient: Patient) -> str:
    """May files be taken there, and do events tell of them?"""
    place = patient.spool
    assert place is not None
    if not place.is_dir():
        raise Ill(
            f"{place} is not there, or this user can't see it",
            "mount it, put it back, or give the right one with --spool",
        )
    waiting = sum(
        entry.name.endswith(".json") and entry.name[0] != "." and entry.is_file(follow_symlinks=False)
        for entry in os.scandir(place)
    )
    told, probe = threading.Event(), place / f".omneo-doctor-{os.getpid()}"
    try:
        with hints.watching(told, lambda _: True, hints.NEW, lambda *_, **__: None) as events:
            events.look_at([place])
            told.clear()  # set once, when the watch began
            probe.mkdir(mode=0o700)
            heard = told.wait(EVENT_S)
    except OSError as error:
        advice = "let the ingest program's user write in the spool, and run the doctor as that user"
        raise Ill(f"{place} can't be written: {error.strerror}", advice) from None
    finally:
        with suppress(OSError):
            probe.rmdir()
    words = "file events arrive" if heard else "no file events arrive, so that files are found within 2 seconds only"
    return f"{place} can be written, {waiting} files wait, {words}"


def programs(patient: Patient) -> str:
    """Do both run, and does one follow the other?"""
    told = standing.look(patient.db, patient.delivery, patient.now())
    out_s = told["whole_way"]["canary_out_s"]
    if told["at_work"]["forwarder"] and out_s is not None and out_s > OUT_S:
        advice = "restart omneo-forwarder, and send its log to whoever looks after it"
        raise Ill(f"the forwarder runs, but has not followed the journal for {out_s / 60:.0f} min", advice)
    names = {"ingest": "omneo-journal ingest", "forwarder": "omneo-forwarder run"}
    off = [names[name] for name, runs in told["at_work"].items() if runs is False]
    if len(off) == 1:
        raise Ill(f"{off[0]} is not running", "start it, and look at its log if it ends again")
    return f"not running: {', '.join(off)}" if off else "both run"
