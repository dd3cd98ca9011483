"""
Evidence: everything about some days in one zip file that proves itself, with a program that checks it.

The same books give the same bytes. What ties the entries of those days to the checkpoints before and after them is a
few hashes of the tree; nothing of other days is shown but the two entries that stand beside the first and the last.
"""

import base64
import json
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from journal import checkpoint, log, tree
from journal.checkpoint import Leaves

PIECE = 500  # entries, with their bodies, read at a time
LOOK = 20_000  # entries looked through at a time
WHOLE = 2**62  # leaves that a stretch may have
COLUMNS = ("seq", "at", "kind", "about", "external_id", "facts", "body_hash", "digest")
ENTRIES = (
    "SELECT log.seq, at, kind, about, external_id, facts, body_hash, digest, salt, bytes"
    " FROM log LEFT JOIN body ON body.seq = log.seq WHERE log.seq BETWEEN ? AND ? ORDER BY log.seq"
)


@dataclass(frozen=True, slots=True)
class Days:
    """Which days: midnight to midnight on this machine's clock, as the books write moments."""

    first: date
    last: date

    @property
    def low(self) -> str:
        """The first moment of the first day."""
        return log.stamp(datetime(self.first.year, self.first.month, self.first.day).astimezone())

    @property
    def high(self) -> str:
        """The first moment after the last day."""
        after = self.last + timedelta(days=1)
        return log.stamp(datetime(after.year, after.month, after.day).astimezone())


