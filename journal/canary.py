"""
A canary: a file of our own that goes the way of a sale, from the spool through the journal to the forwarder's book.

A program that hangs counts no errors. What shows it is that a canary does not come back: it makes an entry `canary` in
the journal, the forwarder answers it with one in the delivery book, and Omneo never hears of it. Where documents go the
whole way there is nothing to prove, and none is dropped; while Omneo can't be reached, which takes its time and leaves
nothing else in the delivery book, they are fewer.
"""

import os
import re
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection, DatabaseError

from journal import log
from journal.files import CANARY

BODY = re.compile(rb'\{"canary":(\d{1,15})\}')
THERE = {"delivered", "refused", "held", "cancelled", "canary"}  # an entry like that has gone the whole way
OFFLINE = 8  # one of so many while the line is down: a week of that must not fill the delivery book
LINE = "SELECT json_extract(facts, '$.link') FROM log WHERE kind = 'line' AND about IS NULL AND external_id IS NULL"


def number(body: bytes | None) -> int | None:
    """Which canary this is: the journal's head when it was dropped. None: a file of somebody else's."""
    found = BODY.fullmatch(body or b"")
    return int(found[1]) if found else None


class Canary:
    """Drops a canary when for a while nothing went the whole way."""

    def __init__(
        self, db: Connection, spool: Path, delivery: Path, *, every_s: float, now: log.Clock = log.utc_now
    ) -> None:
        """`every_s`: so long after the start comes the first."""
        self._db, self._spool, self._delivery, self._now, self._every_s = db, spool, delivery, now, every_s
        self._due_at = time.monotonic() + every_s
        self._offline = 0  # how often one was due since the line went down

    def __call__(self) -> None:
        """Drop one if it is due. Raises OSError when the spool can't be written: then nothing can be taken either."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + self._every_s
        path = self._spool / CANARY
        if os.path.lexists(path) or not self._wanted():  # one is still there: it has to go first
            return
        draft = path.with_suffix(".new")
        draft.write_bytes(b'{"canary":%d}' % log.head(self._db)[0])
        draft.rename(path)

    def _wanted(self) -> bool:
        """Has nothing gone the whole way lately? And while the line is down: has none been dropped for a while?"""
        try:
            with closing(log.open_book(self._delivery, "delivery", write=False)) as book:
                kind, at = book.execute("SELECT kind, at FROM log ORDER BY seq DESC LIMIT 1").fetchone()
                line = book.execute(f"{LINE} ORDER BY seq DESC LIMIT 1").fetchone()
        except (log.Unusable, log.NotNow, DatabaseError):
            return True
        age_s = (self._now() - datetime.fromisoformat(at)).total_seconds()
        if kind in THERE - {"canary"} and 0 <= age_s < self._every_s:
            return False
        self._offline = 0 if line is None or line[0] == "up" else self._offline + 1
        return self._offline == 0 or self._offline % OFFLINE == 1
