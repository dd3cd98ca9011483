"""A day's figures in words: lines of 80 columns for people, and one table for a spreadsheet."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from textwrap import wrap
from typing import Any
from zoneinfo import ZoneInfo

from journal import reconciled
from journal.day import Days
from journal.words import WIDTH, span

Row = dict[str, Any]

KINDS = {
    "sale": "sales",
    "redemption": "redemptions",
    "reversal": "reversals",
    "return": "returns",
    "invalid": "set aside",
}
COLUMNS = ("day", "terminal", "kind", "currency", "count", "sum", "delivered", "delivered_sum")


def days_of(told: Row) -> Days:
    """The day that the figures are about, with its clock."""
    day = date.fromisoformat(told["day"])
    return Days(day, day, None if told["timezone"].startswith("this machine") else ZoneInfo(told["timezone"]))


def amount(value: Decimal | None) -> str:
    """Money for people: never rounded, two decimals at least; very long numbers in short."""
    if value is None:
        return "-"
    decimals = f"{value:f}".partition(".")[2].rstrip("0")
    text = f"{value:,.2f}" if len(decimals) <= 2 else f"{value:,f}"
    return text if len(text) <= 18 else f"{value:.6e}"


def to_omneo(row: Row) -> str:
    """From the till to Omneo; Omneo's moments have whole seconds."""
    late = row["late_s"]
    return "under 1 s" if late is not None and abs(late) < 1 else span(late)


def lines(told: Row) -> Iterator[str]:
    """The report for a terminal, or for paper."""
    yield from _opening(told)
    yield from _takings(told)
    yield from _terminals(told)
    yield from _stuck(told)
    yield from _line(told)
    yield from _redemptions(told)
    yield from _reconciled(told)
    yield from _flags(told)
    yield from _closing(told)


def _opening(told: Row) -> Iterator[str]:
    days = days_of(told)
    where = f", {told['terminal']} only" if told["terminal"] is not None else ""
    yield from wrap(f"{days.first:%A, %Y-%m-%d}{where} ({told['timezone']})", WIDTH)
    states = ", ".join(f"{count} {state}" for state, count in told["states"].items() if count)
    yield from wrap(f"{told['documents']} documents came" + (f": {states}." if states else "."), WIDTH)
    if told["found"]:
        yield from wrap(f"{told['found']} were at Omneo already when it was asked, and not sent again.", WIDTH)


def _takings(told: Row) -> Iterator[str]:
    if not told["takings"]:
        return
    yield ""
    yield f"{'terminal':<14} {'kind':<12}{'count':>6} {'sum':>17}     {'at Omneo':>8} {'sum':>15}"
    several = len({row["terminal"] for row in told["takings"] if row["kind"] != "invalid"}) > 1
    for row in told["takings"] + [total | {"terminal": "all"} for total in told["totals"] if several]:
        has_sum = row["kind"] in {"sale", "redemption", "return"}
        sums = [amount(row[name]) if has_sum else "" for name in ("sum", "delivered_sum")]
        delivered = "" if row["kind"] == "invalid" else row["delivered"]
        kind = KINDS.get(row["kind"], row["kind"])
        yield (
            f"{_short(row['terminal'], 14):<14} {kind:<12}{row['count']:>6} {sums[0]:>17}"
            f" {_short(row['currency'] if has_sum else '', 3, ''):<3} {delivered:>8} {sums[1]:>15}"
        ).rstrip()


def _short(name: str | None, width: int, nothing: str = "-") -> str:
    name = name or nothing
    return name if len(name) <= width else name[: width - 1] + "…"


def _terminals(told: Row) -> Iterator[str]:
    days = days_of(told)
    if told["terminals"]:
        yield ""
        yield f"{'terminal':<14} {'first receipt':<30} last receipt"
    for row in told["terminals"]:
        ends = [
            f"{days.clock(row[end]['received_at'])} {_short(row[end]['external_id'], 20)}" for end in ("first", "last")
        ]
        numbers = f"numbers {row['first_sequence']} to {row['last_sequence']}" if row["last_sequence"] else ""
        yield f"{_short(row['terminal'], 14):<14} {ends[0]:<30} {ends[1]:<30}".rstrip()
        if numbers:
            yield f"{'':<14} {numbers}"
    if told["gaps"] or told["set_aside"]:
        yield ""
    for gap in told["gaps"]:
        end = f"resolved by {gap['resolved']['by']}" if gap["resolved"] else "open"
        numbers = str(gap["from"]) if gap["from"] == gap["to"] else f"{gap['from']} to {gap['to']}"
        yield from _item(f"Missing of {gap['terminal']}: {numbers} ({gap['id']}, {end})")
    for row in told["set_aside"]:
        yield from _item(f"Set aside: entry {row['seq']}, {row['external_id'] or 'no external_id'}: {row['reason']}")
    yield "A file that came again with the same content leaves no entry."


