"""What the two books say, in words for people: local times, and lines that fit a terminal of 80 columns."""

from collections.abc import Iterator
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
}
FOUND = "delivered: Omneo had it already when it was asked, so it was not sent again"


def document(row: dict[str, Any]) -> str:
    """One document on one line, as `list` prints it."""
    omneo = f"Omneo {row['omneo_id']}" if row["omneo_id"] is not None else ""
    line = f"{row['seq']:>7}  {local(row['received_at'])}  {row['kind']:<10}  {row['state']:<9}"
    return f"{line}  {row['external_id'] or '-'}  {omneo}".rstrip()


def story(told: dict[str, Any]) -> Iterator[str]:
    """One document's whole story."""
    name = told["external_id"] or "(no external_id)"
    yield _fold(f"{told['kind']} {name}, entry {told['seq']}: {told['state']}")
    if told["omneo_id"] is not None:
        yield _fold(f"Omneo knows it as {told['omneo_id']}.")
    for row in told["history"]:
        when = f"  {local(row['at'])}  "
        yield _fold(f"{_happened(row, told['seq'])} [{row['book']} {row['seq']}]", when, " " * len(when))
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


def _happened(row: dict[str, Any], document_seq: int) -> str:
    """One entry of a document's history."""
    what = row["what"]
    facts = {name: value for name, value in row.items() if name not in {"at", "book", "seq", "what", "n", "bytes"}}
    if row["book"] == "journal" and what in {"conflicting", "invalid"} and row["seq"] != document_seq:
        other = "another document" if what == "conflicting" else "a broken file"
        return f"{other} came under this external_id: see omneo-journal show {row['seq']}"
    match what:
        case "flag":
            words = f"flagged {facts.pop('flag', '')}"
        case "resolution":
            words = f"flag {facts.pop('flag', '')} resolved by {facts.pop('by', '')}: {facts.pop('note', '')}"
        case "delivered" if facts.pop("found", False):
            words = FOUND
        case _:
            words = WORDS.get(what, str(what))
    reason = facts.pop("reason", "")
    return words + (f": {reason}" if reason else "") + (f" ({_facts(facts)})" if facts else "")


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _fold(text: str, first: str = "", then: str = "    ") -> str:
    return fill(shown(text), WIDTH, initial_indent=first, subsequent_indent=then, break_on_hyphens=False)
