"""
One day of a shop in figures: a pure question to the two books, answered as one dictionary. `report` tells it.

Money is Decimal from the text that the till wrote, and never rounded. Nothing personal is in it.
"""

import json
import statistics
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from sqlite_utils import Database

from journal import curves, log, reconciled, story
from journal.day import Days, between
from journal.document import NotJSON, local_time, parse
from journal.known import CONFLICT

Row = dict[str, Any]

EXACT = Context(prec=1000)  # the sum of any two doubles, digit for digit
STATES = ("delivered", "waiting", "held", "refused", "cancelled", "abandoned", "invalid")


def report(db: Database, days: Days, terminal: str | None = None, window_s: float = 600) -> Row:
    """The figures of a day, of one terminal if it is named. The line and the backlog are the whole shop's."""
    shop, settled_in_shop = _documents(db, days), _settled(db, days)
    documents = [row for row in shop if terminal is None or row["terminal"] == terminal]
    settled = [row for row in settled_in_shop if terminal is None or row["terminal"] == terminal]
    arrived = [row for row in documents if row["kind"] != "invalid"]
    return {
        "day": days.first.isoformat(),
        "timezone": days.zone_name,
        "begins": days.begin,
        "ends": days.end,
        "terminal": terminal,
        "documents": len(documents),
        "states": {state: sum(row["state"] == state for row in documents) for state in STATES},
        "first": _receipt(documents[0]) if documents else None,
        "last": _receipt(documents[-1]) if documents else None,
        "takings": takings(documents),
        "totals": takings([row | {"terminal": None} for row in documents]),
        "terminals": _terminals(arrived),
        "gaps": _gaps(db, documents),
        "set_aside": [_receipt(row) | {"reason": row["reason"]} for row in documents if row["kind"] == "invalid"],
        "conflicts": sum(row["kind"] == "invalid" and row["reason"] == CONFLICT for row in documents),
        "stuck": [_stuck(row) for row in documents if row["state"] in {"held", "refused", "abandoned"}],
        "settled": dict(Counter(row["kind"] for row in settled if row["kind"] != "released")),
        "found": sum(bool(row["found"]) for row in settled),
        "age": _age([row["age_s"] for row in settled if row["kind"] == "delivered"]),
        "outages": _outages(db, days),
        "window_s": window_s,
        "redemptions": _redemptions(db, [row for row in documents if row["kind"] == "redemption"]),
        "undone": [_undone(row) for row in documents if row["kind"] in {"reversal", "return"}],
        "reconciled": reconciled.newest(db, days),
        "flags": _flags(db, days, {row["seq"] for row in documents}, whole=terminal is None),
        "close": story.close(db),
        "heads": _heads(db, days),
        "quarters": curves.quarters(days, arrived, settled),
        "backlog": curves.backlog(db, days, shop, settled_in_shop),
    }


def _documents(db: Database, days: Days) -> list[Row]:
    """Documents that came on the day, in journal order. No book is held between two pieces."""
    sql = (
        "SELECT seq, kind, external_id, state, received_at, settled_at, terminal, sequence, total, amount, currency,"
        " omneo_id, reason, json_extract(facts, '$.names') AS names FROM documents"
        " WHERE seq BETWEEN ? AND ? AND received_at >= ? AND received_at < ? ORDER BY seq"
    )
    pieces = between(db.conn, "main", days.begin, days.end)
    return [row for low, high in pieces for row in list(db.query(sql, [low, high, days.begin, days.end]))]


def _receipt(row: Row) -> Row:
    return {name: row[name] for name in ("seq", "external_id", "received_at")}


def _stuck(row: Row) -> Row:
    return {name: row[name] for name in ("seq", "kind", "external_id", "state", "reason")} | {"amount": money(row)}


def _undone(row: Row) -> Row:
    names = ("seq", "kind", "external_id", "names", "state", "settled_at", "reason")
    return {name: row[name] for name in names} | {"amount": money(row)}


def money(row: Row) -> Decimal | None:
    """What a document is about, as the till wrote it; None where no amount of money is."""
    try:
        return Decimal(row["total"] if row["kind"] == "sale" else row["amount"])
    except (TypeError, ValueError, InvalidOperation):  # not there, or a hand has spoilt it
        return None


def takings(documents: list[Row]) -> list[Row]:
    """Counts and sums by terminal, kind and currency; beside them, what of it Omneo has."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in documents:
        groups[str(row["terminal"] or ""), row["kind"], str(row["currency"] or "")].append(row)
    return [
        {
            "terminal": terminal or None,
            "kind": kind,
            "currency": currency or None,
            "count": len(rows),
            "sum": _sum(rows),
            "delivered": sum(row["state"] == "delivered" for row in rows),
            "delivered_sum": _sum([row for row in rows if row["state"] == "delivered"]),
        }
        for (terminal, kind, currency), rows in sorted(groups.items(), key=lambda group: group[0])
    ]


def _sum(rows: list[Row]) -> Decimal:
    total = Decimal(0)
    for row in rows:
        total = EXACT.add(total, money(row) or Decimal(0))
    return Decimal(f"{total:f}")


def _terminals(documents: list[Row]) -> list[Row]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in documents:
        groups[str(row["terminal"] or "")].append(row)
    told = []
    for name, rows in sorted(groups.items()):
        numbers = [row["sequence"] for row in rows if isinstance(row["sequence"], int)]
        told.append(
            {
                "terminal": name or None,
                "documents": len(rows),
                "first": _receipt(rows[0]),
                "last": _receipt(rows[-1]),
                "first_sequence": min(numbers, default=None),
                "last_sequence": max(numbers, default=None),
            }
        )
    return told


def _gaps(db: Database, documents: list[Row]) -> list[Row]:
    """Numbers that were skipped, by the documents that came after the gap."""
    seqs = {row["seq"] for row in documents}
    found = [row for row in story.flags(db, every=True) if row["flag"] == "sequence_gap" and row["seq"] in seqs]
    return [row["detail"] | {"id": row["id"], "resolved": row["resolved"]} for row in found]


def _flags(db: Database, days: Days, seqs: set[int], *, whole: bool) -> list[Row]:
    """Flags about the day's documents; of the whole shop, also those that were raised on the day about others."""
    return [
        row
        for row in story.flags(db, every=True)
        if row["seq"] in seqs or (whole and days.begin <= row["raised_at"] < days.end)
    ]