class Zip:
    """A zip file in which nothing of the moment or the machine stands, with the SHA-256 of each file in it."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        """Into a file that is open."""
        self._file = file
        self._sums: dict[str, str] = {}

    def add(self, name: str, text: str) -> None:
        """One file."""
        self.stream(name, iter([text.encode()]))

    def stream(self, name: str, pieces: Iterator[bytes]) -> None:
        """One file, piece by piece."""
        member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o640 << 16
        hashed = sha256()
        with self._file.open(member, "w", force_zip64=True) as out:
            for piece in pieces:
                hashed.update(piece)
                out.write(piece)
        self._sums[name] = hashed.hexdigest()

    def close(self) -> None:
        """The last file: the sums of all others."""
        self.add("SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in self._sums.items()))


def write(journal: Path, delivery: Path, first: date, last: date, out: Path) -> dict[str, int]:
    """The evidence of some days, as a new file. Returns how many entries of each book are in it."""
    days = Days(first, last)
    if os.path.lexists(out):
        raise log.Unusable(f"There is already a file at {out}; it was left as it is.")
    draft = out.with_name(f".{out.name}.{os.getpid()}.new")
    with ExitStack() as stack:
        ours = stack.enter_context(closing(log.open_book(journal, "journal", write=False)))
        theirs = None
        if delivery.exists():
            theirs = stack.enter_context(closing(log.open_book(delivery, "delivery", write=False)))
        plan = _plan(ours, theirs, days)
        try:
            with draft.open("xb") as file:
                with zipfile.ZipFile(file, "w") as opened:
                    _fill(Zip(opened), ours, theirs, plan, days)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, out)
            log.sync_directory(out.parent)
        except sqlite3.OperationalError as error:
            raise log.reading_failed(error, journal) from error
        except OSError as error:
            raise log.system_failed(error, out) from error
        finally:
            with suppress(OSError):
                draft.unlink()
    sizes = {name: place["last"] - place["first"] + 1 if place else 0 for name, place in plan.places.items()}
    return {"journal": sizes["journal"], "delivery": sizes["delivery"]}


# -- what goes into it


@dataclass(slots=True)
class Plan:
    """Which entries, and what ties them to the whole."""

    origin: str
    places: dict[str, Any]  # of each book: first and last entry, and what stands in the manifest
    later: list[int]  # entries of the journal after the last, about these documents or the delivery book
    notes: dict[int, str]  # checkpoints: size → note, or text
    leaves: Leaves


def _plan(ours: sqlite3.Connection, theirs: sqlite3.Connection | None, days: Days) -> Plan:
    head = log.head(ours)[0]
    within = _within(ours, head, days)
    if within is None:
        raise log.NoSuch("There is no entry in the journal from these days.")
    first, last = max(1, within[0] - 1), min(head, within[1] + 1)
    leaves = Leaves(ours)
    notes = _checkpoints(ours, first - 1, last, head)
    after = [
        [high - low, leaves.span(low, high).hex()]
        for begin, end in pairwise(sorted({last, head, *(size for size in notes if last < size < head)}))
        for low, high in tree.stretches(begin, end, WHOLE)
    ]
    begun = leaves.upto(first - 1)
    place = {
        "first": first,
        "last": last,
        "before": _digest(ours, first - 1),
        "range": [each.hex() for each in begun.hashes],
        "entries": head,
        "after": after,
        "root": leaves.upto(head).root().hex(),
    }
    query = "SELECT seq FROM log WHERE about BETWEEN ? AND ? AND seq > ? AND seq <= ? ORDER BY seq"
    later = [seq for (seq,) in ours.execute(query, (first, last, last, head))]
    second = None
    if theirs is not None:
        second, vouching = _second(ours, theirs, (first, last, head), days)
        later = sorted({*later, *vouching})
    return Plan(checkpoint.origin_of(ours), {"journal": place, "delivery": second}, later, notes, leaves)


def _within(db: sqlite3.Connection, head: int, days: Days) -> tuple[int, int] | None:
    """First and last entry that was written on these days."""
    query = "SELECT min(seq), max(seq) FROM log WHERE seq BETWEEN ? AND ? AND at >= ? AND at < ?"
    found: list[int] = []
    for low in range(1, head + 1, LOOK):
        seqs = db.execute(query, (low, min(low + LOOK - 1, head), days.low, days.high)).fetchone()
        found += [seq for seq in seqs if seq is not None]
    return (found[0], found[-1]) if found else None


def _second(
    ours: sqlite3.Connection, theirs: sqlite3.Connection, reach: tuple[int, int, int], days: Days
) -> tuple[dict[str, Any] | None, list[int]]:
    """
    The delivery book's part: what was written on these days or is about their documents, and on to what is vouched for.

    Also the number of the journal's entry that vouches for its end, if that stands after the last one.
    """
    first, last, head = reach
    end = log.head(theirs)[0]
    query = "SELECT min(seq), max(seq) FROM log WHERE about BETWEEN ? AND ?"
    seqs = [*(_within(theirs, end, days) or ()), *theirs.execute(query, (first, last)).fetchone()]
    found = [seq for seq in seqs if seq is not None and seq <= end]
    if not found:
        return None, []
    until, vouching = max(found), []
    query = (
        "SELECT seq, json_extract(facts, '$.other_book.entries') AS entries FROM log"
        " WHERE kind IN ('opened', 'vouched') AND about IS NULL AND external_id IS NULL"
        " AND seq > ? AND seq <= ? AND entries BETWEEN ? AND ? ORDER BY seq LIMIT 1"
    )
    born = json.loads(theirs.execute("SELECT facts FROM log WHERE seq = 1").fetchone()[0])["other_book"]["entries"]
    for seq, entries in ours.execute(query, (born, head, until, end)).fetchall():
        until, vouching = entries, [seq] if seq > last else []
    place = {
        "first": min(found),
        "last": until,
        "before": _digest(theirs, min(found) - 1),
        "entries": end,
        "born": born,
    }
    return place, vouching


def _checkpoints(db: sqlite3.Connection, low: int, last: int, head: int) -> dict[int, str]:
    """Those over the entries of these days, the first that covers all of them, and the newest."""
    query = (
        "SELECT seq, facts FROM log WHERE kind = 'checkpoint' AND about IS NULL AND external_id IS NULL"
        " AND seq > ? AND seq <= ? ORDER BY seq"
    )
    rows = db.execute(query, (low + 1, head)).fetchall()
    covering = [row for row in rows if row[0] > last]
    notes = {}
    for seq, facts in [row for row in rows if row[0] <= last] + covering[:1] + covering[-1:]:
        said = json.loads(facts)
        statement = checkpoint.Statement(checkpoint.origin_of(db), seq - 1, bytes.fromhex(said["root"]))
        notes[seq - 1] = said.get("note") or statement.text()
    return notes


def _digest(db: sqlite3.Connection, seq: int) -> str:
    row = db.execute("SELECT digest FROM log WHERE seq = ?", (seq,)).fetchone()
    return (row[0] if row else bytes(32)).hex()


# -- writing it


def _fill(out: Zip, ours: sqlite3.Connection, theirs: sqlite3.Connection | None, plan: Plan, days: Days) -> None:
    manifest = {
        "evidence": 1,
        "origin": plan.origin,
        "from": days.first.isoformat(),
        "to": days.last.isoformat(),
        "low": days.low,
        "high": days.high,
        **plan.places,
    }
    out.add("README.txt", (files("journal") / "evidence.txt").read_text("utf-8").format(**manifest))
    out.add("verify.py", (files("journal") / "standalone.py").read_text("utf-8"))
    out.add("manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    out.add("schema.sql", (files("journal") / "schema.sql").read_text("utf-8"))
    for schema in sorted(files("schemas").iterdir(), key=lambda each: each.name):
        if schema.name.endswith(".json"):
            out.add(f"schemas/{schema.name}", schema.read_text("utf-8"))
    for size, note in sorted(plan.notes.items()):
        out.add(f"checkpoints/{size}.txt", note)
    out.stream("journal.jsonl", _lines(ours, plan.places["journal"], days))
    if theirs is not None and plan.places["delivery"]:
        out.stream("delivery.jsonl", _lines(theirs, plan.places["delivery"], days))
    out.stream("later.jsonl", _later(ours, plan))
    out.close()


def _lines(db: sqlite3.Connection, place: dict[str, Any], days: Days) -> Iterator[bytes]:
    for low in range(place["first"], place["last"] + 1, PIECE):
        for row in db.execute(ENTRIES, (low, min(low + PIECE - 1, place["last"]))).fetchall():
            shown = days.low <= row[1] < days.high
            yield log.as_json(entry(row[:8], *(row[8:] if shown else (None, None)))).encode() + b"\n"


def entry(row: tuple[Any, ...], salt: bytes | None, body: bytes | None) -> dict[str, Any]:
    """An entry and its body as JSON. The body as the text that it nearly always is."""
    told = dict(zip(COLUMNS, row, strict=True))
    told |= {"body_hash": row[6] and row[6].hex(), "digest": row[7].hex(), "salt": salt and salt.hex(), "body": None}
    try:
        return told | {"body": body.decode() if body is not None else None}
    except UnicodeDecodeError:
        return told | {"base64": base64.b64encode(body or b"").decode()}


def _later(db: sqlite3.Connection, plan: Plan) -> Iterator[bytes]:
    """Entries that came later, each with its audit path in the tree over the whole journal."""
    head = plan.places["journal"]["entries"]
    for seq in plan.later:
        row = db.execute(ENTRIES, (seq, seq)).fetchone()
        path = tree.inclusion(seq - 1, head, plan.leaves.span)
        told = entry(row[:8], None, None) | {"before": _digest(db, seq - 1), "path": [each.hex() for each in path]}
        yield log.as_json(told).encode() + b"\n"
