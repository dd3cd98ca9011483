"""What the newest reconciliation of a day said: read from the delivery book, and in words for people."""

import json
from collections.abc import Iterator
from decimal import Decimal
from textwrap import wrap
from typing import Any

from sqlite_utils import Database

from journal.day import Days
from journal.words import WIDTH

Row = dict[str, Any]

TITLES = {
    "missing_there": "missing at Omneo",
    "missing_here": "missing here",
    "different": "different",
    "doubled": "doubled at Omneo",
    "balance": "balance",
}
NAMED = 50  # differences that a report names


def newest(db: Database, days: Days) -> Row | None:
    """The last word on a day, with the entry that holds it; None if nobody has compared it with Omneo."""
    row = db.execute(
        "SELECT seq, at, facts FROM delivery.log WHERE kind = 'reconciled' AND about IS NULL AND external_id IS NULL"
        " AND json_extract(facts, '$.begins') = ? AND json_extract(facts, '$.ends') = ? ORDER BY seq DESC LIMIT 1",
        [days.begin, days.end],
    ).fetchone()
    return None if row is None else json.loads(row[2]) | {"entry": row[0], "at": row[1]}


def counted(told: Row) -> str:
    """How many of each kind of difference."""
    found = ", ".join(f"{count} {TITLES.get(what, what)}" for what, count in told["counts"].items() if count)
    return found or "nothing differs"


def lines(told: Row, most: int = NAMED) -> Iterator[str]:
    """Each difference, and what the comparison could not see."""
    for row in told["differences"][:most]:
        yield from _item(difference(row))
    more = sum(told["counts"].values()) - min(most, len(told["differences"]))
    if more:
        yield f"… and {more} more."
    for row in told["terminals"]:
        if row["count"] != row["there"] or Decimal(row["sum"]) != Decimal(row["there_sum"]):
            who = f"{row['terminal'] or 'no terminal'}, {row['kind']}s {row['currency'] or ''}".rstrip()
            yield from _item(f"{who}: {row['count']} of {row['sum']} here, {row['there']} of {row['there_sum']} there")
    yield from unseen(told)


def unseen(told: Row) -> Iterator[str]:
    """What nobody could have noticed."""
    for name, shown in told["listed"].items():
        if shown != "yes":
            part = "" if shown == "no" else "all of "
            yield from _item(f"Omneo did not show {part}its list of {name}: what is missing here can't be noticed.")
    if told["customers_unseen"]:
        yield from _item(
            f"Omneo does not let this token see {told['customers_unseen']} of the customers or their balances:"
            " whether a document is with the right one, and what is left to them, was not looked at."
        )
    if told["waiting"]:
        yield f"{told['waiting']} documents still waited, and were left out."
    if told["made_online"]:
        yield f"{told['made_online']} redemptions were made online, and no document here names them."
    if told["ignored"]:
        yield from _item(f"Not compared: {', '.join(told['ignored'])}.")


def difference(row: Row) -> str:
    """One of them."""
    who = f"{row['kind']} {row['external_id'] or '-'}"
    who += f" of {row['amount']}" if row["amount"] is not None else ""
    who += f", entry {row['seq']}" if row["seq"] is not None else ""
    if row["what"] == "doubled":
        return f"Doubled at Omneo: {who}: {', '.join(row['ids'])}"
    if row["what"] == "missing_here":
        return f"Missing here: {who}, Omneo's {row['omneo_id']}"
    fields = "; ".join(map(_field, row["fields"]))
    title = TITLES.get(row["what"], str(row["what"]))
    return f"{title[:1].upper()}{title[1:]}: {who}" + (f": {fields}" if fields else "")


def _field(row: Row) -> str:
    name = row["field"] + (f" (line {row['line']})" if "line" in row else "")
    if row["here"] is None and row["there"] is None:
        return str(name)
    return f"{name} {row['here'] or 'nothing'} here, {row['there'] or 'nothing'} there"


def _item(text: str) -> list[str]:
    return wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