def _settled(db: Database, days: Days) -> list[Row]:
    """What the delivery book said on the day of documents of whatever day."""
    sql = (
        "SELECT s.at, s.kind, s.about, json_extract(s.facts, '$.found') AS found, d.at AS received_at,"
        " json_extract(d.facts, '$.terminal') AS terminal"
        " FROM delivery.log AS s JOIN main.log AS d ON d.seq = s.about"
        " WHERE s.seq BETWEEN ? AND ? AND s.at >= ? AND s.at < ?"
        " AND s.kind IN ('delivered', 'refused', 'held', 'cancelled', 'abandoned', 'released') ORDER BY s.seq"
    )
    rows: list[Row] = []
    for low, high in between(db.conn, "delivery", days.begin, days.end):
        rows += db.query(sql, [low, high, days.begin, days.end])
    for row in rows:
        row["age_s"] = max(0.0, _seconds(row["received_at"], row["at"]))
    return rows


def _seconds(begin: str, end: str) -> float:
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds(), 3)


def _age(ages: list[float]) -> Row | None:
    if not ages:
        return None
    nineties = statistics.quantiles(ages, n=20)[-1] if len(ages) > 1 else ages[0]
    return {"median_s": statistics.median(ages), "p95_s": round(min(nineties, max(ages)), 3), "max_s": max(ages)}


def _outages(db: Database, days: Days) -> list[Row]:
    """Outages that reach into the day, each in its whole length; one that goes on has no end yet."""
    sql = (
        "SELECT link, began_at, ended_at, seconds, reason FROM outages"
        " WHERE began_at < ? AND (ended_at IS NULL OR ended_at > ?) ORDER BY seq"
    )
    return list(db.query(sql, [days.end, days.begin]))


def _redemptions(db: Database, documents: list[Row]) -> list[Row]:
    """Both clocks of each: from the till to Omneo, and from there to its reversal."""
    told = []
    for document in documents:
        (row,) = list(db.query("SELECT * FROM redemptions WHERE seq = ?", [document["seq"]]))
        told.append(
            {
                "seq": row["seq"],
                "external_id": row["external_id"],
                "terminal": row["terminal"],
                "amount": money(document),
                "state": row["state"],
                "issued_at": _issued(db, row["seq"]),
                "created_at": row["created_at"],
                "late_s": row["late_s"],
                "reason": row["reason"],
                "reversal": row["reversal_external_id"],
                "reversal_state": row["reversal_state"],
                "reversed_after_s": _reversed_after(db, row),
            }
        )
    return told


def _issued(db: Database, seq: int) -> str | None:
    """When the till says that it redeemed; None if its bytes are gone."""
    body = db.execute("SELECT bytes FROM body WHERE seq = ?", [seq]).fetchone()
    try:
        content = parse(body[0]) if body else {}
        return log.stamp(local_time(content["issued_at"], content["timezone"]))
    except (NotJSON, ValueError, KeyError, TypeError):
        return None


def _reversed_after(db: Database, row: Row) -> float | None:
    """
    From Omneo's making of a redemption to its reversal. By the kernel's clock, from attempt to attempt, if it ran on;
    else from Omneo's word to this machine's, which is off by as much as their clocks are.
    """
    if row["reversal_state"] != "delivered":
        return None
    sql = "SELECT facts FROM delivery.log WHERE about = ? AND kind = 'attempt' ORDER BY seq {} LIMIT 1"
    left = db.execute(sql.format("ASC"), [row["seq"]]).fetchone()
    undone = db.execute(sql.format("DESC"), [row["reversal"]]).fetchone()
    if left and undone:
        first, last = json.loads(left[0]), json.loads(undone[0])
        if first.get("boot") is not None and first.get("boot") == last.get("boot"):
            return round(float(last["since_boot_s"]) - float(first["since_boot_s"]), 3)
    return _seconds(row["created_at"], row["reversed_at"]) if row["created_at"] else None


def _heads(db: Database, days: Days) -> Row:
    """Both chains' heads: now, and the last entry that was written on the day."""
    told = {}
    for name, schema in (("journal", "main"), ("delivery", "delivery")):
        entries, head = log.head(db.conn, schema)
        last = max((high for _, high in between(db.conn, schema, days.begin, days.end)), default=None)
        digest = db.execute(f"SELECT digest FROM {schema}.log WHERE seq = ?", [last]).fetchone() if last else None
        day = {"entries": last, "head": digest[0].hex()} if digest else None
        told[name] = {"entries": entries, "head": head.hex() if entries else "", "at_the_days_end": day}
    return told | {"checkpoint": _checkpoint(db)}


def _checkpoint(db: Database) -> Row | None:
    """The newest: what it signs, and when."""
    row = db.execute(
        "SELECT at, json_extract(facts, '$.size'), json_extract(facts, '$.root') FROM main.log"
        " WHERE kind = 'checkpoint' AND about IS NULL AND external_id IS NULL ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return {"at": row[0], "entries": row[1], "root": row[2]} if row else None
