"""
When this machine's wall clock is set, that is an entry: whoever reads the times around it knows what to make of them.

Nothing of ours rests on the wall clock. What shows a jump is the kernel's own clock, which runs on through all of them
until the machine is started again; across that, only a clock that went back can be told from time that passed.
"""

import json
import time
from datetime import datetime, timedelta
from sqlite3 import Connection
from typing import Any

from journal import log

JUMP_S = 10.0  # less is time synchronisation at work
PAUSE_S = 60.0  # two programs that fight over the clock make no more than an entry a minute


class Clock:
    """Looks at both clocks again and again, and writes down when they part."""

    def __init__(self, db: Connection, *, now: log.Clock = log.utc_now) -> None:
        """Before this run writes anything: what the book's last entries say of the clock then."""
        self._db, self._now = db, now
        self._offset: float | None = None  # the wall clock's, to the kernel's
        self._floor: datetime | None = None
        self._told_at = -PAUSE_S
        row = db.execute("SELECT at FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        known = db.execute(
            "SELECT at, facts FROM log WHERE kind IN ('created', 'opened', 'clock') AND about IS NULL"
            " AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        facts = json.loads(known[1]) if known else {}
        here = log.boot_facts()
        if here["boot"] is not None and facts.get("boot") == here["boot"]:
            self._offset = datetime.fromisoformat(known[0]).timestamp() - float(facts["since_boot_s"])
        elif row:
            self._floor = datetime.fromisoformat(row[0])

    def __call__(self) -> None:
        """Write an entry if the clock was set since the last look. Raises log.NotNow; the next look finds it again."""
        facts, now = log.boot_facts(), self._now()
        offset = now.timestamp() - float(facts["since_boot_s"])
        jump_s = self._jump_s(offset, now)
        if abs(jump_s) < JUMP_S:
            self._offset, self._floor = self._offset if self._offset is not None else offset, None
            return
        if time.monotonic() - self._told_at < PAUSE_S:
            return
        log.append(self._db, [log.Entry("clock", facts=_facts(now, jump_s) | facts)], now=self._now)
        self._offset, self._floor, self._told_at = offset, None, time.monotonic()

    def _jump_s(self, offset: float, now: datetime) -> float:
        """By how much the clock was set; since the machine was started, by how much it went back at least."""
        if self._offset is not None:
            return offset - self._offset
        return min(0.0, (now - self._floor).total_seconds()) if self._floor is not None else 0.0


def _facts(now: datetime, jump_s: float) -> dict[str, Any]:
    return {"was": log.stamp(now - timedelta(seconds=jump_s)), "seconds": round(jump_s, 1)}
