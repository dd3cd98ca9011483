"""A day's figures as one page that stands alone: nothing is fetched, nothing runs in it, nothing personal is there."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from journal import pictures, reconciled
from journal.day import Days
from journal.report_text import KINDS, amount, days_of, to_omneo
from journal.words import span

Row = dict[str, Any]
Cell = str | tuple[str, str]  # text, or text with a class

STATE_WORDS = {
    "delivered": "at Omneo",
    "waiting": "waiting",
    "held": "held",
    "refused": "refused",
    "cancelled": "cancelled",
    "abandoned": "abandoned",
    "invalid": "set aside",
}
BAD = {"held", "refused", "invalid", "abandoned"}


def page(told: Row) -> str:
    """The whole HTML file."""
    days = days_of(told)
    title = f"{days.first:%A}, {days.first.day} {days.first:%B %Y}"
    style = (files("journal") / "report.css").read_text("utf-8")
    parts = [_head(told, title), _tiles(told), _pictures(told, days), _takings(told), _terminals(told, days)]
    parts += [_stuck(told), _line(told, days), _redemptions(told, days), _reconciled(told, days)]
    parts += [_flag_table(told, days), _heads(told)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{HATCH}<main>{''.join(parts)}</main></body></html>\n"
    )


HATCH = (
    '<svg width="0" height="0" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6"'
    ' patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch-back" width="6" height="6"/><line class="hatch-line" y2="6"/></pattern></defs></svg>'
)


def _head(told: Row, title: str) -> str:
    who = f"{told['terminal']} only" if told["terminal"] is not None else "all terminals"
    under = f"{who} · the day by {told['timezone']} time"
    return f"<header><h1>{escape(title)}</h1><p>{escape(under)}</p></header>"


def _tiles(told: Row) -> str:
    sales = [row for row in told["totals"] if row["kind"] == "sale"]
    tiles = [
        (amount(row["sum"]), f"sales{', ' + row['currency'] if row['currency'] else ''} ({row['count']})", "sum")
        for row in sales[:4]
    ]
    tiles.append((str(told["documents"]), "documents came", ""))
    for state, count in told["states"].items():
        if count or state in {"delivered", "waiting"}:
            tiles.append((str(count), STATE_WORDS[state], "bad" if state in BAD else ""))
    opened = sum(row["resolved"] is None for row in told["flags"])
    tiles.append((str(opened), "open flags", "bad" if opened else ""))
    drawn = (
        f'<li class="{cls}"><b>{escape(figure)}</b><span>{escape(words)}</span></li>' for figure, words, cls in tiles
    )
    return f'<ul class="tiles">{"".join(drawn)}</ul>'


def _pictures(told: Row, days: Days) -> str:
    down = ("outage", "nothing could go") if told["outages"] else None
    whole = " (whole shop)" if told["terminal"] is not None else ""
    window = f"later than {span(told['window_s'])}: the till can't reverse it any more"
    drawn = [
        _figure(
            "What came and what went",
            pictures.flow(told, days),
            ("came", "came from the tills"),
            ("went", "delivered to Omneo"),
            down,
        ),
        _figure(f"What waited{whole}", pictures.backlog(told, days), ("waited", "documents waiting"), down),
        _figure(
            "How old it was when Omneo got it",
            pictures.ages(told, days),
            ("dot", "the middle one of a quarter of an hour"),
            ("range", "from the fastest to the slowest"),
            down,
        ),
    ]
    if told["redemptions"]:
        marks = (
            ("made", "from the till to Omneo"),
            ("undone", "from there to its reversal"),
            ("never", "not at Omneo"),
            ("out", window),
        )
        drawn.append(_figure("Redemptions and their window", pictures.redemptions(told, days), *marks))
    return "".join(drawn)


def _figure(title: str, drawn: str, *marks: tuple[str, str] | None) -> str:
    legend = "".join(f'<li><i class="{mark[0]}"></i>{escape(mark[1])}</li>' for mark in marks if mark)
    return f"<figure><h2>{escape(title)}</h2>{drawn}<figcaption><ul>{legend}</ul></figcaption></figure>"


def _table(title: str, names: Sequence[Cell], rows: Iterable[Sequence[Cell]], nothing: str = "") -> str:
    """A table under its heading; a cell may bring a class ("n" for numbers)."""
    drawn = "".join("<tr>" + "".join(_cell("td", cell) for cell in row) + "</tr>" for row in rows)
    if not drawn:
        return f"<section><h2>{escape(title)}</h2><p>{escape(nothing)}</p></section>" if nothing else ""
    head = "".join(_cell("th", name) for name in names)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{drawn}</tbody></table>"
    return f'<section><h2>{escape(title)}</h2><div class="scroll">{body}</div></section>'


def _cell(kind: str, cell: Cell) -> str:
    text, cls = cell if isinstance(cell, tuple) else (cell, "")
    return f"<{kind}{f' class={chr(34)}{cls}{chr(34)}' if cls else ''}>{escape(text)}</{kind}>"


def _takings(told: Row) -> str:
    names = ("Terminal", "Kind", ("Count", "n"), ("Sum", "n"), "", ("At Omneo", "n"), ("Sum", "n"))
    several = len(told["terminals"]) > 1
    rows = [_taking(row, row["terminal"] or "-", "") for row in told["takings"]]
    rows += [_taking(row, "All", " total") for row in told["totals"] if several]
    return _table("By terminal and kind", names, rows, "Nothing came on this day.")


def _taking(row: Row, terminal: str, cls: str) -> list[Cell]:
    money = row["kind"] in {"sale", "redemption", "return"}
    sent = row["kind"] != "invalid"
    return [
        (terminal, cls.strip()),
        (str(KINDS.get(row["kind"], row["kind"])), cls.strip()),
        (str(row["count"]), "n" + cls),
        (amount(row["sum"]) if money else "", "n" + cls),
        (str(row["currency"] or "-") if money else "", cls.strip()),
        (str(row["delivered"]) if sent else "", "n" + cls),
        (amount(row["delivered_sum"]) if money else "", "n" + cls),
    ]


def _terminals(told: Row, days: Days) -> str:
    names = ("Terminal", ("Documents", "n"), "First receipt", "", "Last receipt", "", ("Numbers", "n"))
    rows: list[list[Cell]] = []
    for row in told["terminals"]:
        ends = [
            text
            for end in ("first", "last")
            for text in (days.clock(row[end]["received_at"]), _id(row[end]["external_id"]))
        ]
        numbers = f"{row['first_sequence']} to {row['last_sequence']}" if row["last_sequence"] is not None else "-"
        rows.append([row["terminal"] or "-", (str(row["documents"]), "n"), *ends, (numbers, "n")])
    gaps = [
        [str(row["terminal"]), (_numbers(row), "k"), row["id"], (_resolved(row["resolved"]), "why")]
        for row in told["gaps"]
    ]
    aside = [
        [
            days.clock(row["received_at"]),
            (f"entry {row['seq']}", "k"),
            _id(row["external_id"]),
            (str(row["reason"]), "why"),
        ]
        for row in told["set_aside"]
    ]
    return (
        _table("First and last receipts", names, rows)
        + _table(
            "Numbers that were skipped", ("Terminal", "Missing", "Flag", ""), gaps, "No terminal skipped a number."
        )
        + _table("Set aside", ("Time", "", "external_id", "Why"), aside, "Nothing was set aside.")
        + "<p class=small>A file that came again with the same content leaves no entry.</p>"
    )


def _id(name: str | None) -> Cell:
    """A name that stays on one line, unless it is a very long one."""
    name = name or "-"
    return (name, "k" if len(name) <= 28 else "long")


def _numbers(gap: Row) -> str:
    return str(gap["from"]) if gap["from"] == gap["to"] else f"{gap['from']} to {gap['to']}"


def _resolved(resolved: Row | None) -> str:
    return f"resolved by {resolved['by']}: {resolved['note']}" if resolved else "open"


def _stuck(told: Row) -> str:
    rows: list[list[Cell]] = [
        [
            (row["state"], "bad"),
            row["kind"],
            _id(row["external_id"]),
            (amount(row["amount"]) if row["amount"] is not None else "", "n"),
            (str(row["reason"] or ""), "why"),
        ]
        for row in told["stuck"]
    ]
    return _table("Not at Omneo, and not waiting", ("", "Kind", "external_id", ("Amount", "n"), "Why"), rows)


def _line(told: Row, days: Days) -> str:
    rows: list[list[Cell]] = [
        [
            "down" if row["link"] == "down" else "paused",
            (days.clock(row["began_at"]), "n"),
            (days.clock(row["ended_at"]) if row["ended_at"] else "not over", "n"),
            (span(row["seconds"]), "n"),
            (str(row["reason"] or ""), "why"),
        ]
        for row in told["outages"]
    ]
    age = told["age"]
    words = ""
    if age:
        words = f"Of what was delivered on this day, half was at Omneo within {span(age['median_s'])}"
        words += f" of coming from the till, 95 of 100 within {span(age['p95_s'])},"
        words += f" the slowest after {span(age['max_s'])}."
    if told["found"]:
        words += f" {told['found']} were there already when Omneo was asked, and were not sent again."
    names = ("", ("From", "n"), ("To", "n"), ("Length", "n"), "Why")
    return _table("Outages", names, rows, "The line was not down.") + (f"<p>{escape(words)}</p>" if words else "")


def _redemptions(told: Row, days: Days) -> str:
    names = ("external_id", ("Amount", "n"), "State", ("Issued", "n"), ("To Omneo", "n"), ("To reversal", "n"), "")
    rows: list[list[Cell]] = []
    for row in told["redemptions"]:
        late = row["late_s"] is not None and row["late_s"] > told["window_s"]
        undone = span(row["reversed_after_s"]) if row["reversed_after_s"] is not None else row["reversal_state"] or "-"
        figures = (
            days.clock(row["issued_at"]),
            to_omneo(row),
            undone,
        )
        first = (_id(row["external_id"]), (amount(row["amount"]), "n"), row["state"])
        rows.append([*first, *((each, "n") for each in figures), ("late", "bad") if late else ""])
    undoing = [
        [row["kind"], _id(row["external_id"]), _id(row["names"]), row["state"], (str(row["reason"] or ""), "why")]
        for row in told["undone"]
    ]
    return _table("Redemptions", names, rows) + _table(
        "Reversals and returns", ("Kind", "external_id", "Of", "State", "Why"), undoing
    )


def _reconciled(told: Row, days: Days) -> str:
    """Of the whole shop."""
    if (found := told["reconciled"]) is None:
        return _table("Compared with Omneo", (), (), "Not yet: omneo-forwarder reconcile does that.")
    words = f"{days.clock(found['at'])}, entry {found['entry']}: {reconciled.counted(found)}"
    return _table("Compared with Omneo", (words,), [[line.strip()] for line in reconciled.lines(found)] or [["-"]])


def _flag_table(told: Row, days: Days) -> str:
    rows = [
        [
            row["id"],
            row["flag"],
            _id(row["external_id"] or f"entry {row['seq']}"),
            days.clock(row["raised_at"]),
            (_resolved(row["resolved"]), "why"),
        ]
        for row in told["flags"]
    ]
    return _table("Flags", ("Id", "Flag", "About", "Raised", ""), rows, "No flags.")


def _heads(told: Row) -> str:
    parts = []
    for name, words in (("journal", "Journal"), ("delivery", "Delivery book")):
        head = told["heads"][name]
        day = head["at_the_days_end"]
        if day:
            parts.append(f"<dt>{words}, at the end of the day: entry {day['entries']}</dt><dd>{day['head']}</dd>")
        if head["entries"] and (day is None or day["entries"] != head["entries"]):
            parts.append(f"<dt>{words}, when this page was made: entry {head['entries']}</dt><dd>{head['head']}</dd>")
    if told["heads"]["checkpoint"]:
        made = told["heads"]["checkpoint"]
        when = f"{days_of(told).clock(made['at'])}: {made['entries']} entries, root"
        parts.append(f"<dt>Newest checkpoint, {escape(when)}</dt><dd>{escape(str(made['root']))}</dd>")
    close = told["close"]
    words = f"In the whole shop, when this page was made: {close['waiting']} waiting, {close['held']} held, "
    words += f"{close['missing']} numbers missing, {close['open_flags']} open flags."
    note = "Whoever has noted a head can tell later whether anything up to there was changed: omneo-journal verify."
    return f"<section><h2>The chains</h2><dl>{''.join(parts)}</dl><p class=small>{note}</p><p>{words}</p></section>"
