"""
Bodies of settled documents leave the journal for packs; their entries stay, and the chain with them.

Nothing is deleted that isn't in a pack that was written, synced, read back, compared and put in place. A power cut at
any moment leaves each body in the journal, in a pack, or in both; the next run takes up where this one was.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime
from itertools import count, islice
from json import loads
from pathlib import Path
from typing import Any

from journal import chain, checkpoint, log, note, packed, story
from journal.packed import Packed

SETTLED = ("delivered", "refused", "cancelled", "abandoned", "invalid")
PACKED = 50_000  # documents in one pack
PIECE = 200  # documents in one commit: what writes beside us waits no longer than for one of these
BREATH_S = 0.005  # between two commits, so that it gets its turn

Due = tuple[int, str, Any]  # seq, state, omneo_id


def keeping(journal: Path) -> AbstractContextManager[None]:
    """One at a time of those that take bodies out: a redaction must not miss the copy that a pack just gets."""
    return log.only_instance(journal.with_name(f"{journal.name}.keep"), "omneo-journal archive, redact or restore")


def archive(
    journal: Path,
    delivery: Path,
    before: datetime,
    out: Path,
    *,
    key: note.Key | None = None,
    now: log.Clock = log.utc_now,
) -> Iterator[dict[str, Any]]:
    """
    Move bodies of what was settled and came before a moment into packs in `out`. Yields what each pack is.

    With a key they are signed. Raises log.Unusable for another journal's key.
    """
    with closing(log.open_book(journal, "journal", write=True)) as db, keeping(journal):
        checkpoint.fits(key, checkpoint.origin_of(db))
        log.make_directory(out)
        with suppress(PermissionError):
            log.sync_directory(out.parent)  # whoever made it may have been killed before that
        for remains in out.glob(".journal-*.zip.new"):  # of a run that was killed
            remains.unlink()
        if (unfinished := _unfinished(db, out)) is not None:
            _let_go(db, out / unfinished["pack"], unfinished, now)
            yield unfinished
        due = list(_due(journal, delivery, log.stamp(before)))
        for start in range(0, len(due), PACKED):
            facts = _put(db, due[start : start + PACKED], log.stamp(before), out, key=key, now=now)
            _let_go(db, out / facts["pack"], facts, now)
            yield facts


def _due(journal: Path, delivery: Path, before: str) -> Iterator[Due]:
    """What may go: settled, old enough, its body here, and no flag on it open."""
    marks = ", ".join("?" * len(SETTLED))
    query = (
        "SELECT seq, state, omneo_id FROM documents WHERE seq BETWEEN ? AND ? AND received_at < ?"
        f" AND state IN ({marks}) AND EXISTS (SELECT 1 FROM main.body WHERE body.seq = documents.seq) ORDER BY seq"
    )
    with story.both_books(journal, delivery) as books:
        flagged = {about for (about,) in books.execute("SELECT about FROM flags_open").fetchall()}
        first, last = books.execute("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM main.body").fetchone()
        for low in range(first, last + 1, story.PIECE):
            piece = books.execute(query, (low, low + story.PIECE - 1, before, *SETTLED)).fetchall()
            yield from (row for row in piece if row[0] not in flagged)


def _put(
    db: sqlite3.Connection, due: Sequence[Due], before: str, out: Path, *, key: note.Key | None, now: log.Clock
) -> dict[str, Any]:
    """
    A pack in its place, whose every document was compared with the journal.

    The journal learns of it first: no copy of a body may lie where a later redaction doesn't know of it.
    """
    span = {"first": due[0][0], "last": due[-1][0], "before": before}
    identity = _identity(db)
    name = _free_name(out, f"journal-{''.join(filter(str.isalnum, identity))[:8]}-{due[0][0]:08d}-{due[-1][0]:08d}")
    draft = out / f".{name}.new"
    try:
        digest = packed.write(draft, documents(db, due), {"journal": identity, **span}, key)
        whole = sum(_stands(db, document) == "" for document in packed.read(draft))
        if whole != len(due):
            raise log.NotNow(f"{draft} did not come back from the disk as it was written; look at that disk.")
        facts = {"pack": name, "sha256": digest, "documents": len(due), **span}
        log.append(db, [log.Entry("pack", facts=facts)], now=now)
        draft.chmod(0o640)
        draft.rename(out / name)
    except packed.Broken as error:
        raise log.NotNow(f"{error}: it was just written. Look at that disk.") from error
    finally:
        draft.unlink(missing_ok=True)
    return facts


def _free_name(out: Path, stem: str) -> str:
    """NAME.zip, or NAME-2.zip, …: a pack is never written over."""
    names = (f"{stem}.zip" if number == 1 else f"{stem}-{number}.zip" for number in count(1))
    return next(name for name in names if not os.path.lexists(out / name))


def documents(db: sqlite3.Connection, due: Sequence[Due]) -> Iterator[Packed]:
    """What goes into a pack, read in pieces."""
    for piece in pieces(due):
        rows = {row[0]: row for row in _rows(db, [seq for seq, _, _ in piece])}
        for seq, state, omneo_id in piece:
            *columns, digest, salt, body = rows[seq]
            yield Packed(chain.Row(*columns), digest, state, omneo_id, salt, body)


def _rows(db: sqlite3.Connection, seqs: Sequence[int]) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT log.seq, at, kind, about, external_id, facts, body_hash, digest, salt, bytes"
        f" FROM log LEFT JOIN body ON body.seq = log.seq WHERE log.seq IN ({', '.join('?' * len(seqs))})",
        seqs,
    ).fetchall()


def pieces(whole: Iterable[Any]) -> Iterator[list[Any]]:
    """So many as go into one commit."""
    each = iter(whole)
    while piece := list(islice(each, PIECE)):
        yield piece


def _let_go(db: sqlite3.Connection, path: Path, facts: dict[str, Any], now: log.Clock) -> None:
    """What is in a pack leaves the journal, each with an entry that says where it is."""
    log.sync_directory(path.parent)  # it may have been put there by a run that was killed before that
    told = {"pack": facts["pack"], "sha256": facts["sha256"], "by": "omneo-journal"}
    for piece in pieces(packed.read(path)):
        with log.writing(db):
            gone = [each for each in piece if log.has_body(db, each.row.seq) and _stands(db, each) == ""]
            log.append(db, [_archived(document, told) for document in gone], now=now)
            for document in gone:
                log.erase(db, document.row.seq)
        time.sleep(BREATH_S)


def _archived(document: Packed, told: dict[str, Any]) -> log.Entry:
    became = {"state": document.state} | ({"omneo_id": document.omneo_id} if document.omneo_id is not None else {})
    return log.Entry("archived", document.row.seq, None, {**told, **became})


def _unfinished(db: sqlite3.Connection, out: Path) -> dict[str, Any] | None:
    """The pack of a run that was killed before it had let everything go, if that pack is here and whole."""
    facts = next(known(db, newest_first=True), None)
    if facts is None or finished(db, facts):
        return None
    path = out / facts["pack"]
    return facts if path.exists() and packed.hash_of(path) == facts["sha256"] else None


def finished(db: sqlite3.Connection, facts: dict[str, Any]) -> bool:
    """Has everything in a pack left the journal?"""
    query = (
        "SELECT count(DISTINCT about) FROM log WHERE about BETWEEN ? AND ? AND kind IN ('archived', 'redaction')"
        " AND json_extract(facts, '$.pack') = ?"
    )
    (gone,) = db.execute(query, (facts["first"], facts["last"], facts["pack"])).fetchone()
    return int(gone) >= int(facts["documents"])


def known(db: sqlite3.Connection, *, newest_first: bool = False) -> Iterator[dict[str, Any]]:
    """Every pack that was ever made of this journal, as its entry tells it."""
    rows = db.execute(
        "SELECT facts FROM log WHERE kind = 'pack' AND about IS NULL AND external_id IS NULL"
        f" ORDER BY seq {'DESC' if newest_first else 'ASC'}"
    ).fetchall()
    return (loads(facts) for (facts,) in rows)


def current(db: sqlite3.Connection, facts: dict[str, Any]) -> str:
    """The SHA-256 that a pack has now: a redaction in it made it anew."""
    row = db.execute(
        "SELECT json_extract(facts, '$.sha256') FROM log WHERE about BETWEEN ? AND ? AND kind = 'redaction'"
        " AND json_extract(facts, '$.pack') = ? ORDER BY seq DESC LIMIT 1",
        (facts["first"], facts["last"], facts["pack"]),
    ).fetchone()
    return str(row[0] if row else facts["sha256"])


def _identity(db: sqlite3.Connection) -> str:
    return str(db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()[0])


def check(journal: Path, path: Path, keys: Sequence[note.Key] = ()) -> list[dict[str, Any]]:
    """A pack against its journal: problems as `verify` names them. Reads both, and raises nothing for what it finds."""
    problems: list[dict[str, Any]] = []

    def found(seq: int, what: str) -> None:
        problems.append({"book": f"pack {path.name}", "seq": seq, "what": what})

    with closing(log.open_book(journal, "journal", write=False)) as db:
        try:
            said = packed.manifest(path)
            digest = packed.hash_of(path)
            facts = next((each for each in known(db) if digest == current(db, each)), None)
            if said.get("journal") != _identity(db):
                found(0, "it is a pack of another journal")
                return problems
            if facts is None:
                older = any(digest == each["sha256"] for each in known(db))
                found(0, OLDER if older else "its SHA-256 is none that the journal knows: it was altered")
            if what := packed.signature(path, keys):
                found(0, what)
            missing = _said_to_be_in(db, facts) if facts is not None else set()
            for document in packed.read(path):
                missing.discard(document.row.seq)
                if what := _stands(db, document):
                    found(document.row.seq, what)
        except packed.Broken as broken:
            found(0, str(broken))
            return problems
        for seq in sorted(missing):
            found(seq, "the journal says that this document is in the pack, and it is not")
    return problems


def is_signed(path: Path, keys: Sequence[note.Key]) -> bool:
    """Does it bear a good signature by one of the keys?"""
    try:
        return bool(keys) and packed.is_signed(path) and not packed.signature(path, keys)
    except packed.Broken:
        return False


OLDER = "it is a copy from before a redaction: destroy it, and keep the newer one"


def _said_to_be_in(db: sqlite3.Connection, facts: dict[str, Any]) -> set[int]:
    rows = db.execute(
        "SELECT about FROM log WHERE about BETWEEN ? AND ? AND kind = 'archived' AND json_extract(facts, '$.pack') = ?",
        (facts["first"], facts["last"], facts["pack"]),
    )
    return {about for (about,) in rows}


def _stands(db: sqlite3.Connection, document: Packed) -> str:
    """What is wrong with one document of a pack, given the journal; "" if nothing is."""
    columns = db.execute(
        "SELECT seq, at, kind, about, external_id, facts, body_hash, digest FROM log WHERE seq = ?",
        (document.row.seq,),
    ).fetchone()
    if columns != (*document.row, document.digest):
        return "the pack tells this entry otherwise than the journal"
    if document.body is not None:
        if not document.genuine:
            return "the body was altered"
        return "it was redacted, and is in this pack all the same" if _redacted(db, document.row.seq) else ""
    return "" if _redacted(db, document.row.seq) else "the body is gone from the pack, and no entry says why"


def _redacted(db: sqlite3.Connection, seq: int) -> bool:
    row = db.execute("SELECT 1 FROM log WHERE about = ? AND kind = 'redaction' LIMIT 1", (seq,)).fetchone()
    return row is not None
