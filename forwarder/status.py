"""How things stand, in one look at the last turn of the delivery book and the few entries after it."""

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from forwarder.books import SETTLED, last_turn, totals_since
from journal import log, story


def status(journal: Path, delivery: Path, now: datetime) -> dict[str, Any]:
    """What `omneo-forwarder status --json` prints."""
    with closing(story.connect(journal, delivery)) as books:
        try:
            return figures(books, delivery=delivery.exists(), now=now)
        except sqlite3.OperationalError as error:
            raise log.reading_failed(error, journal) from error


def figures(books: sqlite3.Connection, *, delivery: bool, now: datetime) -> dict[str, Any]:
    """The same from both books, open, with the views. `delivery`: is that book there?"""
    totals, settled_upto, line = dict.fromkeys(SETTLED, 0), 0, None
    if delivery:
        totals = totals_since(books, "delivery")
        settled_upto = last_turn(books, "delivery").settled
        line = books.execute(
            "SELECT facts FROM delivery.log WHERE kind = 'line' AND about IS NULL AND external_id IS NULL"
            " ORDER BY seq DESC LIMIT 1"
        ).fetchone()
    facts = json.loads(line[0]) if line else {"link": "unknown", "reason": ""}
    waiting = _accepted(books) - sum(totals.values())
    return {
        "link": facts["link"],
        "reason": facts["reason"],
        "waiting": waiting,
        "oldest_waiting_s": _oldest(books, settled_upto, now) if waiting else None,
        "delivered": totals["delivered"],
        "refused": totals["refused"],
        "held": totals["held"],
        "invalid": books.execute("SELECT count(*) FROM main.log WHERE kind = 'invalid'").fetchone()[0],
        "open_flags": books.execute("SELECT count(*) FROM flags_open").fetchone()[0],
    }


def waiting(books: sqlite3.Connection) -> int:
    """How many documents wait, in both books as they are now."""
    return _accepted(books) - sum(totals_since(books, "delivery").values())


def _accepted(books: sqlite3.Connection) -> int:
    """How many documents were ever accepted: the last one says it."""
    row = books.execute(
        "SELECT json_extract(facts, '$.n') FROM main.log WHERE json_extract(facts, '$.n') IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return int(row[0]) if row else 0


def _oldest(books: sqlite3.Connection, settled_upto: int, now: datetime) -> float | None:
    """Age of the oldest waiting document, in seconds."""
    row = books.execute(
        "SELECT min(received_at) FROM (SELECT received_at FROM documents WHERE state = 'waiting' AND seq > ?"
        " ORDER BY seq LIMIT 1) UNION ALL SELECT received_at FROM documents WHERE state = 'waiting' AND seq IN"
        " (SELECT about FROM delivery.log WHERE kind = 'released')",
        [settled_upto],
    ).fetchall()
    ages = [(now - datetime.fromisoformat(at)).total_seconds() for (at,) in row if at]
    return round(max(0.0, *ages), 1) if ages else None  # a clock that went back makes nothing younger than new
