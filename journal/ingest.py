"""
The way of a sale into the journal, told once: `sweep()` from top to bottom.

Starting up is the first sweep: whatever a power cut interrupted is simply still in the spool, or is a repeat.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Any

from journal import canary, check, document, hints, known, log, reserve
from journal.files import CANARY, Contents
from journal.leaving import Leaving
from journal.notify import Pulse
from journal.reserve import Room
from journal.say import Say
from journal.spool import Spool

RESCAN_S = 2.0  # the directory is the truth: network shares send no events, and a queue of events can overflow
ONCE_WAIT_S = 3.0  # how long `--once` waits for files that are not whole yet …
ONCE_LOOK_S = 0.05  # … and how often it looks meanwhile
LAST_S = 5.0  # how long an end waits for the disk to let taken files go: a burst of them may take minutes

Chore = Callable[[], object]  # what is done beside sweeping, such as making a checkpoint when one is due


@dataclass(slots=True)
class Swept:
    """What one sweep did."""

    taken: int = 0
    repeated: int = 0
    rejected: int = 0


def opened(db: Connection, delivery: Path, *, say: Say) -> None:
    """The entry at every start: clock, boot, and the other book's head, so that each book vouches for the other."""
    facts: dict[str, Any] = {"program": "omneo-journal", **log.boot_facts()}
    if (other := head_of(delivery, say)) is not None:
        facts["other_book"] = {"entries": other[0], "head": other[1].hex()}
    log.append(db, [log.Entry("opened", facts=facts)])


def head_of(delivery: Path, say: Say) -> tuple[int, bytes] | None:
    """The delivery book's head. Whatever is the matter with that book, it never keeps a sale out of this one."""
    if not os.path.lexists(delivery):
        return None
    try:
        with closing(log.open_book(delivery, "delivery", write=False)) as other:
            return log.head(other)
    except (log.Unusable, log.NotNow, DatabaseError) as error:
        say("delivery_unreadable", reason=str(error))
        return None


def sweep(
    spool: Spool,
    db: Connection,
    *,
    say: Say,
    now: log.Clock = log.utc_now,
    room: Room = reserve.none,
    pulse: Pulse | None = None,
) -> Swept:
    """
    Take everything that is due. Raises log.NotNow when the journal can't be written now, or the disk has no `room` for
    more: the files stay.
    """
    swept, pulse = Swept(), pulse or Pulse()
    try:
        for batch in spool.batches(spool.ready(), time.monotonic()):
            _take(batch, spool, db, swept, say=say, now=now, room=room)
            pulse.beat()
            spool.let_go(pulse.beat, Leaving.fits)
    except log.NotNow:  # the disk may be full: this makes room, whatever else has come
        spool.let_go(pulse.beat, Leaving.empty)
        raise
    if not spool.more:
        spool.let_go(pulse.beat)
    spool.swept_at = time.time()
    if swept != Swept():
        say("swept", taken=swept.taken, repeated=swept.repeated, rejected=swept.rejected)
    return swept


def _take(
    batch: list[Contents], spool: Spool, db: Connection, swept: Swept, *, say: Say, now: log.Clock, room: Room
) -> None:
    """One commit's worth of files."""
    found = [(contents, read(contents)) for contents in batch]
    due = [pair for pair in found if pair[1].whole or spool.stands_still(pair[0].file, time.monotonic())]
    if not due:
        return
    room()
    for contents, verdict in enter(due, db, now):  # In the log, on disk: only now may the files go.
        gone = retire(spool, contents, verdict, say)
        spool.left -= gone
        swept.taken += verdict.fate == "accept" and verdict.document.kind != "canary"
        swept.repeated += verdict.fate == "repeat" and gone and verdict.document.kind != "canary"
        swept.rejected += verdict.fate == "reject" and gone


def enter(
    due: list[tuple[Contents, document.Document]], db: Connection, now: log.Clock
) -> list[tuple[Contents, check.Verdict]]:
    """Judge a batch against what the journal holds, and append what follows: one commit."""
    with log.writing(db):
        held = known.Known(db)
        verdicts = [
            (contents, check.judge(found, held, size=contents.file.size, sha256=contents.sha256))
            for contents, found in due
        ]
        entries = [entry for _, verdict in verdicts for entry in verdict.entries] + check.gaps(held)
        if entries:
            log.append(db, entries, now=now)
    return verdicts


