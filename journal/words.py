"""What the two books say, in words for people: local times, and lines that fit a terminal of 80 columns."""

import heapq
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from textwrap import fill
from typing import Any

from journal.command import pretty, shown

WIDTH = 80
KIND = "came from the till"
WORDS = {
    "sale": KIND,
    "redemption": KIND,
    "reversal": KIND,
    "return": KIND,
    "invalid": "came and was set aside",
    "attempt": "may have left for Omneo",
    "deferred": "did not get through for now",
    "delivered": "delivered",
    "refused": "refused by Omneo for good",
    "held": "held for a person to decide",
    "cancelled": "cancelled, nothing was sent",
    "abandoned": "abandoned, it never goes",
    "released": "released, it goes after all",
    "redaction": "its bytes were erased",
    "archived": "its bytes were moved out",
    "down": "the line was down",
    "paused": "delivery was paused",
    "over": "it could go again",
}
FOUND = "delivered: Omneo had it already when it was asked, so it was not sent again"
UNSAID = {"at", "book", "seq", "what", "n", "bytes", "boot", "since_boot_s", "date"}
OUTAGES = 20  # told of one document


def document(row: dict[str, Any]) -> str:
    """One document on one line, as `list` prints it."""
    omneo = f"Omneo {row['omneo_id']}" if row["omneo_id"] is not None else ""
    line = f"{row['seq']:>7}  {local(row['received_at'])}  {row['kind']:<10}  {row['state']:<9}"
    return f"{line}  {row['external_id'] or '-'}  {omneo}".rstrip()


def story(told: dict[str, Any]) -> Iterator[str]:
    """One document's whole story, in order: what came, what was tried, what was decided; and when nothing could go."""
    name = told["external_id"] or "(no external_id)"
    yield _fold(f"{told['kind']} {name}, entry {told['seq']}: {told['state']}")
    if told["omneo_id"] is not None:
        yield _fold(f"Omneo knows it as {told['omneo_id']}.")
    for row in heapq.merge(told["history"], _outages(told["outages"]), key=lambda row: str(row["at"])):
        when = f"  {local(row['at'])}  "
        yield _fold(f"{_happened(row, told)} [{row['book']} {row['seq']}]", when, " " * len(when))
    if len(told["outages"]) > OUTAGES:
        yield f"  … and {len(told['outages']) - OUTAGES} more outages while it waited."
    for row in told["flags"]:
        yield flag(row)
    yield ""
    body = told["body"]
    if body is None:
        yield "Its bytes are not in the journal."
    elif isinstance(body, str):
        yield from body.splitlines()
    else:
        yield pretty(body)


def _outages(outages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Their beginnings and ends, told like entries of the history."""
    rows = []
    for outage in outages[:OUTAGES]:
        entry = {"book": "delivery", "seq": outage["seq"]}
        rows.append(entry | {"at": outage["began_at"], "what": outage["link"], "reason": outage["reason"]})
        if outage["ended_at"] is not None:
            rows.append(entry | {"at": outage["ended_at"], "what": "over"})
    return sorted(rows, key=lambda row: str(row["at"]))


def flag(row: dict[str, Any]) -> str:
    """One flag: what, when, about which document, and whether somebody has dealt with it."""
    done = row["resolved"]
    end = f"resolved by {done['by']}: {done['note']}" if done else "open"
    name = row["external_id"] or f"entry {row['seq']}"
    words = f"{local(row['raised_at'])}  {row['flag']}  {name}  {_facts(row['detail']) or '-'}  [{end}]"
    return _fold(words, f"{row['id']:<6} ", " " * 7)


def local(at: Any) -> str:
    """A book's time as the clock on this machine's wall showed it; what is no time is told as it stands."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (TypeError, ValueError, OverflowError, OSError):
        return str(at or "-")


def _happened(row: dict[str, Any], told: dict[str, Any]) -> str:
    """One entry of a document's history."""
    what = row["what"]
    facts = {name: value for name, value in row.items() if name not in UNSAID and value is not None}
    if row["book"] == "journal" and what in {"conflicting", "invalid"} and row["seq"] != told["seq"]:
        other = "another document" if what == "conflicting" else "a broken file"
        return f"{other} came under this external_id: see omneo-journal show {row['seq']}"
    match what:
        case "flag":
            words = f"flagged {facts.pop('flag', '')}, {str(row['book'])[0].upper()}{row['seq']}"
            facts.clear()  # its figures stand below
        case "resolution":
            words = f"flag {facts.pop('flag', '')} resolved by {facts.pop('by', '')}: {facts.pop('note', '')}"
        case "released" | "abandoned" | "redaction" | "archived" if "by" in facts:
            note = facts.pop("note", "")
            words = f"{WORDS[what]}, by {facts.pop('by')}" + (f": {note}" if note else "")
        case "delivered":
            words = FOUND if facts.pop("found", False) else "delivered"
            words += _there(facts, row, told)
        case _:
            words = WORDS.get(what, str(what))
    reason = facts.pop("reason", "")
    return words + (f": {reason}" if reason else "") + (f" ({_facts(facts)})" if facts else "")


def _there(facts: dict[str, Any], row: dict[str, Any], told: dict[str, Any]) -> str:
    """How long a document took; of a redemption, when Omneo made it, by Omneo's clock."""
    facts.pop("omneo_id", None)  # it stands above
    made, late = facts.pop("created_at", None), facts.pop("late_s", None)
    words = ""
    with suppress(TypeError, ValueError):
        waited = datetime.fromisoformat(row["at"]) - datetime.fromisoformat(told["received_at"])
        words = f", {span(max(0.0, waited.total_seconds()))} after it came"
    if made is not None:
        words += f"; Omneo made it at {local(made)}"
    if late is not None:
        words += f", {span(late)} after the till"
    return words


def span(seconds: float | None) -> str:
    """A length of time in the two units that matter."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return "-" + span(-seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, next_size, next_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {name}" + (f" {rest} {next_name}" if rest else "")
    return f"{whole} s"


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _fold(text: str, first: str = "", then: str = "    ") -> str:
    return fill(shown(text), WIDTH, initial_indent=first, subsequent_indent=then, break_on_hyphens=False)
