"""
The way back from a backup, which is never silent: what would be forgotten is said first, and what was done is an entry.

The books that were here are moved aside, and never deleted. The journal comes last: as long as it isn't there no
program starts, so that a power cut leaves nothing half restored, and the same command goes on.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

from journal import archive, log
from journal.backup import DELIVERY, JOURNAL, Head, copy
from journal.checkpoint import Taken, origin_of
from journal.verify import examine
from schemas import KINDS

# How far the delivery book has seen the journal: by what it is about, and by the heads that it noted.
SEEN = (
    "SELECT max(coalesce((SELECT max(about) FROM log WHERE about IS NOT NULL), 0),"
    " coalesce((SELECT max(json_extract(facts, '$.other_book.entries')) FROM log WHERE about IS NULL"
    " AND external_id IS NULL AND kind IN ('created', 'opened', 'turn', 'reconciled')), 0))"
)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, and what it cost."""

    entries: int
    lost: list[str]  # what the books that were here, or a checkpoint, had seen beyond the backup
    aside: list[Path]  # where the books that were here are now


def restore(
    source: Path,
    journal: Path,
    delivery: Path,
    by: str,
    reason: str,
    *,
    anyway: bool = False,
    taken: Sequence[Taken] = (),
    now: log.Clock = log.utc_now,
) -> Restored:
    """
    A backup takes the place of the books, which are moved aside. Both programs have to be stopped.

    Raises log.Unusable when the backup is older than what is known here, unless it is to be done anyway. Each book
    goes on with an entry that says who, why and what is missing.
    """
    drafts = [path.with_name(f".{path.name}.restored.new") for path in (journal, delivery)]
    with _all_stopped(journal, delivery):
        _discard(drafts)  # of a run that was killed
        try:
            heads = [_draft(source / JOURNAL, "journal", drafts[0])]
            if (source / DELIVERY).exists():
                heads.append(_draft(source / DELIVERY, "delivery", drafts[1]))
            lost = list(_lost(drafts, journal, delivery, heads, taken))
            within = [each for each in taken if each.size <= heads[0][0]]
            if (problems := examine(drafts[0], drafts[1], (), within).told["problems"]) and not anyway:
                raise log.Unusable(f"The backup does not stand: {problems[0]['what']}. Take another, or add --anyway.")
            if lost and not anyway:
                raise log.Unusable(f"{' '.join(lost)} Nothing was changed. To go back all the same, add --anyway.")
            facts = {"by": by, "reason": reason, "lost": lost}
            carried = _ask(journal, "journal", lambda db: _carried(db, heads[0]))
            _sign(drafts[0], "journal", facts, carried if isinstance(carried, list) else [], now=now)
            if len(heads) > 1:
                _sign(drafts[1], "delivery", facts | {"unknown_upto": heads[0][0]}, [], now=now)
            stamp = now().strftime("%Y%m%dT%H%M%S")
            aside = [*_aside(journal, stamp), *_aside(delivery, stamp)]
            if len(heads) > 1:
                drafts[1].rename(delivery)
            log.sync_directory(delivery.parent)
            drafts[0].rename(journal)
            log.sync_directory(journal.parent)
        except OSError as error:
            raise log.system_failed(error, journal) from error
        finally:
            _discard(drafts)
    return Restored(heads[0][0] + 1, lost, aside)


@contextmanager
def _all_stopped(journal: Path, delivery: Path) -> Iterator[None]:
    with (
        log.only_instance(journal, "omneo-journal ingest"),
        log.only_instance(delivery, "omneo-forwarder run"),
        archive.keeping(journal),
    ):
        yield


def _discard(drafts: Sequence[Path]) -> None:
    for draft in drafts:
        draft.unlink(missing_ok=True)
        draft.with_name(f"{draft.name}-journal").unlink(missing_ok=True)


def _draft(source: Path, book: str, draft: Path) -> Head:
    """A copy of a book of the backup, where it will be needed."""
    with closing(log.open_book(source, book, write=False)) as db:
        head = log.head(db)
    copy(source, book, draft, head)
    log.belong(draft)
    return head


def _sign(draft: Path, book: str, facts: dict[str, Any], carried: Sequence[log.Entry], *, now: log.Clock) -> None:
    """The entry that every restored book goes on with. What was redacted since the backup goes again."""
    with closing(log.open_book(draft, book, write=True)) as db, log.writing(db):
        log.append(db, [log.Entry("restored", facts=facts | log.boot_facts()), *carried], now=now)
        for entry in carried:
            if isinstance(entry.about, int):
                log.erase(db, entry.about)