def read(contents: Contents) -> document.Document:
    """What stands in a file. One over the limit is not looked into."""
    if contents.body is None:
        return document.Document(contents.file.name, b"", "invalid", None, None, check.TOO_LARGE, (), whole=False)
    if contents.file.name == CANARY and (number := canary.number(contents.body)) is not None:
        return document.Document(CANARY, contents.body, "canary", None, {"canary": number})
    return document.read(contents.file.name, contents.body)


def retire(spool: Spool, contents: Contents, verdict: check.Verdict, say: Say) -> bool:
    """
    The file goes, or moves to rejected/ with the reason beside it. False: the file is still there.

    A repeat with a reason is a broken file that the log has already: if it isn't in rejected/ either, the power went
    between the two, and it moves there now.
    """
    nothing_to_keep = verdict.fate == "repeat" and (not verdict.reason or spool.was_rejected(contents.file))
    if verdict.fate == "accept" or nothing_to_keep:
        return spool.retire(contents.file)
    problems = [{"pointer": p.pointer, "message": p.message} for p in verdict.document.problems]
    gone = spool.reject(contents.file, {"reason": verdict.reason, "problems": problems, "seq": verdict.seq})
    if gone:
        pointers = [check.public(p.pointer) for p in verdict.document.problems]
        say("rejected", seq=verdict.seq, reason=verdict.reason, pointers=pointers)
    return gone


def _nothing() -> None:
    """Without a key no checkpoint is made."""


def once(spool: Spool, db: Connection, *, say: Say, keep: Chore = _nothing, room: Room = reserve.none) -> bool:
    """One sweep, and a short wait for files that are not whole yet. True when nothing is left for another time."""
    give_up = time.monotonic() + ONCE_WAIT_S
    keep()
    sweep(spool, db, say=say, room=room)
    while spool.more:
        sweep(spool, db, say=say, room=room)
    while spool.next_due(time.monotonic()) is not None:
        if time.monotonic() > give_up and not spool.measure.going:
            return False
        time.sleep(ONCE_LOOK_S)
        sweep(spool, db, say=say, room=room)
    return True


def run(
    spool: Spool,
    db: Connection,
    delivery: Path,
    stop: threading.Event,
    wake: threading.Event,
    *,
    say: Say,
    chores: Sequence[Chore] = (),
    room: Room = reserve.none,
    pulse: Pulse | None = None,
) -> None:
    """Sweep until stopped. `wake` is set by a file event, or by whoever sets `stop`; `chores` are done each time."""
    patient, pulse = Patience(say), pulse or Pulse()
    # An entry is on disk before the spool is looked at: after an fsync that failed, a commit may be in memory only, and
    # a file would pass for a repeat of what the next power cut takes. A commit that succeeds puts all of it on disk.
    while not stop.is_set() and not patient.with_(lambda: opened(db, delivery, say=say), "opened"):
        stop.wait(RESCAN_S)
    with hints.watching(wake, _hopeful, hints.NEW, say) as events:
        events.look_at(spool.directories)
        say("ready")
        pulse.ready()
        while not stop.is_set():
            wake.clear()
            for chore in chores:  # first, so that a day is closed before the next one's sales
                patient.with_(chore)
            if patient.with_(lambda: sweep(spool, db, say=say, room=room, pulse=pulse), "sweep") and spool.more:
                wake.set()
            events.look_at(spool.directories)
            pulse.beat()
            due = spool.next_due(time.monotonic())
            wake.wait(RESCAN_S if due is None else min(RESCAN_S, due + 0.01))
        pulse.stopping()
    give_up = time.monotonic() + LAST_S
    spool.let_go(until=lambda _: time.monotonic() > give_up)
    say("stopped")


def _hopeful(name: bytes) -> bool:
    """Could it be a new document? Hidden names are still being written, or our own."""
    return name.endswith(b".json") and not name.startswith(b".")


class Patience:
    """What can't be done now is done later, and said once, however often it is tried."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._reasons: dict[object, str] = {}  # what can't be done now, and why

    def with_(self, act: Callable[[], object], name: object = None) -> bool:
        """Do it. False: not now (the journal is held, the disk is full, the spool is not there)."""
        name = act if name is None else name
        try:
            act()
        except (log.NotNow, OSError) as error:
            reason = str(error) if isinstance(error, log.NotNow) else f"the spool can't be read: {error.strerror}"
            if reason not in self._reasons.values():
                self._say("not_now", reason=reason)
            self._reasons[name] = reason
            return False
        if self._reasons.pop(name, None) and not self._reasons:
            self._say("going_on")
        return True
