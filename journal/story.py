"""What the two books say, put together: documents with their state, one document's story, flags, the day's close."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlite_utils import Database

from journal import log

STATES = ("waiting", "delivered", "cancelled", "refused", "held", "abandoned", "invalid")
DOCUMENTS = ("sale", "redemption", "reversal", "return")
FLAGS = (
    "reversal_window_exceeded",
    "reversal_too_late",
    "redemption_refused",
    "redemption_short",
    "redemption_missing",
    "doubtful",
    "sale_refused",
    "poison",
    "conflict",
    "invalid",
    "sequence_gap",
    "totals_mismatch",
    "clock_skew",
)


@contextmanager
def both_books(journal: Path, delivery: Path) -> Iterator[Database]:
    """Both books, read only, with the views. A delivery book that isn't there yet is an empty one."""
    db = log.open_book(journal, "journal", write=False)
    try:
        attach_delivery(db, delivery)
        for statement in log.statements((files("journal") / "views.sql").read_text()):
            db.execute(statement)
        yield Database(db)
    except sqlite3.OperationalError as error:
        raise log.reading_failed(error, journal) from error
    finally:
        db.close()


def attach_delivery(db: sqlite3.Connection, delivery: Path) -> None:
    """Attach the delivery book, after a look whether it is one."""
    if not delivery.exists():
        db.execute("ATTACH ':memory:' AS delivery")
        db.execute("CREATE TABLE delivery.log (seq INTEGER PRIMARY KEY, at, kind, about, external_id, facts, digest)")
        return
    log.open_book(delivery, "delivery", write=False).close()
    db.execute("ATTACH ? AS delivery", (f"file:{quote(str(delivery.absolute()))}?mode=ro",))


def documents(db: Database, state: str | None = None, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Documents in journal order, as `list` prints them."""
    where = [f"{name} = :{name}" for name, value in (("state", state), ("kind", kind)) if value]
    sql = "SELECT seq, kind, external_id, state, received_at, settled_at, omneo_id FROM documents"
    if where:
        sql += " WHERE " + " AND ".join(where)
    return db.query(sql + " ORDER BY seq", {"state": state, "kind": kind})


def find(db: Database, name: str) -> dict[str, Any]:
    """One document by external_id, else by seq. Of several with one external_id: the accepted one, else the first."""
    columns = "seq, kind, external_id, state, omneo_id, received_at, settled_at"
    query = f"SELECT {columns} FROM documents WHERE external_id = ? ORDER BY state = 'invalid', seq LIMIT 1"
    found = list(db.query(query, [name]))
    if not found and name.isascii() and name.isdigit() and len(name) < 19:
        found = list(db.query(f"SELECT {columns} FROM documents WHERE seq = ?", [int(name)]))
    if not found:
        raise log.NoSuch(f"There is no document {name} in this journal.")
    return found[0]


def show(db: Database, name: str) -> dict[str, Any]:
    """One document's whole story."""
    document = find(db, name)
    seq = document["seq"]
    others = []
    if document["external_id"] is not None:
        query = "SELECT seq FROM documents WHERE external_id = ? AND seq <> ? ORDER BY seq"
        others = [row["seq"] for row in db.query(query, [document["external_id"], seq])]
    flags = list(db.query("SELECT * FROM flags WHERE about = ? ORDER BY raised_at, id", [seq]))
    for other in others:
        flags += db.query("SELECT * FROM flags WHERE about = ? ORDER BY raised_at, id", [other])
    history = [
        {"at": row["at"], "book": row["book"], "seq": row["seq"], "what": row["kind"], **json.loads(row["facts"])}
        for row in db.query("SELECT * FROM history WHERE about = ? ORDER BY at, book DESC, seq", [seq])
    ]
    history += [{"at": None, "book": "journal", "seq": other, "what": "conflicting"} for other in others]
    body = db.execute("SELECT bytes FROM body WHERE seq = ?", [seq]).fetchone()
    return document | {"body": _body(body), "flags": [_flag(row) for row in flags], "history": history}


def _body(row: tuple[bytes] | None) -> Any:
    """The document as JSON when it is JSON (numbers as Decimal, exactly), else its text."""
    if row is None:
        return None
    from journal.document import NotJSON, parse

    try:
        return parse(row[0])
    except NotJSON:
        return row[0].decode("utf-8", "backslashreplace")


def flags(db: Database, *, every: bool = False) -> Iterator[dict[str, Any]]:
    """Open flags, or every flag, in the order in which they were raised."""
    view = "flags" if every else "flags_open"
    return (_flag(row) for row in db.query(f"SELECT * FROM {view} ORDER BY raised_at, id"))


def _flag(row: dict[str, Any]) -> dict[str, Any]:
    resolved = None
    if row["resolved_at"] is not None:
        resolved = {"at": row["resolved_at"], "by": row["resolved_by"], "note": row["note"]}
    return {
        "id": row["id"],
        "flag": row["flag"],
        "external_id": row["external_id"],
        "seq": row["about"],
        "raised_at": row["raised_at"],
        "detail": json.loads(row["detail"]),
        "resolved": resolved,
    }


def resolution(db: Database, flag_id: str, by: str, note: str) -> log.Entry:
    """The entry that closes an open flag of either book. Raises NoSuch."""
    rows = list(db.query("SELECT * FROM flags WHERE id = ?", [flag_id.upper()]))
    if not rows:
        raise log.NoSuch(f"There is no flag {flag_id}; `omneo-journal flags --all` lists them.")
    if rows[0]["resolved_at"] is not None:
        raise log.NoSuch(f"Flag {flag_id} was resolved already, by {rows[0]['resolved_by']}.")
    facts = {"flag": rows[0]["id"], "by": by, "note": note}
    return log.Entry("resolution", rows[0]["about"], None, facts)


def close(db: Database) -> dict[str, int]:
    """What stands between a till and the end of its day: all zero when the day can be closed."""
    states = dict(db.execute("SELECT state, count(*) FROM documents WHERE state IN ('waiting', 'held') GROUP BY 1"))
    named = dict(db.execute("SELECT flag, count(*) FROM flags_open GROUP BY 1"))
    missing = db.execute(
        "SELECT coalesce(sum(json_extract(detail, '$.to') - json_extract(detail, '$.from') + 1), 0)"
        " FROM flags_open WHERE flag = 'sequence_gap'"
    ).fetchone()[0]
    return {
        "waiting": states.get("waiting", 0),
        "held": states.get("held", 0),
        "missing": missing,
        "open_flags": sum(named.values()),
    }
