"""
A book that an earlier version wrote is brought to today's form: in one commit, with a copy of it kept beside.

Each book is brought forward by the program that it belongs to, when that starts. Whoever only reads can read any
earlier form: so far only indexes were added, and what an entry is has never changed.
"""

import os
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from journal import log
from journal.book import FORMAT, belong, open_book, reading_failed, sync_directory, system_failed, uri

NAMES = (
    "CREATE INDEX IF NOT EXISTS log_names ON log (json_extract(facts, '$.names'))"
    " WHERE json_extract(facts, '$.names') IS NOT NULL"
)
GAP = (
    "CREATE INDEX IF NOT EXISTS log_gap ON log (json_extract(facts, '$.terminal'))\n"
    "    WHERE kind = 'flag' AND json_extract(facts, '$.flag') = 'sequence_gap'"
)
# What leads from a form to the next. Frozen: a step is never changed once a version with it was given out.
STEPS = {1: (NAMES, GAP)}
MAY_LACK = {1: {"log_names", "log_gap"}}  # the first form was given out with and without these


def forward(path: Path, book: str, now: log.Clock = log.utc_now) -> Path | None:
    """
    Bring a book to today's form. The copy that was kept of it, or None if it was of this form already.

    Whoever calls this holds the book's lock. Raises log.Unusable, and log.NotNow if the disk is too full for a copy.
    """
    with closing(open_book(path, book, write=True, older=True)) as db:
        was = db.execute("PRAGMA user_version").fetchone()[0]
        if was == FORMAT:
            return None
        with log.writing(db):  # nobody else writes from here on, so the copy is what is changed
            kept = _keep(path, was)
            for form in range(was, FORMAT):
                for statement in STEPS[form]:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            facts = {"from": was, "to": FORMAT, "kept": kept.name, "version": version("omneo-journal")}
            log.append(db, [log.Entry("migrated", facts=facts | log.boot_facts())], now=now)
    return kept


def _keep(path: Path, was: int) -> Path:
    """A copy beside the book, durable before it has its name; one of an earlier try is replaced."""
    kept = path.with_name(f"{path.name}.format-{was}")
    draft = kept.with_name(f".{kept.name}.new")
    try:
        draft.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(uri(path, "ro"), uri=True)) as source,
            closing(sqlite3.connect(uri(draft, "rwc"), uri=True)) as copy,
        ):
            source.backup(copy)
        draft.chmod(0o440)
        belong(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(kept)
        sync_directory(path.parent)
    except OSError as error:
        raise system_failed(error, kept) from error
    except sqlite3.OperationalError as error:
        raise reading_failed(error, kept) from error
    finally:
        with suppress(OSError):
            draft.unlink()
    return kept
