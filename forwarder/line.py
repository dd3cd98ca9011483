"""The state of the line, as the delivery book tells it: up, down or paused, and why. Written when it turns."""

import time
from typing import Any

from forwarder import window
from forwarder.books import Books, Document
from forwarder.outcome import Outcome
from journal.document import local_time
from journal.log import Entry, boot_facts, stamp
from journal.say import Say

PATIENCE_S = 1.0  # a failure that is gone after so long was a hiccup, not an outage
RETELL_S = 10.0  # another reason for the same outage is told after so long at first, then after twice as long each time
RETELL_MAX_S = 10800.0  # weeks offline are a few rows a day


class Line:
    """Up, down, paused or unknown."""

    def __init__(self, books: Books, say: Say) -> None:
        self._books = books
        self._say = say
        row = books.delivery.execute(
            "SELECT json_extract(facts, '$.link'), json_extract(facts, '$.reason') FROM log"
            " WHERE kind = 'line' AND about IS NULL AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        self.link: str = row[0] if row else "unknown"
        self._reason: str = row[1] if row else ""
        self._retell_s = RETELL_S
        self._told_at = -RETELL_MAX_S  # monotonic
        self.clock_told = False  # whether the flag about this machine's clock has been raised
        self._failing_since: float | None = None
        self._failing_at = ""
        self._last: Outcome | None = None

    def saw(self, result: Outcome) -> None:
        """Take note of an outcome."""
        if result.line:
            self._last = result
        if result.kind in {"delivered", "refused"}:
            self._failing_since = None
            self._turn("up")
            return
        if result.settles or result.kind == "waits" or not result.line:
            return
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            self._failing_at = stamp(self._books.now())
        if result.kind == "paused":
            self._turn("paused", result.reason)
        elif time.monotonic() - self._failing_since >= PATIENCE_S:
            self._turn("down", result.reason)

    def settle(self) -> None:
        """Nothing more will be tried for now: what was a hiccup so far is the state of the line."""
        if self._last is not None and self._last.kind == "deferred":
            self._told_at = -RETELL_MAX_S  # whoever asks now wants to know it as it is
            self._turn("down", self._last.reason)

    @property
    def failing(self) -> bool:
        """Did the last attempt fail, or was the line down when the program last ran?"""
        return self._failing_since is not None or self.link in {"down", "paused"}

    def skewed(self, document: Document, result: Outcome) -> dict[str, Any] | None:
        """Is this machine's clock, or the till's, far from Omneo's?"""
        if result.date is None:
            return None
        said = document.content.get("transacted_at") or document.content["issued_at"]
        till = local_time(said, document.content["timezone"])
        return window.skew(self._books.now(), result.date, till, document.received_at)

    def clock_flags(self, skewed: dict[str, Any] | None, result: Outcome) -> list[tuple[str, dict[str, Any]]]:
        """What to say of that. This machine's clock is told once, until the two agree again."""
        if result.date is None:
            return []
        told, self.clock_told = self.clock_told, skewed is not None and skewed["whose"] == "this machine"
        return [("clock_skew", skewed)] if skewed is not None and not (told and self.clock_told) else []

    def _turn(self, link: str, reason: str = "") -> None:
        now = time.monotonic()
        if link == self.link and (reason == self._reason or now - self._told_at < self._retell_s):
            return
        self._retell_s = RETELL_S if link != self.link else min(2 * self._retell_s, RETELL_MAX_S)
        self.link, self._reason, self._told_at = link, reason, now
        facts = {"link": link, "reason": reason} | boot_facts()
        if link == "down":
            facts["since"] = self._failing_at
        self._books.record(Entry("line", facts=facts))
        self._books.flush()
        self._say(f"line_{link}", reason=reason)
