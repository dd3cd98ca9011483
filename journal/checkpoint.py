"""
Checkpoints: signed statements of how many entries the journal has and what the root of the tree over them is.

The chain alone can't show that its end was cut off, or that somebody computed all of it anew; a checkpoint that was
taken away can. Its text is a C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint). Each is an entry too.
"""

import json
import re
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from journal import log, note, tree
from journal.say import Say

PIECE = 2000  # digests read at a time
NEWEST = "kind = 'checkpoint' AND about IS NULL AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
TYPED = re.compile(
    r"omneo-journal ([0-9a-z-]{1,8})\s+entries (\d{1,18})\s+((?:[0-9a-f]{4}\s+){16})check ([0-9a-f]{4})\s*"
)

Head = tuple[int, bytes]  # seq and digest of a book's last entry
Made = tuple[int, "Statement", str | None]  # its entry's number, what it says, the signed note


@dataclass(frozen=True, slots=True)
class Statement:
    """What a checkpoint says."""

    origin: str  # omneo-journal/ and the journal's UUID
    size: int  # entries
    root: bytes  # of the tree over them

    def text(self) -> str:
        """The lines that are signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    def printed(self) -> str:
        """Short enough for a Z-report, and to be typed in again."""
        digits = self.root.hex()
        groups = [digits[at : at + 4] for at in range(0, 64, 4)]
        lines = [" ".join(groups[at : at + 4]) for at in range(0, 16, 4)]
        return "\n".join(
            [f"omneo-journal {_short(self.origin)}", f"entries {self.size}", *lines, f"check {_sum(self)}"]
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """A checkpoint that somebody has kept outside of the journal."""

    name: str  # of its file
    origin: str  # of a printed one: how it begins
    size: int
    root: bytes
    note: str | None  # signed; None of a printed one


def _short(origin: str) -> str:
    return origin.rpartition("/")[2][:8]


def _sum(said: Statement) -> str:
    """Finds a slip of whoever types it in. It is no proof of anything."""
    return sha256(f"{_short(said.origin)} {said.size} {said.root.hex()}".encode()).hexdigest()[:4]


def origin(identity: object) -> str:
    """What a journal is called in its checkpoints, by the UUID in its first entry."""
    return f"omneo-journal/{identity}"


def origin_of(db: sqlite3.Connection) -> str:
    """The same, of an open journal."""
    row = db.execute("SELECT json_extract(facts, '$.journal') FROM log WHERE seq = 1").fetchone()
    return origin(row[0] if row else None)


def parse(text: str) -> Statement:
    """What the lines of a checkpoint say. Raises note.Bad."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0] or not re.fullmatch("0|[1-9][0-9]{0,17}", lines[1]):
        raise note.Bad("it is no checkpoint")
    try:
        root = b64decode(lines[2], validate=True)
    except ValueError:
        root = b""
    if len(root) != 32:
        raise note.Bad("it is no checkpoint")
    return Statement(lines[0], int(lines[1]), root)


def taken(path: Path) -> Taken:
    """A file with a checkpoint: a signed note, its text alone, or the printed form. Raises Unusable."""
    text = note.from_file(path)
    try:
        if typed := TYPED.fullmatch(text.strip().lower() + "\n"):
            return _typed(path, typed)
        signed = "\n\n" in text
        said = parse(note.text_of(text) if signed else text)
    except note.Bad as bad:
        raise log.Unusable(f"{path} can't be used as a checkpoint: {bad}.") from None
    return Taken(path.name, said.origin, said.size, said.root, text if signed else None)


def _typed(path: Path, typed: "re.Match[str]") -> Taken:
    short, size, groups, check = typed.groups()
    root = bytes.fromhex(groups)
    if _sum(Statement(short, int(size), root)) != check:
        raise note.Bad("it was mistyped: its last line does not fit the others")
    return Taken(path.name, origin(short), int(size), root, None)


def head_of(path: Path) -> Head | None:
    """The head of a delivery book; None if there is none yet."""
    if not path.exists():
        return None
    with closing(log.open_book(path, "delivery", write=False)) as db:
        return log.head(db)


def last(db: sqlite3.Connection) -> tuple[int, str, dict[str, Any]] | None:
    """Entry number, moment and facts of the newest checkpoint."""
    row = db.execute(f"SELECT seq, at, facts FROM log WHERE {NEWEST}").fetchone()
    return (row[0], row[1], json.loads(row[2])) if row else None


def digests(db: sqlite3.Connection, low: int, high: int) -> Iterator[list[bytes]]:
    """Digests of the entries after `low`, up to `high`, in short pieces."""
    while low < high:
        end = min(low + PIECE, high)
        query = "SELECT digest FROM log WHERE seq > ? AND seq <= ? ORDER BY seq"
        yield [digest for (digest,) in db.execute(query, (low, end))]
        low = end


