"""
A copy of both books as they were at one moment, made while both programs run.

It is made entry by entry up to two heads that belong together, in short pieces, so that nobody has to wait, and
is walked by `verify` before it gets its name.
"""

import os
import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from journal import log
from journal.verify import verify

JOURNAL, DELIVERY = "journal.db", "delivery.db"  # their names in a backup
TRIES = 100

Verified = dict[str, Any]  # what `verify --json` prints
Head = tuple[int, bytes]


def backup(journal: Path, delivery: Path, dest: Path) -> Verified:
    """Both books (the second if it is there) into a new directory. Returns what `verify` says of the copy."""
    if os.path.lexists(dest):
        raise log.Unusable(f"There is something at {dest} already, and no backup is ever written over: name a new one.")
    draft = dest.with_name(f".{dest.name}.{os.getpid()}.new")
    _sweep(dest)
    try:
        draft.mkdir(parents=True, mode=0o750)
        for _ in range(TRIES):
            ours, theirs = _heads(journal, delivery)
            copy(journal, "journal", draft / JOURNAL, ours)
            if theirs is not None:
                copy(delivery, "delivery", draft / DELIVERY, theirs)
            if not _erased_since(journal, ours[0]):  # else it may hold what somebody has just redacted
                break
        else:
            raise log.NotNow("Bodies are leaving the journal all the time; try again when that is over.")
        told = verify(draft / JOURNAL, draft / DELIVERY)
        log.sync_directory(draft)
        draft.rename(dest)
        log.sync_directory(dest.parent)
    except OSError as error:
        raise log.system_failed(error, dest) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return told


def _sweep(dest: Path) -> None:
    """What killed runs of this backup left."""
    for remains in dest.parent.glob(f".{dest.name}.*.new"):
        pid = remains.name.split(".")[-2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(remains, ignore_errors=True)


def _heads(journal: Path, delivery: Path) -> tuple[Head, Head | None]:
    """Heads of one moment: neither book speaks of anything of the other that isn't there."""
    with ExitStack() as opened:
        first = opened.enter_context(closing(log.open_book(journal, "journal", write=False)))
        if not delivery.exists():
            return log.head(first), None
        second = opened.enter_context(closing(log.open_book(delivery, "delivery", write=False)))
        for _ in range(TRIES):
            before, ours, after = log.head(second), log.head(first), log.head(second)
            if before == after:
                return ours, before
    raise log.NotNow("The delivery book grows too fast to take both books at one moment; try again.")


def copy(source: Path, book: str, draft: Path, head: Head) -> None:
    """One book up to this head, under another name."""
    draft.unlink(missing_ok=True)
    draft.with_name(f"{draft.name}-journal").unlink(missing_ok=True)  # SQLite would take it for this one's
    try:
        log.copy(source, book, draft, head[0])
    except sqlite3.OperationalError as error:
        raise log.reading_failed(error, source) from error
    draft.chmod(0o640)
    with closing(log.open_book(draft, book, write=False)) as db:
        if log.head(db) != head:
            raise log.Damaged(f"{source} changed in its middle while it was copied. Run omneo-journal verify.")


def _erased_since(journal: Path, seq: int) -> bool:
    query = "SELECT 1 FROM log WHERE seq > ? AND kind IN ('redaction', 'archived') LIMIT 1"
    with closing(log.open_book(journal, "journal", write=False)) as db:
        return db.execute(query, (seq,)).fetchone() is not None
