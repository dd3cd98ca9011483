"""How things stand, in one look at the last turn of the delivery book and the few entries after it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from forwarder.books import SETTLED, last_turn, totals_since
from journal import story


def status(journal: Path, delivery: Path, now: datetime) -> dict[str, Any]:
    """What `omneo-forwarder status --json` prints."""
    with story.both_books(journal, delivery) as books:
        totals, settled_upto, line = dict.fromkeys(SETTLED, 0), 0, None
        if delivery.exists():
            totals = totals_since(books.conn, "delivery")
            settled_upto = last_turn(books.conn, "delivery").settled
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


def _accepted(books: Database) -> int:
    """How many documents were ever accepted: the last one says it."""
    row = books.execute(
        "SELECT json_extract(facts, '$.n') FROM main.log WHERE json_extract(facts, '$.n') IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return int(row[0]) if row else 0


def _oldest(books: Database, settled_upto: int, now: datetime) -> float | None:
    """Age of the oldest waiting document, in seconds."""
    row = books.execute(
        "SELECT min(received_at) FROM (SELECT received_at FROM documents WHERE state = 'waiting' AND seq > ?"
        " ORDER BY seq LIMIT 1) UNION ALL SELECT received_at FROM documents WHERE state = 'waiting' AND seq IN"
        " (SELECT about FROM delivery.log WHERE kind = 'released')",
        [settled_upto],
    ).fetchall()
    ages = [(now - datetime.fromisoformat(at)).total_seconds() for (at,) in row if at]
    return round(max(0.0, *ages), 1) if ages else None  # a clock that went back makes nothing younger than new


def lines(standing: dict[str, Any]) -> list[str]:
    """The same for people."""
    words = {
        "up": "The line to Omneo is up.",
        "down": "The line to Omneo is down",
        "paused": "Delivery is paused",
        "unknown": "Nothing has been sent to Omneo yet.",
    }
    told = words[standing["link"]] + (f": {standing['reason']}." if standing["reason"] else "")
    age = standing["oldest_waiting_s"]
    waiting = f"{standing['waiting']} waiting" + (f", the oldest for {age:.0f} s" if age is not None else "")
    names = ("delivered", "refused", "held", "invalid")
    return [
        told,
        waiting + ".",
        ", ".join(f"{standing[name]} {name}" for name in names) + ".",
        f"{standing['open_flags']} open flags" + (": see omneo-journal flags." if standing["open_flags"] else "."),
    ]
