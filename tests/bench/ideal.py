"""
What a good engineer would write by hand for speed, as the reference: I, and S with fewer liberties.

    python tests/bench/ideal.py take SPOOL DB [rename|unlink]
    python tests/bench/ideal.py deliver DB HOST:PORT [group|each]

Typed validation, a hash chain, SQLite's write-ahead log with `synchronous=FULL`, commits of 1,024 documents, one
keep-alive connection of `http.client`. I moves the files to a directory beside the spool and commits outcomes 64 at a
time; S unlinks them, and commits an outcome after each request. No conflicts, no rejected files, no flags, no
retries, no command line: that is what our programs do beside it.
"""

import http.client
import os
import sqlite3
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import msgspec

COMMIT, GROUP, GROUP_S = 1024, 64, 0.005
HEAD = {"Authorization": "Bearer sandbox", "Content-Type": "application/json", "Accept": "application/json"}


class Line(msgspec.Struct):
    """One article of a sale."""

    name: str
    quantity: int
    price_current: Decimal
    price_sell: Decimal


class Sale(msgspec.Struct):
    """What is asked of a sale."""

    kind: str
    external_id: str
    total: Decimal
    transacted_at: str
    timezone: str
    items: list[Line]


def book(path: str) -> sqlite3.Connection:
    """The log and what was delivered of it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA page_size = 16384")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, at TEXT, id TEXT, body BLOB, digest BLOB)")
    db.execute("CREATE TABLE IF NOT EXISTS outcome (seq INTEGER PRIMARY KEY, at TEXT, omneo_id INTEGER)")
    return db


def take(spool: str, path: str, removal: str = "rename") -> None:
    """Every file of the spool, oldest first, into the log."""
    db, decode, archive = book(path), msgspec.json.Decoder(Sale).decode, spool + ".done"
    seq, digest = db.execute("SELECT seq, digest FROM log ORDER BY seq DESC LIMIT 1").fetchone() or (0, bytes(32))
    Path(archive).mkdir(exist_ok=True)
    with os.scandir(spool) as entries:
        names = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if entry.name.endswith(".json")]
    names.sort()
    for low in range(0, len(names), COMMIT):
        rows, at = [], datetime.now(UTC).isoformat()
        for _, name in names[low : low + COMMIT]:
            handle = os.open(f"{spool}/{name}", os.O_RDONLY | os.O_NOFOLLOW)
            body = os.read(handle, os.fstat(handle).st_size)
            os.close(handle)
            sale = decode(body)
            seq += 1
            digest = sha256(digest + body).digest()
            rows.append((seq, at, sale.external_id, body, digest))
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")
        for _, name in names[low : low + COMMIT]:
            if removal == "rename":
                os.rename(f"{spool}/{name}", f"{archive}/{name}")  # noqa: PTH104
            else:
                os.unlink(f"{spool}/{name}")  # noqa: PTH108
    db.close()


def deliver(path: str, host: str, mode: str = "group") -> None:
    """Everything that was not delivered, in order, one request at a time."""
    db = book(path)
    line = http.client.HTTPConnection(host, timeout=60)  # sets TCP_NODELAY
    last = db.execute("SELECT coalesce(max(seq), 0) FROM outcome").fetchone()[0]
    pending, since = [], time.monotonic()
    while rows := db.execute("SELECT seq, id, body FROM log WHERE seq > ? ORDER BY seq LIMIT 64", (last,)).fetchall():
        for seq, name, body in rows:
            line.request("POST", "/api/v3/transactions/update-create", body, HEAD)
            answer = line.getresponse()
            data = msgspec.json.decode(answer.read())["data"]
            if answer.status not in {200, 201} or data["external_id"] != name:
                raise RuntimeError(f"not delivered: {answer.status}")
            pending.append((seq, datetime.now(UTC).isoformat(), data["id"]))
            last = seq
            if mode == "each" or len(pending) >= GROUP or time.monotonic() - since >= GROUP_S:
                _commit(db, pending)
                pending, since = [], time.monotonic()
    _commit(db, pending)
    db.close()


def _commit(db: sqlite3.Connection, outcomes: list[tuple[int, str, int]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO outcome VALUES (?, ?, ?)", outcomes)
    db.execute("COMMIT")


if __name__ == "__main__":
    {"take": take, "deliver": deliver}[sys.argv[1]](*sys.argv[2:])
