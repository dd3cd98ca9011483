"""
Bodies that have to go, by law or by mistake: the bytes and their salt leave the journal, the entry and the chain stay.

The deleted row, and every page that it stood on, is overwritten with zeros in the commit that says who did it and why
(`secure_delete`). A pack that holds the body is made anew without it.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journal import archive, checkpoint, log, note, packed, story

UNSENT = ("waiting", "held")


@dataclass(slots=True)
class Going:
    """One document whose body is to go."""

    seq: int
    kind: str
    external_id: str | None
    state: str
    here: bool  # in the journal
    packs: list[str]  # names of those that hold a copy, or may
    redacted: bool  # an entry says so already


@dataclass(frozen=True, slots=True)
class Redacted:
    """What was done, and what a person still has to see to."""

    gone: list[int]
    packs: list[str]  # made anew
    unsigned: list[str]  # of these: signed before, and not any more
    elsewhere: list[str]  # packs that hold copies and were not given
    rejected: list[str]  # names of the files of invalid documents, as they may lie in rejected/


def redact(
    journal: Path,
    delivery: Path,
    seqs: Sequence[int],
    by: str,
    reason: str,
    *,
    even_unsent: bool = False,
    packs: Sequence[Path] = (),
    key: note.Key | None = None,
    now: log.Clock = log.utc_now,
) -> Redacted:
    """
    Take these documents' bodies out of the journal, all in one commit, and out of the packs that are given.

    The packs are signed anew if there is a key. Raises log.NotNow for one that still has to be sent, log.NoSuch when
    there is nothing left of any of them, log.Unusable for another journal's key.
    """
    with closing(log.open_book(journal, "journal", write=True)) as db, archive.keeping(journal), ExitStack() as drafts:
        checkpoint.fits(key, checkpoint.origin_of(db))
        going = look(journal, delivery, seqs)
        unsent = [each for each in going if each.here and each.state in UNSENT]
        if unsent and not even_unsent:
            raise log.NotNow(_unsent(unsent))
        given = {path.name: path for path in packs}
        made = {
            name: _without(db, given[name], {each.seq for each in going}, drafts, key)
            for name in sorted({name for each in going for name in each.packs} & given.keys())
        }
        due = [each for each in going if each.here or any(name in made for name in each.packs)]
        if not due:
            raise log.NoSuch(_nothing(going))
        told = [each for each in due if each.here or not each.redacted or _is_news(db, each, made)]
        entries = [_entry(each, by, reason, made) for each in told]
        with log.writing(db):
            log.append(db, entries, now=now)
            for each in due:
                log.erase(db, each.seq)
        unsigned = [name for name in sorted(made) if key is None and packed.is_signed(given[name])]
        for name, (draft, _) in made.items():
            draft.replace(given[name])
            log.sync_directory(given[name].parent)
        elsewhere = sorted({name for each in going for name in each.packs} - made.keys())
        return Redacted([each.seq for each in due], sorted(made), unsigned, elsewhere, _files(db, due))


def look(journal: Path, delivery: Path, seqs: Sequence[int]) -> list[Going]:
    """What is there of these documents, and where."""
    with story.both_books(journal, delivery) as books:
        db = books.conn
        names = {facts["pack"] for facts in archive.known(db)}
        unfinished = [facts for facts in archive.known(db) if not archive.finished(db, facts)]
        going = []
        for seq in seqs:
            row = books.execute("SELECT seq, kind, external_id, state FROM documents WHERE seq = ?", [seq]).fetchone()
            if row is None:
                raise log.NoSuch(f"There is no document {seq} in this journal.")
            said = db.execute(
                "SELECT kind, json_extract(facts, '$.pack') FROM log"
                " WHERE about = ? AND kind IN ('redaction', 'archived') ORDER BY seq",
                (seq,),
            ).fetchall()
            packs = {name for kind, name in said if kind == "archived" and name in names}
            # A run that was killed leaves copies of what it had not yet let go.
            packs |= {facts["pack"] for facts in unfinished if facts["first"] <= seq <= facts["last"]}
            redacted = any(kind == "redaction" for kind, _ in said)
            _, kind, external_id, state = row
            going.append(Going(seq, kind, external_id, state, log.has_body(db, seq), sorted(packs), redacted))
        return going


def _without(
    db: sqlite3.Connection, path: Path, seqs: set[int], drafts: ExitStack, key: note.Key | None
) -> tuple[Path, str]:
    """A pack without these bodies, under another name for now, and its SHA-256."""
    problems = [
        each for each in archive.check(_path(db), path) if each["seq"] not in seqs and each["what"] != archive.OLDER
    ]
    if problems:
        raise log.Unusable(f"{path} is not as the journal knows it: {problems[0]['what']}. Run omneo-journal verify.")
    draft = path.with_name(f".{path.name}.new")
    drafts.callback(draft.unlink, missing_ok=True)
    said = packed.manifest(path)
    documents = (each.without_body() if each.row.seq in seqs else each for each in packed.read(path))
    digest = packed.write(draft, documents, said, key)
    draft.chmod(path.stat().st_mode & 0o777)
    return draft, digest


def _is_news(db: sqlite3.Connection, each: Going, made: dict[str, tuple[Path, str]]) -> bool:
    """Will a pack that the journal does not know yet take the place of one that holds it?"""
    known = {facts["pack"]: archive.current(db, facts) for facts in archive.known(db)}
    return any(made[name][1] != known[name] for name in each.packs if name in made)


def _path(db: sqlite3.Connection) -> Path:
    return Path(db.execute("PRAGMA database_list").fetchone()[2])


def _entry(each: Going, by: str, reason: str, made: dict[str, tuple[Path, str]]) -> log.Entry:
    facts: dict[str, Any] = {"by": by, "reason": reason}
    if each.here and each.state in UNSENT:
        facts["unsent"] = True
    for name in each.packs:
        if name in made:
            facts |= {"pack": name, "sha256": made[name][1]}
    return log.Entry("redaction", each.seq, each.external_id, facts)


def _unsent(unsent: Sequence[Going]) -> str:
    names = ", ".join(each.external_id or f"entry {each.seq}" for each in unsent[:5])
    more = f" and {len(unsent) - 5} more" if len(unsent) > 5 else ""
    return (
        f"Omneo may not have {names}{more} yet ({unsent[0].state}). Nothing was redacted. Wait until it was delivered,"
        " or add --even-unsent: then it never reaches Omneo."
    )


def _nothing(going: Sequence[Going]) -> str:
    names = sorted({name for each in going for name in each.packs})
    if names:
        return f"The journal holds no bytes of it any more; {', '.join(names)} may: give it with --pack."
    return "There is nothing left to redact: no bytes of it are in the journal."


def _files(db: sqlite3.Connection, due: Sequence[Going]) -> list[str]:
    """Names of files that were rejected: what lies in rejected/ is not ours to delete."""
    names = (
        db.execute("SELECT json_extract(facts, '$.file') FROM log WHERE seq = ?", (each.seq,)).fetchone()[0]
        for each in due
        if each.kind == "invalid"
    )
    return sorted(str(name) for name in names if name is not None)
