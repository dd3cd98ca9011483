"""
Every document of a period, one a line: for a spreadsheet, a program, or another shop's ledger.

A piece at a time goes through, whatever the length of the period. Nothing personal is in it: no body is read.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlite_utils import Database

from journal.command import encode
from journal.day import Days, between

Row = dict[str, Any]

# What each column means: docs/auditing.md.
COLUMNS = (
    "seq",
    "kind",
    "external_id",
    "terminal",
    "sequence",
    "currency",
    "total",
    "amount",
    "received_at",
    "state",
    "settled_at",
    "omneo_id",
    "reason",
    "names",
    "omneo_created_at",
    "late_s",
    "flags",
    "open_flags",
    "body_hash",
    "digest",
)
SQL = """
SELECT d.seq, d.kind, d.external_id, d.terminal, d.sequence, d.currency, d.total, d.amount, d.received_at, d.state,
       d.settled_at, d.omneo_id, d.reason, json_extract(d.facts, '$.names') AS names,
       json_extract(s.facts, '$.created_at') AS omneo_created_at, json_extract(s.facts, '$.late_s') AS late_s,
       (SELECT group_concat(flag, ' ') FROM flags WHERE about = d.seq)      AS flags,
       (SELECT group_concat(id, ' ') FROM flags_open WHERE about = d.seq)   AS open_flags,
       lower(hex(e.body_hash)) AS body_hash, lower(hex(e.digest)) AS digest
FROM documents AS d
JOIN main.log AS e ON e.seq = d.seq
LEFT JOIN delivery.log AS s ON s.seq = d.settlement
WHERE d.seq BETWEEN ? AND ? AND d.received_at >= ? AND d.received_at < ?
ORDER BY d.seq
"""
NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)
# A spreadsheet takes a cell that begins so for a formula, or drops what stands before one.
TRICKS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def rows(db: Database, days: Days) -> Iterator[Row]:
    """Documents that came in the period, in journal order. No book is held while the caller writes."""
    for low, high in between(db.conn, "main", days.begin, days.end):
        yield from list(db.query(SQL, [low, high, days.begin, days.end]))


def json_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """One JSON object a line. Money is text, exactly as the till wrote it."""
    for row in rows:
        yield encode(row) + b"\n"


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[bytes]:
    """RFC 4180, UTF-8, with a first line of names."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        yield _taken(buffer)
        writer.writerow([cell(row[name]) for name in columns])
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode("utf-8", "backslashreplace")


def cell(value: Any) -> str:
    """Text that a spreadsheet shows and does not obey: an apostrophe goes before what could be a formula."""
    text = "" if value is None else str(value)
    if not text.startswith(TRICKS) or NUMBER.fullmatch(text):
        return text
    return "'" + text
