"""
The judge of every means, always the same few lines, most of them the campaign's.

    judge(place, drops, state)   all is well again and the programs had their time: what was not kept, in words
    kept(place, drops)           whatever is broken just now: no good document is in neither the spool nor the journal

`Near` asks the journal within this process: the same answers as from its commands, in milliseconds. What it reads is
read by our own code; that this code reads rightly is what the campaign and the tampering are for.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from journal import log, story
from journal.command import encode
from journal.verify import verify
from tests.campaign.drops import Doc, Drop
from tests.campaign.judge import judge as campaign_judge
from tests.campaign.judge import of_intake
from tests.campaign.programs import Place

GOOD = {"sale", "repeat", "refused"}  # what a till wrote well; a conflict is good JSON, but set aside


class Near(Place):
    """A place that is asked without a process for each question."""

    def __init__(self, root: Path, plant: str = "") -> None:
        super().__init__(root, plant)

    def ask(self, *arguments: str) -> tuple[int, list[Doc]]:
        """`list`, `flags`, `verify` or `close-check`, as with `--json`."""
        (command,) = arguments
        if command == "verify":
            found = verify(self.journal, self.delivery)
            return (0 if found["ok"] else 1), [found]
        asked: dict[str, Callable[[Any], Any]] = {
            "list": story.documents,
            "flags": story.flags,
            "close-check": lambda books: [story.close(books)],
        }
        with story.both_books(self.journal, self.delivery) as books:
            rows = list(asked[command](books))
        return 0, [json.loads(encode(row), parse_float=Decimal) for row in rows]


def judge(place: Place, drops: Sequence[Drop], state: Doc | None = None) -> list[str]:
    """
    Every promise that was not kept, in words; empty when all were.

    `state` is the sandbox's; without one only the journal ran, and what it took waits.
    """
    every = list(drops)
    try:
        if state is not None:
            verdict = campaign_judge(place, every, state)
        else:
            _, documents = place.ask("list")
            verdict = of_intake(place, every, documents, delivered=False) | {
                "each document once": _once(place, every, documents)
            }
    except (log.Unusable, log.NotNow, sqlite3.DatabaseError, OSError, RuntimeError) as error:
        return [f"can't be judged: {type(error).__name__}: {error}"]
    return [f"{check}: {words}" for check, wrong in verdict.items() for words in wrong]


def kept(place: Place, drops: Sequence[Drop]) -> list[str]:
    """Good documents that are nowhere, or set aside, at any moment after they were dropped whole."""
    taken = {external_id for external_id, _ in _bodies(place)}
    wrong = []
    for drop in drops:
        file = place.spool / drop.path
        waits = file.is_file() and file.read_bytes() == drop.body
        waits = waits or any(each.read_bytes() == drop.body for each in file.parent.glob(".taken-*"))
        if drop.what in GOOD and not waits and drop.external_id not in taken:
            wrong.append(f"kept: {drop.path} ({drop.external_id}) is neither in the spool nor in the journal")
        if drop.what in GOOD and (place.spool / "rejected" / drop.path).exists():
            wrong.append(f"kept: {drop.path} ({drop.external_id}) is good, and was set aside")
    return wrong


def _once(place: Place, drops: list[Drop], documents: list[Doc]) -> list[str]:
    """The journal has each good document once, byte by byte as some file of its till had it, and no others."""
    written: dict[str | None, set[bytes]] = {}
    for drop in drops:
        if drop.what in GOOD:
            written.setdefault(drop.external_id, set()).add(drop.body)
    known = [doc["external_id"] for doc in documents if doc["state"] != "invalid"]
    wrong = [f"{name}: {known.count(name)} times in the journal" for name in written if known.count(name) != 1]
    wrong += [f"{name}: in the journal, but no till wrote it" for name in known if name not in written]
    return wrong + [
        f"{name}: the journal does not hold what the till wrote"
        for name, body in _bodies(place)
        if name in written and body not in written[name]
    ]


def _bodies(place: Place) -> list[tuple[str, bytes]]:
    """Accepted documents as the journal holds them."""
    query = "SELECT external_id, bytes FROM log JOIN body USING (seq) WHERE kind <> 'invalid'"
    with contextlib.closing(sqlite3.connect(f"{place.journal.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()
