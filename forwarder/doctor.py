"""
The way to Omneo, step by step: `omneo-forwarder doctor`. Reads, asks harmless questions, never sends a document.

A step that failed makes those behind it meaningless: they are told as not tried.
"""

import os
import socket
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from forwarder import omneo, outcome, status
from forwarder.books import Books
from forwarder.link import Credentials, Link, check_url
from journal import chain, log
from journal.book import check_sqlite
from journal.log import NotNow, Unusable

RECENT = 1000  # entries of each book that are computed anew; `verify` does all of them
LOW_BYTES = 500 * 1024 * 1024
QUICK_MS = 0.05  # no disk keeps a promise so fast: something between us and it only says that it did
SKEW_S = 120
NOWHERE = "omneo-journal-doctor"  # an external_id that nobody has


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
    url: str
    token_file: Path | None
    rate: float
    routes: str
    now: Callable[[], datetime]


class Ill(Exception):  # noqa: N818 - it ends a chain of steps
    """A step failed: what was found, and what to do."""


def examine(patient: Patient, transport: httpx.BaseTransport) -> Iterator[Finding]:
    """One finding a step, in the order in which a sale goes. `transport` reaches Omneo."""
    yield from _chain(("SQLite", _sqlite), ("journal", _journal), ("delivery book", _delivery), patient=patient)
    yield from _chain(("disk space", _space), ("disk speed", _sync), patient=patient)
    asked = _Asked(patient, transport)
    steps = (
        ("address", asked.address),
        ("token", asked.credentials),
        ("name", asked.name),
        ("answer", asked.answer),
        ("clock", asked.clock),
        ("routes", asked.routes),
    )
    yield from _chain(*steps, patient=patient)
    yield from _chain(("backlog", asked.backlog), patient=patient)


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _chain(*steps: tuple[str, Callable[[Patient], str]], patient: Patient) -> Iterator[Finding]:
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
            broken = name not in {"clock", "disk space", "disk speed"}
            yield Finding(name, False, found, advice)
        except (Unusable, NotNow) as reason:
            broken = True
            yield Finding(name, False, str(reason))


def _sqlite(_: Patient) -> str:
    check_sqlite()
    return f"version {sqlite3.sqlite_version}"


def _journal(patient: Patient) -> str:
    with closing(log.open_book(patient.db, "journal", write=False)) as book:
        return f"{patient.db}: {_recent(book)}"


def _delivery(patient: Patient) -> str:
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


def _space(patient: Patient) -> str:
    there = os.statvfs(patient.delivery.parent)
    free = there.f_bavail * there.f_frsize
    if free < LOW_BYTES or not there.f_favail:
        raise Ill(f"{free // 1024**2} MiB free", "free some space, or move the books to a larger disk")
    return f"{free // 1024**2} MiB free"


def _sync(patient: Patient) -> str:
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


class _Asked:
    """The steps that need Omneo, and what they learn for each other."""

    def __init__(self, patient: Patient, transport: httpx.BaseTransport) -> None:
        self._patient = patient
        self._transport = transport
        self._round_trip_s: float | None = None
        self._skew_s: float | None = None

    def address(self, patient: Patient) -> str:
        self._url = check_url(patient.url)
        return f"{self._url.scheme}://{self._url.host}{self._url.path}"

    def credentials(self, patient: Patient) -> str:
        found = Credentials.find(patient.token_file)
        self._link = Link(self._url, found, self._transport, rate=0, sleep=_wait, now=patient.now)
        kind = "an OAuth credential" if found.oauth() else "a bearer token"
        return f"{kind} in {found.file or 'OMNEO_TOKEN'}"

    def name(self, _: Patient) -> str:
        try:
            found = socket.getaddrinfo(self._url.host, self._url.port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            advice = "see to the line and the name server, or to --url"
            raise Ill(f"{self._url.host} can't be resolved: {error.strerror}", advice) from None
        return f"{self._url.host} is {found[0][4][0]}"

    def answer(self, patient: Patient) -> str:
        began = time.monotonic()
        answer = self._link.ask(omneo.verify_token())
        self._round_trip_s = time.monotonic() - began
        if (meaning := outcome.meaning(answer)) != "yes":
            raise Ill(outcome.otherwise(answer).reason, ADVICE.get(meaning, "try again later"))
        if answer.date is not None:
            self._skew_s = (patient.now() - answer.date).total_seconds()
        return f"Omneo knows this token, and answered in {self._round_trip_s * 1000:.0f} ms"

    def clock(self, _: Patient) -> str:
        if self._skew_s is None:
            return "Omneo does not tell its time"
        if abs(self._skew_s) > SKEW_S:
            ahead = "ahead of" if self._skew_s > 0 else "behind"
            advice = "set this machine's clock, and see to its time synchronisation"
            raise Ill(f"this machine's clock is {abs(self._skew_s):.0f} s {ahead} Omneo's", advice)
        return f"within {abs(self._skew_s):.0f} s of Omneo's"

    def routes(self, patient: Patient) -> str:
        """The three look-ups that everything rests on: may this token make them, and does Omneo know them?"""
        asked = {
            "sales": omneo.find_sale(NOWHERE),
            "customers": omneo.read_profile(NOWHERE, "email", patient.routes),
            "redemptions": omneo.redemptions_of_sale(NOWHERE, 1),
        }
        for what, request in asked.items():
            answer = self._link.ask(request)
            if outcome.meaning(answer) not in {"yes", "missing", "no"}:
                reason = outcome.otherwise(answer).reason
                raise Ill(f"{what} can't be looked up: {reason}", "check the token's scopes, --url and --routes")
        return f"{', '.join(asked)} can be looked up"

    def backlog(self, patient: Patient) -> str:
        standing = status.status(patient.db, patient.delivery, patient.now())
        waiting = standing["waiting"]
        if not waiting or self._round_trip_s is None:
            return f"{waiting} documents wait"
        each_s = max(self._round_trip_s, 1 / patient.rate if patient.rate else 0.0)
        return f"{waiting} documents wait: about {max(1, round(waiting * each_s / 60))} min at this speed"


ADVICE = {
    "not_now": "see to the router and the line; nothing is lost meanwhile",
    "lost": "see to the line; nothing is lost meanwhile",
    "not_omneo": "sign in to the network, or let the proxy pass Omneo's host",
    "credentials": "write a good token into the token file",
    "missing": "check --url",
    "route": "check --url",
    "no": "check --url, and the token",
}
