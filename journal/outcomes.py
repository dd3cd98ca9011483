"""
Words for the till: one small file for each document, that says what has become of it so far.

A till that drops files has no other ear. The files follow both books in a thread of their own, so that a directory that
is slow or missing never keeps a sale out of the journal; they can be lost, and are written anew when something happens.
"""

import json
import os
import sqlite3
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from journal import log, story
from journal.command import encode
from journal.say import Say
from schemas import KINDS

ENDING = ".outcome.json"
POSITION = ".position"
LOOK_S = 4.0
PIECE = 200  # entries at a time, and then a breath, so that a burst is taken first
BREATH_S = 0.05
AGAIN = 1000  # entries of each book that a start goes back: what a power cut may have taken of the files
NAME_MAX = 255 - len(ENDING) - len("..new")
TIDY_S = 3600.0
DAY_S = 86400.0

ADVICE = {  # what the shop can do about a flag; docs/operating.md says more
    "invalid": "Have the till mended, and enter the sale again under a new external_id.",
    "conflict": "Find out which till uses an external_id twice, and correct it by a new document.",
    "totals_mismatch": "Compare the receipt with the document; it was sent as it is.",
    "sequence_gap": "Look for the file that is missing, on the till and in rejected/.",
    "sale_refused": "Enter the sale again with what Omneo asks for, under a new external_id.",
    "poison": "Ask Omneo's support, with the external_id.",
    "reversal_window_exceeded": "Nothing at the till: the redemption went, but too late to be reversed.",
    "reversal_too_late": "Release it as a return (omneo-forwarder release), or settle it with the customer.",
    "redemption_missing": "Compare with the receipt: the redemption was not made, and the customer may owe it.",
    "redemption_refused": "The customer had the value at the till: decide who bears it.",
    "redemption_short": "The customer had more at the till than Omneo took: decide who bears the difference.",
    "doubtful": "Look at Omneo whether it is there, then omneo-forwarder release or abandon.",
    "clock_skew": "Set the clock, of the till or of the shop's box.",
}


def name_of(external_id: str) -> str:
    """The file's name: the external_id, what is not safe in a name written as %XX; cut, with its hash, if too long."""
    name = quote(external_id, safe="")
    name = "%2E" + name[1:] if name.startswith(".") else name
    if len(name) > NAME_MAX:
        name = f"{name[: NAME_MAX - 65]}-{sha256(external_id.encode()).hexdigest()}"
    return name + ENDING


class Outcomes:
    """Follows both books, and writes into a directory what they say of each document."""

    def __init__(self, journal: Path, delivery: Path, directory: Path, *, days: float, say: Say) -> None:
        """`days`: older files are removed."""
        self._journal, self._delivery, self._directory, self._say = journal, delivery, directory, say
        self._keep_s = days * DAY_S
        self._tidied_at = -TIDY_S
        self._told = ""
        self._upto: dict[str, int] | None = None
        self._books: sqlite3.Connection | None = None
        self._whole = False  # was there a delivery book when they were opened?

    def run_until(self, stop: threading.Event) -> None:
        """In a thread of its own, until stopped. What keeps it from working is said once."""
        while not stop.is_set():
            more = False
            try:
                more = self.follow()
                self._told = ""
            except (log.Unusable, log.NotNow, sqlite3.DatabaseError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                if reason != self._told:
                    self._say("no_outcomes", reason=reason)
                self._told = reason
                self.close()
            stop.wait(BREATH_S if more else LOOK_S)
        self.close()

    def close(self) -> None:
        """The books are opened again when they are needed."""
        if self._books is not None:
            self._books.close()
        self._books = None

    def follow(self) -> bool:
        """Write what is new, a piece of it. True: there is more."""
        books = self._open()
        heads = {"main": log.head(books)[0], "delivery": log.head(books, "delivery")[0]}
        upto = self._upto if self._upto is not None else self._begin(heads)
        reached = {schema: min(upto[schema] + PIECE, head) for schema, head in heads.items()}
        for seq in sorted(_touched(books, upto, reached)):
            self._write(books, seq)
        if reached != upto or self._upto is None:
            self._put(POSITION, log.as_json({"journal": reached["main"], "delivery": reached["delivery"]}).encode())
        self._upto = reached
        self._tidy()
        return reached != heads

    def _open(self) -> sqlite3.Connection:
        if self._books is not None and not self._whole and self._delivery.exists():
            self.close()
        if self._books is None:
            self._whole = self._delivery.exists()
            self._books = story.connect(self._journal, self._delivery)
        return self._books

    def _begin(self, heads: dict[str, int]) -> dict[str, int]:
        """Where the last run was, and a little back; where there was none, at the books' ends."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            last = json.loads((self._directory / POSITION).read_bytes())
            places = {"main": int(last["journal"]), "delivery": int(last["delivery"])}
            return {schema: max(0, min(places[schema], head) - AGAIN) for schema, head in heads.items()}
        return heads

    def _write(self, books: sqlite3.Connection, seq: int) -> None:
        told = outcome(books, seq)
        if told is not None:
            self._put(name_of(told["external_id"]), encode(told) + b"\n")

    def _put(self, name: str, content: bytes) -> None:
        draft = self._directory / f".{name}.new"
        draft.write_bytes(content)
        draft.replace(self._directory / name)

    def _tidy(self) -> None:
        """Old files go, now and then."""
        if time.monotonic() - self._tidied_at < TIDY_S:
            return
        self._tidied_at = time.monotonic()
        oldest = time.time() - self._keep_s
        with os.scandir(self._directory) as found:
            for entry in found:
                ours = entry.name.endswith((ENDING, f"{ENDING}.new")) and entry.is_file(follow_symlinks=False)
                if ours and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    with suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108


def _touched(books: sqlite3.Connection, upto: dict[str, int], reached: dict[str, int]) -> set[int]:
    """Documents of which something new is said."""
    kinds = ", ".join(f"'{kind}'" for kind in KINDS)
    seen: set[int] = set()
    for schema, of in (("main", f"(about IS NOT NULL OR kind IN ({kinds}))"), ("delivery", "about IS NOT NULL")):
        query = f"SELECT coalesce(about, seq) FROM {schema}.log WHERE seq > ? AND seq <= ? AND {of}"
        seen |= {seq for (seq,) in books.execute(query, (upto[schema], reached[schema])).fetchall()}
    return seen


def outcome(books: sqlite3.Connection, seq: int) -> dict[str, Any] | None:
    """What a till is told of a document. None of what was never taken: its words stand beside it in rejected/."""
    row = books.execute(
        "SELECT kind, external_id, state, received_at, settled_at, omneo_id, reason,"
        " (SELECT json_extract(facts, '$.words') FROM delivery.log WHERE seq = documents.settlement)"
        " FROM documents WHERE seq = ? AND kind <> 'invalid'",
        (seq,),
    ).fetchone()
    if row is None:
        return None
    kind, external_id, state, received_at, settled_at, omneo_id, reason, words = row
    flags = books.execute("SELECT flag, resolved_at FROM flags WHERE about = ? ORDER BY raised_at", (seq,)).fetchall()
    return {
        "external_id": external_id,
        "kind": kind,
        "seq": seq,
        "state": state,
        "journaled_at": received_at,
        "settled_at": settled_at,
        "omneo_id": omneo_id,
        "reason": ": ".join(str(part) for part in (reason, words) if part) or None,
        "flags": [
            {"flag": flag, "what_to_do": ADVICE.get(flag, ""), "open": resolved is None} for flag, resolved in flags
        ],
    }