def _stuck(told: Row) -> Iterator[str]:
    if told["stuck"]:
        yield ""
    for row in told["stuck"]:
        money = f" of {amount(row['amount'])}" if row["amount"] is not None else ""
        why = f": {row['reason']}" if row["reason"] else ""
        yield from _item(f"{row['state'].capitalize()}: {row['kind']} {row['external_id']}{money}{why}")


def _item(text: str) -> list[str]:
    return wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _line(told: Row) -> Iterator[str]:
    days = days_of(told)
    settled = ", ".join(f"{count} {kind}" for kind, count in told["settled"].items())
    yield ""
    yield from wrap(f"Settled on this day, of whatever day: {settled or 'nothing'}.", WIDTH)
    if told["age"]:
        age = {name: span(value) for name, value in told["age"].items()}
        words = f"From the till's file to Omneo: half within {age['median_s']}, 95 of 100 within {age['p95_s']}"
        yield from wrap(f"{words}, the slowest {age['max_s']}.", WIDTH)
    if not told["outages"]:
        yield "The line was not down."
    for row in told["outages"]:
        what = "The line was down" if row["link"] == "down" else "Delivery was paused"
        until = f"to {days.clock(row['ended_at'])}, {span(row['seconds'])}" if row["ended_at"] else "and still is"
        yield from _item(f"{what} from {days.clock(row['began_at'])} {until}: {row['reason']}")


def _redemptions(told: Row) -> Iterator[str]:
    days = days_of(told)
    if told["redemptions"]:
        yield ""
        yield f"{'redemption':<18} {'amount':>10}  {'state':<10}{'issued':<9}{'to Omneo':>10} {'to reversal':>13}"
    for row in told["redemptions"]:
        late = row["late_s"] is not None and row["late_s"] > told["window_s"]
        issued = days.clock(row["issued_at"])[-8:]
        yield (
            f"{_short(row['external_id'], 18):<18} {amount(row['amount']):>10}  {row['state']:<10}{issued:<9}"
            f"{to_omneo(row):>10} {_reversal(row):>13} {'late' if late else ''}"
        ).rstrip()
    if told["redemptions"]:
        yield f"Late is more than {span(told['window_s'])}: the till could no longer have reversed it."
    for row in told["undone"]:
        why = f": {row['reason']}" if row["reason"] else ""
        yield from _item(f"{row['kind']} {row['external_id']} of {row['names'] or '-'}: {row['state']}{why}")


def _reversal(row: Row) -> str:
    """What became of it, in a word."""
    if row["reversed_after_s"] is not None:
        return span(row["reversed_after_s"])
    return str(row["reversal_state"] or "-")


def _reconciled(told: Row) -> Iterator[str]:
    """Of the whole shop, whatever terminal is asked for."""
    yield ""
    if (found := told["reconciled"]) is None:
        yield "Not compared with Omneo yet: omneo-forwarder reconcile does that."
        return
    when = days_of(told).clock(found["at"])
    yield from _item(f"Compared with Omneo at {when} (entry {found['entry']}): {reconciled.counted(found)}.")
    yield from reconciled.lines(found)


def _flags(told: Row) -> Iterator[str]:
    opened = [row for row in told["flags"] if row["resolved"] is None]
    yield ""
    yield f"{len(opened)} open flags, {len(told['flags']) - len(opened)} resolved." if told["flags"] else "No flags."
    for row in opened:
        yield from _item(f"{row['id']:<6} {row['flag']}  {row['external_id'] or 'entry ' + str(row['seq'])}")


def _closing(told: Row) -> Iterator[str]:
    close = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in told["close"].items())
    yield ""
    yield from wrap(f"The whole shop now: {close}.", WIDTH)
    for name, words in (("journal", "Journal"), ("delivery", "Delivery book")):
        head = told["heads"][name]
        if not head["entries"]:
            continue
        day = head["at_the_days_end"]
        if day:
            yield f"{words}, at the end of this day: entry {day['entries']}, head"
            yield f"    {day['head']}"
        if day is None or day["entries"] != head["entries"]:
            yield f"{words} now: entry {head['entries']}, head"
            yield f"    {head['head']}"
    if told["heads"]["checkpoint"]:
        made = told["heads"]["checkpoint"]
        yield f"Newest checkpoint ({days_of(told).clock(made['at'])}): {made['entries']} entries, root"
        yield f"    {made['root']}"


def table(told: Row) -> Iterator[Row]:
    """Counts and sums, for a spreadsheet."""
    return ({"day": told["day"]} | row for row in told["takings"])