class Leaves:
    """Roots of stretches of a journal's tree; those of whole chunks are kept."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Over an open journal."""
        self._db = db
        self._chunks: dict[int, bytes] = {}

    def span(self, low: int, high: int) -> bytes:
        """Root over the entries `low + 1` to `high`, for proofs."""
        part = tree.Range()
        for begin, end in tree.stretches(low, high):
            part.add(self._chunk(begin, end), end - begin)
        return part.root()

    def _chunk(self, low: int, high: int) -> bytes:
        if low in self._chunks and high - low == tree.CHUNK:
            return self._chunks[low]
        part = tree.Range()
        for some in digests(self._db, low, high):
            part.extend(some)
        if high - low == tree.CHUNK:
            self._chunks[low] = part.root()
        return part.root()

    def upto(self, size: int) -> tree.Range:
        """The tree over the first entries."""
        whole = tree.Range()
        for low, high in tree.stretches(0, size):
            whole.add(self._chunk(low, high), high - low)
        return whole


def make(db: sqlite3.Connection, other: Head | None, key: note.Key | None, now: log.Clock = log.utc_now) -> Made:
    """
    A checkpoint over everything up to this moment, and an entry with it, in one commit. Unsigned without a key.

    The delivery book's head becomes an entry before it, so that the checkpoint covers that book too.
    """
    name = origin_of(db)
    fits(key, name)
    grown = _begin(db, name, key)
    _grow(db, grown)  # most of the way while others can write
    with log.writing(db):
        if other is not None:
            facts = {"other_book": {"entries": other[0], "head": other[1].hex()}}
            log.append(db, [log.Entry("vouched", facts=facts)], now=now)
        _grow(db, grown)
        said = Statement(name, grown.size, grown.root())
        signed = None if key is None else note.sign(said.text(), key)
        told = {"size": said.size, "root": said.root.hex(), "range": [each.hex() for each in grown.hashes]}
        entry = log.Entry("checkpoint", facts=told | ({"note": signed} if signed else {}))
        log.append(db, [entry], now=now)
    return entry.seq, said, signed


def fits(key: note.Key | None, name: str) -> None:
    """A key is for one journal, so that a checkpoint can't be taken for another's. Raises Unusable."""
    if key is not None and key.name != name:
        raise log.Unusable(
            f"The key is for {key.name}, but this journal is {name}. Make one with: omneo-journal keygen."
        )


def _begin(db: sqlite3.Connection, name: str, key: note.Key | None) -> tree.Range:
    """
    The tree as the newest checkpoint left it, so that only what came since has to be read.

    Where there is a key, only one that this key has signed: nobody else may say what we go on from.
    """
    try:
        newest = last(db)
        if newest is not None:
            seq, _, told = newest
            begun = tree.Range(told["size"], [bytes.fromhex(each) for each in told["range"]])
            said = Statement(name, seq - 1, begun.root())
            if key is None or note.read(told["note"], [note.public_of(key)]) == said.text():
                return begun if begun.size == said.size else tree.Range()
    except (ValueError, TypeError, KeyError, AttributeError):  # somebody has tampered with it: `verify` tells
        pass
    return tree.Range()


def _grow(db: sqlite3.Connection, grown: tree.Range) -> None:
    for some in digests(db, grown.size, log.head(db)[0]):
        grown.extend(some)


class Keeper:
    """Makes checkpoints by itself: when the day has changed on this machine's clock, and after so many entries."""

    def __init__(
        self,
        db: sqlite3.Connection,
        key: note.Key,
        every: int,
        other: Callable[[], Head | None],
        *,
        say: Say,
        now: log.Clock = log.utc_now,
    ) -> None:
        """Over an open journal; `other` gives the delivery book's head. Raises Unusable for another journal's key."""
        fits(key, origin_of(db))
        self._db, self._key, self._every, self._other, self._say, self._now = db, key, every, other, say, now

    def __call__(self) -> None:
        """Make one if it is due."""
        if not self.due():
            return
        seq, said, _ = make(self._db, self._other(), self._key, self._now)
        self._say("checkpoint", seq=seq, size=said.size, root=said.root.hex())

    def due(self) -> bool:
        """Is it time? Two look-ups by index."""
        newest = self._db.execute(f"SELECT seq, at FROM log WHERE {NEWEST}").fetchone()
        seq, at = newest or (0, self._db.execute("SELECT at FROM log WHERE seq = 1").fetchone()[0])
        another_day = self._now().astimezone().date() != datetime.fromisoformat(at).astimezone().date()
        return another_day or log.head(self._db)[0] - seq >= self._every
