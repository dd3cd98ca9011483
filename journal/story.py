"""What the two books say, put together: documents with their state, one document's story, flags, the day's close."""

import heapq
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journal import log
from journal.document import NotJSON, parse
from journal.known import CONFLICT

if TYPE_CHECKING:  # megabytes, of which both services need nothing
    from sqlite_utils import Database

PIECE = 2000  # documents read at a time: a reader that holds the books for longer keeps both programs from writing
LOOK = 20_000  # entries of which only the kind is looked at


@contextmanager
def both_books(journal: Path, delivery: Path) -> Iterator["Database"]:
    """Both books, read only, with the views. A delivery book that isn't there yet is an empty one."""
    from sqlite_utils import Database

    db = connect(journal, delivery)
    try:
        yield Database(db)
    except sqlite3.OperationalError as error:
        raise log.reading_failed(error, journal) from error
    finally:
        db.close()


def connect(journal: Path, delivery: Path) -> sqlite3.Connection:
    """Both books as one connection; whoever asks for it closes it."""
    db = log.open_book(journal, "journal", write=False)
    try:
        attach_delivery(db, delivery)
        for statement in log.statements((files("journal") / "views.sql").read_text()):
            db.execute(statement)
    except sqlite3.OperationalError as error:
        db.close()
        raise log.reading_failed(error, journal) from error
    except BaseException:
        db.close()
        raise
    return db


def attach_delivery(db: sqlite3.Connection, delivery: Path) -> None:
    """Attach the delivery book, after a look whether it is one."""
    if not delivery.exists():
        db.execute("ATTACH ':memory:' AS delivery")
        db.execute("CREATE TABLE delivery.log (seq INTEGER PRIMARY KEY, at, kind, about, external_id, facts, digest)")
        return
    log.open_book(delivery, "delivery", write=False).close()
    db.execute("ATTACH ? AS delivery", (log.uri(delivery, "ro"),))


