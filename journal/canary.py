"""
A canary: a file of our own that goes the way of a sale, from the spool through the journal to the forwarder's book.

A program that hangs counts no errors. What shows it is that a canary does not come back: it makes an entry `canary` in
the journal, the forwarder answers it with one in the delivery book, and Omneo never hears of it. Where documents go the
whole way there is nothing to prove, and none is dropped.
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

    def __call__(self) -> None:
        """Drop one if it is due. Raises OSError when the spool can't be written: then nothing can be taken either."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + self._every_s
        path = self._spool / CANARY
        if os.path.lexists(path) or self._went_well():  # one is still there: it has to go first
            return
        draft = path.with_suffix(".new")
        draft.write_bytes(b'{"canary":%d}' % log.head(self._db)[0])
        draft.rename(path)

    def _went_well(self) -> bool:
        """Has something gone the whole way lately?"""
        try:
            with closing(log.open_book(self._delivery, "delivery", write=False)) as book:
                kind, at = book.execute("SELECT kind, at FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        except (log.Unusable, log.NotNow, DatabaseError):
            return False
        age_s = (self._now() - datetime.fromisoformat(at)).total_seconds()
        return kind in THERE - {"canary"} and 0 <= age_s < self._every_s
