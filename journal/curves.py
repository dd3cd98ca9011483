"""How a day went, over its hours: what came and left by quarters, and what waited."""

import json
import statistics
from collections import Counter, defaultdict
from typing import Any

from sqlite_utils import Database

from journal import log
from journal.day import Days, before

Row = dict[str, Any]

QUARTER_MIN = 15


def quarters(days: Days, arrived: list[Row], settled: list[Row]) -> list[Row]:
    """What came and what Omneo got, by quarters of an hour in which something happened."""
    came = Counter(_quarter(days, row["received_at"]) for row in arrived)
    ages: dict[str, list[float]] = defaultdict(list)
    for row in settled:
        if row["kind"] == "delivered":
            ages[_quarter(days, row["at"])].append(row["age_s"])
    return [
        {
            "at": at,
            "arrived": came[at],
            "delivered": len(ages.get(at, ())),
            "age": _spread(ages[at]) if at in ages else None,
        }
        for at in sorted({*came, *ages})
    ]


def _quarter(days: Days, at: str) -> str:
    """The quarter of an hour on the shop's clock, as a moment."""
    local = days.local(at)
    begin = local.replace(minute=local.minute - local.minute % QUARTER_MIN, second=0, microsecond=0)
    return log.stamp(begin)


def _spread(ages: list[float]) -> Row:
    return {"min_s": min(ages), "median_s": statistics.median(ages), "max_s": max(ages)}


def backlog(db: Database, days: Days, documents: list[Row], settled: list[Row]) -> list[tuple[str, int]]:
    """How many documents waited, of the whole shop: at the day's begin and after each minute that changed it."""
    waiting = _waited(db, days.begin)
    changes = [(row["received_at"], 1) for row in documents if row["kind"] != "invalid"]
    changes += [(row["at"], 1 if row["kind"] == "released" else -1) for row in settled if row["kind"] != "abandoned"]
    minutes = {days.begin: waiting}
    for at, change in sorted(changes):
        waiting += change
        minutes[at[:16] + ":59.999Z"] = max(0, waiting)
    curve: list[tuple[str, int]] = []
    for point in sorted(minutes.items()):
        if not curve or point[1] != curve[-1][1]:
            curve.append(point)
    return curve


def _waited(db: Database, begin: str) -> int:
    """How many documents waited at a moment: as many as were accepted, less those that were settled."""
    row = db.execute(
        "SELECT json_extract(facts, '$.n') FROM main.log WHERE seq <= ? AND json_extract(facts, '$.n') IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1",
        [before(db.conn, "main", begin)],
    ).fetchone()
    last = before(db.conn, "delivery", begin)
    turn = db.execute(
        "SELECT seq, facts FROM delivery.log WHERE kind = 'turn' AND about IS NULL AND external_id IS NULL"
        " AND seq <= ? ORDER BY seq DESC LIMIT 1",
        [last],
    ).fetchone()
    settled = sum(json.loads(turn[1])["totals"].values()) if turn else 0
    since = db.execute(
        "SELECT coalesce(sum(CASE kind WHEN 'released' THEN -1 ELSE 1 END), 0) FROM delivery.log"
        " WHERE seq > ? AND seq <= ? AND kind IN ('delivered', 'refused', 'held', 'cancelled', 'released')",
        [turn[0] if turn else 0, last],
    ).fetchone()
    return max(0, int(row[0] if row else 0) - settled - int(since[0]))