def documents(db: "Database", state: str | None = None, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Documents in journal order, as `list` prints them. No book is held while the caller prints."""
    where = [f" AND {name} = :{name}" for name, value in (("state", state), ("kind", kind)) if value]
    sql = (
        "SELECT seq, kind, external_id, state, received_at, settled_at, omneo_id FROM documents"
        f" WHERE seq BETWEEN :low AND :high{''.join(where)} ORDER BY seq"
    )
    for low, high in _pieces(db):
        yield from list(db.query(sql, {"low": low, "high": high, "state": state, "kind": kind}))


def _pieces(db: "Database", after: int = 0) -> Iterator[tuple[int, int]]:
    """The journal from its first entry (or the one after `after`) to its head, in short pieces."""
    last = log.head(db.conn)[0]
    return ((low, min(low + PIECE - 1, last)) for low in range(after + 1, last + 1, PIECE))


def find(db: "Database", name: str) -> dict[str, Any]:
    """One document by external_id, else by seq. Of several with one external_id: the accepted one, else the first."""
    columns = "seq, kind, external_id, state, omneo_id, received_at, settled_at"
    query = f"SELECT {columns} FROM documents WHERE external_id = ? ORDER BY state = 'invalid', seq LIMIT 1"
    found = list(db.query(query, [name]))
    if not found and name.isascii() and name.isdigit() and len(name) < 19:
        found = list(db.query(f"SELECT {columns} FROM documents WHERE seq = ?", [int(name)]))
    if not found:
        raise log.NoSuch(f"There is no document {name} in this journal; `omneo-journal list` names all that there are.")
    return found[0]


def show(db: "Database", name: str) -> dict[str, Any]:
    """One document's whole story. Others that came under its external_id are named, with their flags."""
    document = find(db, name)
    seq = document["seq"]
    others: list[dict[str, Any]] = []
    if document["external_id"] is not None:
        query = (
            "SELECT seq, received_at, json_extract(facts, '$.reason') AS reason FROM documents"
            " WHERE external_id = ? AND seq <> ? ORDER BY seq"
        )
        others = list(db.query(query, [document["external_id"], seq]))
    flags = [
        _flag(row)
        for one in (seq, *(other["seq"] for other in others))
        for row in db.query("SELECT * FROM flags WHERE about = ? ORDER BY raised_at, length(id), id", [one])
    ]
    history = _history(db, seq)
    for other in others:
        what = "conflicting" if other["reason"] == CONFLICT else "invalid"
        history.append({"at": other["received_at"], "book": "journal", "seq": other["seq"], "what": what})
    body = db.execute("SELECT bytes FROM body WHERE seq = ?", [seq]).fetchone()
    told = document | {"body": _body(body), "flags": flags, "history": history}
    return told | {"outages": _outages(db, document)}


def _outages(db: "Database", document: dict[str, Any]) -> list[dict[str, Any]]:
    """When it could not go, while it waited: nothing else is written of a sale that only waits."""
    if document["state"] == "invalid":
        return []
    sql = (
        "SELECT seq, link, began_at, ended_at, reason FROM outages"
        " WHERE (:settled_at IS NULL OR began_at < :settled_at) AND (ended_at IS NULL OR ended_at > :received_at)"
    )
    return list(db.query(sql, {name: document[name] for name in ("received_at", "settled_at")}))


def _history(db: "Database", seq: int) -> list[dict[str, Any]]:
    """Every entry about a document. Each book keeps its own order, even where the clock was set back between two."""
    query = "SELECT seq, at, kind, facts FROM {}.log WHERE about = ? ORDER BY seq"
    begin = list(db.query("SELECT seq, at, kind, facts FROM main.log WHERE seq = ?", [seq]))
    ours = [row | {"book": "journal"} for row in begin + list(db.query(query.format("main"), [seq]))]
    theirs = [row | {"book": "delivery"} for row in db.query(query.format("delivery"), [seq])]
    return [
        {"at": row["at"], "book": row["book"], "seq": row["seq"], "what": row["kind"], **json.loads(row["facts"])}
        for row in heapq.merge(ours, theirs, key=lambda row: str(row["at"]))
    ]


def _body(row: tuple[bytes] | None) -> Any:
    """The document as JSON when it is JSON (numbers as Decimal, exactly), else its text."""
    if row is None:
        return None
    try:
        return parse(row[0])
    except NotJSON:
        return row[0].decode("utf-8", "backslashreplace")


def flags(db: "Database", *, every: bool = False) -> Iterator[dict[str, Any]]:
    """Open flags, or every flag, in the order in which they were raised."""
    view = "flags" if every else "flags_open"
    return (_flag(row) for row in list(db.query(f"SELECT * FROM {view} ORDER BY raised_at, length(id), id")))


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


def resolution(db: "Database", flag_id: str, by: str, note: str) -> log.Entry:
    """The entry that closes an open flag of either book. Raises NoSuch."""
    rows = list(db.query("SELECT * FROM flags WHERE id = ?", [flag_id.upper()]))
    if not rows:
        raise log.NoSuch(f"There is no flag {flag_id}; `omneo-journal flags --all` lists them.")
    if rows[0]["resolved_at"] is not None:
        raise log.NoSuch(f"Flag {flag_id} was resolved already, by {rows[0]['resolved_by']}.")
    facts = {"flag": rows[0]["id"], "by": by, "note": note}
    return log.Entry("resolution", rows[0]["about"], None, facts)


def close(db: "Database") -> dict[str, int]:
    """What stands between a till and the end of its day: all zero when the day can be closed."""
    waiting = db.execute(
        "SELECT count(*) FROM documents WHERE state = 'waiting' AND seq <= :settled AND seq IN"
        " (SELECT about FROM delivery.log WHERE kind = 'released')",
        {"settled": settled(db)},
    ).fetchone()[0]
    for piece in _pieces(db, settled(db)):
        query = "SELECT count(*) FROM documents WHERE seq BETWEEN ? AND ? AND state = 'waiting'"
        waiting += db.execute(query, piece).fetchone()[0]
    opened = list(flags(db))
    gaps = [flag["detail"] for flag in opened if flag["flag"] == "sequence_gap"]
    missing = sum(int(gap["to"]) - int(gap["from"]) + 1 for gap in gaps)
    return {"waiting": waiting, "held": _held(db), "missing": missing, "open_flags": len(opened)}


def settled(db: "Database") -> int:
    """Every document up to this one is settled, or was once: the forwarder says so as it goes on. 0: nobody knows."""
    row = db.execute(
        "SELECT json_extract(facts, '$.settled') FROM delivery.log WHERE kind = 'turn' AND about IS NULL"
        " AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return int(row[0]) if row else 0


def _held(db: "Database") -> int:
    """How many documents are held: only what was once held can be."""
    once: set[int] = set()
    last = log.head(db.conn, "delivery")[0]
    for low in range(1, last + 1, LOOK):
        query = "SELECT about FROM delivery.log WHERE seq BETWEEN ? AND ? AND kind = 'held' AND about IS NOT NULL"
        once.update(about for (about,) in db.execute(query, [low, low + LOOK - 1]).fetchall())
    query = "SELECT state FROM documents WHERE seq = ?"
    return sum(db.execute(query, [seq]).fetchone() == ("held",) for seq in once)
