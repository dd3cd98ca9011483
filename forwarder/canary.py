"""
The forwarder's answer to a canary (journal/canary.py): an entry in the delivery book, whatever the line does.

It is given by the very loop that delivers, so that a loop that hangs gives none.
"""

import sqlite3
import time

from forwarder.books import Books
from journal.log import Entry

LOOK_S = 1.0
NEWEST = "SELECT {} FROM log WHERE kind = 'canary' AND about IS NULL AND external_id IS NULL ORDER BY seq DESC LIMIT 1"


class Canary:
    """Which canary was answered last, and when the journal was looked at last."""

    def __init__(self, books: Books) -> None:
        self._books = books
        row = books.delivery.execute(NEWEST.format("json_extract(facts, '$.seq')")).fetchone()
        self._answered = int(row[0]) if row else 0
        self._looked_at = -LOOK_S  # monotonic

    def answer(self) -> None:
        """Answer one that has come since. Raises NotNow when this book can't be written: it is answered later."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            row = self._books.journal.execute(NEWEST.format("seq")).fetchone()
        except sqlite3.OperationalError:  # its writer was killed in the middle of a commit, say: not now
            return
        if row is not None and row[0] > self._answered:
            self._books.record(Entry("canary", facts={"seq": row[0]}))
            self._answered = row[0]
            self._books.flush()
