"""
The way of a sale into the journal, told once: `sweep()` from top to bottom.

Starting up is the first sweep: whatever a power cut interrupted is simply still in the spool, or is a repeat.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from journal import check, document, log
from journal.say import Say
from journal.spool import REJECTED, Contents, Spool

RESCAN_S = 2.0  # the directory is the truth: network shares send no events, and a queue of events can overflow
ONCE_WAIT_S = 3.0  # how long `--once` waits for files that are not whole yet


@dataclass(slots=True)
class Swept:
    """What one sweep did."""

    taken: int = 0
    repeated: int = 0
    rejected: int = 0


def opened(db: Connection, delivery: Path) -> None:
    """The entry at every start: which clock and boot, and what the other book's head is, so that each vouches for both."""
    facts: dict[str, Any] = {"program": "omneo-journal", **log.boot_facts()}
    if delivery.exists():
        other = log.open_book(delivery, "delivery", write=False)
        entries, digest = log.head(other)
        other.close()
        facts["other_book"] = {"entries": entries, "head": digest.hex()}
    log.append(db, [log.Entry("opened", facts=facts)])


def sweep(spool: Spool, db: Connection, *, say: Say, now: log.Clock = log.utc_now) -> Swept:
    """Take everything that is due. Raises log.NotNow when the journal can't be written now: the files stay."""
    swept = Swept()
    for batch in spool.batches(spool.ready(), time.monotonic()):
        found = [(contents, read(contents)) for contents in batch]
        due = [pair for pair in found if pair[1].whole or spool.stands_still(pair[0].file, time.monotonic())]
        known = check.Known(db)
        verdicts = [
            (contents, check.judge(read_, known, size=contents.file.size, sha256=contents.sha256))
            for contents, read_ in due
        ]
        entries = [entry for _, verdict in verdicts for entry in verdict.entries] + check.gaps(known)
        if entries:
            log.append(db, entries, now=now)
        for contents, verdict in verdicts:  # In the log, on disk: only now may the files go.
            retire(spool, contents, verdict, say)
            swept.taken += verdict.fate == "accept"
            swept.repeated += verdict.fate == "repeat"
            swept.rejected += verdict.fate == "reject"
    if swept != Swept():
        say("swept", taken=swept.taken, repeated=swept.repeated, rejected=swept.rejected, head=log.head(db)[0])
    return swept


def read(contents: Contents) -> document.Document:
    """What stands in a file. One over the limit is not looked into."""
    if contents.body is None:
        return document.Document(contents.file.name, b"", "invalid", None, None, check.TOO_LARGE, (), whole=False)
    return document.read(contents.file.name, contents.body)


def retire(spool: Spool, contents: Contents, verdict: check.Verdict, say: Say) -> None:
    """The file goes, or moves to rejected/ with the reason beside it."""
    if verdict.fate != "reject":
        spool.retire(contents.file)
        return
    problems = [{"pointer": p.pointer, "message": p.message} for p in verdict.document.problems]
    spool.reject(contents.file, {"reason": verdict.reason, "problems": problems, "seq": verdict.seq})
    say("rejected", seq=verdict.seq, reason=verdict.reason, pointers=[problem["pointer"] for problem in problems])


def once(spool: Spool, db: Connection, *, say: Say) -> bool:
    """One sweep, and a short wait for files that are not whole yet. True when nothing is left for another time."""
    give_up = time.monotonic() + ONCE_WAIT_S
    sweep(spool, db, say=say)
    while (due := spool.next_due(time.monotonic())) is not None:
        if time.monotonic() + due > give_up:
            return False
        time.sleep(due + 0.01)
        sweep(spool, db, say=say)
    return True


def run(spool: Spool, db: Connection, stop: threading.Event, wake: threading.Event, *, say: Say) -> None:
    """Sweep until stopped. `wake` is set by a file event, or by whoever sets `stop`."""
    with watch(spool.root, wake) as still_watched:
        while not stop.is_set():
            wake.clear()
            try:
                sweep(spool, db, say=say)
            except log.NotNow as reason:
                say("not_now", reason=str(reason))
            still_watched()
            due = spool.next_due(time.monotonic())
            wake.wait(RESCAN_S if due is None else min(RESCAN_S, due + 0.01))


class Hint(FileSystemEventHandler):
    """A file event does one thing: it wakes the sweep. What the event says is not believed."""

    def __init__(self, wake: threading.Event) -> None:
        """Set `wake` at each event that could be a new document."""
        self.wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake up, unless the event is of our own making (private names, rejected files)."""
        path = str(event.dest_path or event.src_path)
        name = path.rpartition("/")[2]
        if event.is_directory or (name.endswith(".json") and not name.startswith(".") and f"/{REJECTED}/" not in path):
            self.wake.set()


@contextmanager
def watch(root: Path, wake: threading.Event) -> Iterator[Callable[[], None]]:
    """Watch the spool; the value says that it should look whether the directory is still the same one."""
    handler = Hint(wake)
    events = [FileCreatedEvent, FileClosedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent]
    watched = root.stat()
    observer = Observer()
    watching = observer.schedule(handler, str(root), recursive=True, event_filter=events)
    observer.start()

    def still_watched() -> None:
        nonlocal watched, watching
        there = root.stat()
        if (there.st_dev, there.st_ino) != (watched.st_dev, watched.st_ino):
            observer.unschedule(watching)
            watching = observer.schedule(handler, str(root), recursive=True, event_filter=events)
            watched = there
            wake.set()

    try:
        yield still_watched
    finally:
        observer.stop()
        observer.join()
