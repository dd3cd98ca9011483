"""
How things stand, in full: what `status` has, and how old the backlog is, how fast it goes, what is at stake, how long
the disk lasts. Read from the books alone, and cheap however many wait: positions are found by halving, not by counting.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from forwarder import status
from forwarder.books import last_turn
from forwarder.exposure import Exposure
from journal import log, reserve, story
from journal.rejected import REJECTED

AGES_S = (60, 600, 3600, 86400, 604800)  # the backlog is told in pieces of at most this age
SPEED_S = 300  # how long speed is measured over …
SPEED_ENTRIES = 5000  # … and how many entries are looked at for it
DAY_S = 86400


@dataclass(slots=True)
class Standing:
    """Asks both books, again and again if need be."""

    journal: Path
    delivery: Path
    exposure: Exposure = field(default_factory=Exposure)
    spool: Path | None = None

    def look(self, books: sqlite3.Connection, now: datetime) -> dict[str, Any]:
        """Everything, as `omneo-forwarder status --full --json` prints it. `books`: both, with the views."""
        brief = status.figures(books, delivery=self.delivery.exists(), now=now)
        settled_upto = last_turn(books, "delivery").settled if self.delivery.exists() else 0
        return {
            "status": brief,
            "since": _since(books),
            "ages": _ages(books, settled_upto, brief["waiting"], now),
            "speed": _speed(books, brief["waiting"], now),
            "flags": dict(
                books.execute("SELECT flag, count(*) FROM flags_open GROUP BY flag ORDER BY 2 DESC, 1").fetchall()
            ),
            "exposure": self.exposure.look(books, settled_upto, brief["held"]),
            "disk": _disk(books, self.journal, self.delivery, now),
            "whole_way": _whole_way(books, now),
            "clock": _clock(books),
            "at_work": {"ingest": log.at_work(self.journal), "forwarder": log.at_work(self.delivery)},
            "spool": None if self.spool is None else {"files": _files(self.spool)},
        }


def look(journal: Path, delivery: Path, now: datetime, spool: Path | None = None) -> dict[str, Any]:
    """The same, once."""
    with closing(story.connect(journal, delivery)) as books:
        try:
            return Standing(journal, delivery, spool=spool).look(books, now)
        except sqlite3.OperationalError as error:
            raise log.reading_failed(error, journal) from error


def _since(books: sqlite3.Connection) -> str | None:
    """Since when the link is what it is. Bounded: of an outage of weeks there are a few rows a day."""
    found, link = None, None
    for told, since in books.execute("SELECT link, coalesce(since, at) FROM line ORDER BY seq DESC").fetchall():
        if link is not None and told != link:
            break
        found, link = since, told
    return found


def first_at(books: sqlite3.Connection, schema: str, moment: datetime) -> int:
    """
    Seq of the first entry of a book that is not older than a moment; one past the head if all are.

    Entries stand in the order in which they were written. Where the clock was set back, what it showed is what counts.
    """
    low, high, sought = 1, log.head(books, schema)[0] + 1, log.stamp(moment)
    while low < high:
        middle = (low + high) // 2
        (at,) = books.execute(f"SELECT at FROM {schema}.log WHERE seq = ?", (middle,)).fetchone()
        low, high = (low, middle) if at >= sought else (middle + 1, high)
    return low


def _accepted_before(books: sqlite3.Connection, seq: int) -> int:
    """How many documents were accepted before an entry: the last of them says it."""
    row = books.execute(
        "SELECT json_extract(facts, '$.n') FROM main.log WHERE seq < ? AND json_extract(facts, '$.n') IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1",
        (seq,),
    ).fetchone()
    return int(row[0]) if row else 0


def _ages(books: sqlite3.Connection, settled_upto: int, waiting: int, now: datetime) -> list[dict[str, Any]]:
    """How many wait for how long. The pieces add up to all that wait."""
    beyond = "SELECT DISTINCT about FROM delivery.log WHERE about > ? AND kind IN ({})"
    kinds = "'delivered', 'refused', 'held', 'cancelled', 'abandoned'"
    settled = sorted(seq for (seq,) in books.execute(beyond.format(kinds), (settled_upto,)).fetchall())
    again = [
        (seq, datetime.fromisoformat(at))
        for seq, at in books.execute(
            "SELECT seq, received_at FROM documents WHERE state = 'waiting' AND seq IN"
            " (SELECT about FROM delivery.log WHERE kind = 'released')"
        ).fetchall()
    ]
    everything = _accepted_before(books, log.head(books)[0] + 1)
    told, younger = [], 0
    for upto_s in AGES_S:
        moment = now - timedelta(seconds=upto_s)
        first = max(first_at(books, "main", moment), settled_upto + 1)
        here = everything - _accepted_before(books, first) - sum(seq >= first for seq in settled)
        here += sum(at >= moment for seq, at in again if seq < first or seq in settled)
        here = min(max(here, younger), waiting)
        told.append({"upto_s": upto_s, "documents": here - younger})
        younger = here
    return [*told, {"upto_s": None, "documents": waiting - younger}]


def _speed(books: sqlite3.Connection, waiting: int, now: datetime) -> dict[str, Any]:
    """Documents settled and come in a minute, over the last minutes; when all will be done if it goes on so."""
    head = log.head(books, "delivery")[0]
    begin = now - timedelta(seconds=SPEED_S)
    first = max(first_at(books, "delivery", begin), head - SPEED_ENTRIES + 1)
    row = books.execute(
        "SELECT count(*), min(at) FROM delivery.log WHERE seq >= ? AND at <= ? AND kind IN"
        " ('delivered', 'refused', 'held', 'cancelled')",
        (first, log.stamp(now)),
    ).fetchone()
    settled, oldest = int(row[0]), row[1]
    span_s = max(1.0, (now - datetime.fromisoformat(oldest)).total_seconds()) if oldest else float(SPEED_S)
    came = _accepted_before(books, log.head(books)[0] + 1) - _accepted_before(books, first_at(books, "main", begin))
    goes, comes = settled / span_s, came / SPEED_S
    done_in_s = round(waiting / (goes - comes)) if waiting and settled > 1 and goes > comes else None
    return {"a_minute": round(goes * 60, 1), "came_a_minute": round(comes * 60, 1), "done_in_s": done_in_s}


def _whole_way(books: sqlite3.Connection, now: datetime) -> dict[str, Any]:
    """When a document or a canary last came to its end, and for how long a canary has been out."""
    row = books.execute(
        "SELECT at FROM (SELECT at, kind, seq FROM delivery.log ORDER BY seq DESC LIMIT 1000)"
        " WHERE kind IN ('canary', 'delivered', 'refused', 'held', 'cancelled') ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    mine = "kind = 'canary' AND about IS NULL AND external_id IS NULL"
    back = books.execute(
        f"SELECT coalesce(max(json_extract(facts, '$.seq')), 0) FROM delivery.log WHERE {mine}"
        f" AND seq = (SELECT max(seq) FROM delivery.log WHERE {mine})"
    ).fetchone()[0]
    out = books.execute(f"SELECT min(at) FROM main.log WHERE {mine} AND seq > ?", (back,)).fetchone()[0]
    out_s = max(0.0, (now - datetime.fromisoformat(out)).total_seconds()) if out else None
    return {"at": row[0] if row else None, "canary_out_s": out_s}


def _clock(books: sqlite3.Connection) -> dict[str, Any] | None:
    """When this machine's clock was last set, and by how much."""
    row = books.execute(
        "SELECT at, json_extract(facts, '$.was'), json_extract(facts, '$.seconds') FROM main.log"
        " WHERE kind = 'clock' AND about IS NULL AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return {"at": row[0], "was": row[1], "seconds": row[2]} if row else None


def _files(spool: Path) -> int | None:
    """How many files wait in the spool and in the directories of its tills; None if it isn't there for this user."""
    try:
        tills = [spool, *(each for each in spool.iterdir() if each.is_dir() and each.name != REJECTED)]
        return sum(each.suffix == ".json" and each.name[0] != "." for till in tills for each in till.iterdir())
    except OSError:
        return None


def _disk(books: sqlite3.Connection, journal: Path, delivery: Path, now: datetime) -> dict[str, Any]:
    """Free space where the books are, and after how many days intake stops if they grow as in the last one."""
    grows: dict[int, tuple[int, int, float]] = {}  # device → (free bytes, how many it leaves alone, growth a day)
    for schema, path in (("main", journal), ("delivery", delivery)):
        free, least = reserve.of(path.parent)
        device, head = path.parent.stat().st_dev, log.head(books, schema)[0]
        entries = head + 1 - first_at(books, schema, now - timedelta(seconds=DAY_S))
        growth = path.stat().st_size / head * entries if head and path.exists() else 0.0
        grows[device] = (free, least, grows.get(device, (0, 0, 0.0))[2] + growth)
    days = [max(0, free - least) / growth for free, least, growth in grows.values() if growth]
    free, least = reserve.of(journal.parent)
    return {
        "free_bytes": min(free for free, _, _ in grows.values()),
        "grows_bytes_a_day": round(sum(growth for _, _, growth in grows.values())),
        "days_left": round(min(days), 1) if days else None,
        "nearly_full": free < least,
    }
