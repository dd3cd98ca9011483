"""What the ingest program says of itself to Prometheus. The books' own figures are the forwarder's to tell."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection, OperationalError
from typing import Any

from journal import log
from journal.gauges import Page, Writer
from journal.say import Say
from journal.spool import Spool

FILE = "omneo-journal.prom"
DESCRIBED = {
    "omneo_journal_last_pass_timestamp_seconds": ("When the ingest loop last came by", ""),
    "omneo_journal_last_sweep_timestamp_seconds": ("When the spool was last swept to its end", ""),
    "omneo_spool_files_left": ("Files that the last sweep left in the spool", ""),
    "omneo_spool_left_seconds": ("For how long each sweep has left files in the spool", ""),
    "omneo_journal_entries": ("Entries in the journal", ""),
    "omneo_journal_free_bytes": ("Free space where the journal is", ""),
}


def writer(directory: Path, db: Connection, path: Path, spool: Spool, say: Say) -> Callable[[], None]:
    """A chore for the ingest loop. `path`: the journal's."""
    empty_at = time.monotonic()

    def look() -> dict[str, Any]:
        nonlocal empty_at
        if not spool.left:
            empty_at = time.monotonic()
        figures: dict[str, Any] = {
            "omneo_journal_last_pass_timestamp_seconds": time.time(),
            "omneo_journal_last_sweep_timestamp_seconds": spool.swept_at,
            "omneo_spool_files_left": spool.left,
            "omneo_spool_left_seconds": time.monotonic() - empty_at,
        }
        with suppress(OperationalError, OSError):
            figures["omneo_journal_entries"] = log.head(db)[0]
            there = os.statvfs(path.parent)
            figures["omneo_journal_free_bytes"] = there.f_bavail * there.f_frsize
        return figures

    return Writer(Page(DESCRIBED), directory / FILE, look, say)