def _carried(db: sqlite3.Connection, head: Head) -> list[log.Entry]:
    """Redactions since the backup was made, and packs that may hold copies: a restore must not undo an erasure."""
    if _digest(db, head[0]) != head[1]:
        return []
    rows = db.execute(
        "SELECT kind, about, external_id, facts FROM log WHERE seq > ?"
        " AND (kind = 'pack' OR (kind = 'redaction' AND about <= ?)) ORDER BY seq",
        (head[0], head[0]),
    ).fetchall()
    return [
        log.Entry(kind, about, external_id, loads(facts) | {"again": True}) for kind, about, external_id, facts in rows
    ]


def _aside(path: Path, stamp: str) -> Iterator[Path]:
    """A book that was here is kept, with what a killed writer left beside it (which belongs to no other book)."""
    target = path.with_name(f"{path.name}.replaced-{stamp}")
    remains = path.with_name(f"{path.name}-journal")
    if os.path.lexists(path):
        path.rename(target)
        yield target
    elif os.path.lexists(remains) and (earlier := _replaced(path)) is not None:
        target = earlier  # the power went between the two
    if os.path.lexists(remains):
        remains.rename(target.with_name(f"{target.name}-journal"))
    log.sync_directory(path.parent)


def _replaced(path: Path) -> Path | None:
    """The book that was moved aside last."""
    found = sorted(each for each in path.parent.glob(f"{path.name}.replaced-*") if not each.name.endswith("-journal"))
    return found[-1] if found else None


def _lost(
    drafts: Sequence[Path], journal: Path, delivery: Path, heads: Sequence[Head], taken: Sequence[Taken]
) -> Iterator[str]:
    """What would be forgotten, in sentences: by the books that are here, and by checkpoints."""
    for draft, here, head, book in zip(drafts, (journal, delivery), heads, ("journal", "delivery"), strict=False):
        with closing(log.open_book(draft, book, write=False)) as db:
            yield from _beyond(here, book, head, db)
    seen = _ask(delivery, "delivery", lambda db: db.execute(SEEN).fetchone()[0])
    if isinstance(seen, int) and seen > heads[0][0]:
        yield f"The delivery book here has seen the journal at entry {seen}, the backup ends at {heads[0][0]}."
    with closing(log.open_book(drafts[0], "journal", write=False)) as db:
        ours = origin_of(db)
    for each in taken:
        if not ours.startswith(each.origin):
            yield f"The checkpoint {each.name} is of another journal than the backup."
        elif each.size > heads[0][0]:
            yield f"The checkpoint {each.name} is over {each.size} entries, the backup has {heads[0][0]}."


def _beyond(here: Path, book: str, head: Head, backup: sqlite3.Connection) -> Iterator[str]:
    """What the book that is here, or was moved aside last, has and the backup has not."""
    name = "journal" if book == "journal" else "delivery book"
    there = _ask(here, book, lambda db: (log.head(db), _digest(db, head[0]), _documents(db, head[0])))
    if there is None:
        return
    if isinstance(there, str):
        yield f"The {name} here can't be read, so nobody can tell whether it is newer: {there}"
        return
    (entries, digest), at_ours, documents = there
    if (at_ours if entries >= head[0] else digest) != (head[1] if entries >= head[0] else _digest(backup, entries)):
        yield f"The {name} here is not the one that the backup was made of, or went another way since."
    elif entries > head[0]:
        more = f", {documents} documents among them" if book == "journal" else ""
        yield f"The {name} here has {entries - head[0]} entries more than the backup{more}."


def _ask(path: Path, book: str, question: Callable[[sqlite3.Connection], Any]) -> Any:
    """An answer of the book that is here, or of the one that was moved aside last; words if it can't be read."""
    there = path if os.path.lexists(path) else _replaced(path)
    if there is None:
        return None
    try:
        with closing(log.open_book(there, book, write=False)) as db:
            return question(db)
    except (log.Unusable, sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)


def _digest(db: sqlite3.Connection, seq: int) -> bytes | None:
    row = db.execute("SELECT digest FROM log WHERE seq = ?", (seq,)).fetchone()
    return row[0] if row else None


def _documents(db: sqlite3.Connection, after: int) -> int:
    kinds = ", ".join(f"'{kind}'" for kind in KINDS)
    return int(db.execute(f"SELECT count(*) FROM log WHERE seq > ? AND kind IN ({kinds})", (after,)).fetchone()[0])
