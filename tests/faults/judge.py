"""
The judge of every means, always the same few lines, most of them the campaign's.

    judge(place, drops, state)   all is well again and the programs had their time: what was not kept, in words
    kept(place, drops)           whatever is broken just now: no good document is in neither the spool nor the journal

`Near` asks the journal within this process: the same answers as from its commands, in milliseconds. What it reads is
read by our own code; that this code reads rightly is what the campaign and the tampering are for.
"""

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from forwarder.sandbox.state import reference
from journal import log, story
from journal.command import encode
from journal.verify import verify
from tests.campaign.drops import Doc, Drop
from tests.campaign.judge import judge as campaign_judge
from tests.campaign.judge import of_intake
from tests.campaign.programs import Place

GOOD = {"sale", "repeat", "refused", "redemption"}  # what a till wrote well; a conflict is good JSON, but set aside


class Near(Place):
    """A place that is asked without a process for each question."""

    def __init__(self, root: Path, plant: str = "") -> None:
        super().__init__(root, plant)
        self._books: Any = None

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
        if self._books is not None:
            rows = list(asked[command](self._books))
        else:
            with story.both_books(self.journal, self.delivery) as books:
                rows = list(asked[command](books))
        return 0, [json.loads(encode(row), parse_float=Decimal) for row in rows]

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Nothing is written meanwhile: both books are opened once for many questions."""
        with story.both_books(self.journal, self.delivery) as books:
            self._books = books
            try:
                yield
            finally:
                self._books = None


def judge(place: Place, drops: Sequence[Drop], state: Doc | None = None) -> list[str]:
    """
    Every promise that was not kept, in words; empty when all were.

    `state` is the sandbox's; without one only the journal ran, and what it took waits.
    """
    every = list(drops)
    try:
        with place.looked_at() if isinstance(place, Near) else contextlib.nullcontext():
            return _judge(place, every, state)
    except (log.Unusable, log.NotNow, sqlite3.DatabaseError, OSError, RuntimeError) as error:
        return [f"can't be judged: {type(error).__name__}: {error}"]


def _judge(place: Place, every: list[Drop], state: Doc | None) -> list[str]:
    if state is not None:
        verdict = campaign_judge(place, every, state) | {"each redemption once": _redeemed_once(place, every, state)}
    else:
        _, documents = place.ask("list")
        verdict = of_intake(place, every, documents, delivered=False)
        verdict["each document once"] = _once(place, every, documents)
    return [f"{check}: {words}" for check, wrong in verdict.items() for words in wrong]


def _redeemed_once(place: Place, drops: list[Drop], state: Doc) -> list[str]:
    """Value was spent once for each redemption that a till wrote, and for nothing else; the journal knows it."""
    spent = Counter(str(reference(row)) for row in state["redemptions"] if row["type"] == "redeem")
    wanted = {str(drop.external_id) for drop in drops if drop.what == "redemption"}
    settled = {doc["external_id"]: doc["state"] for doc in place.ask("list")[1]}
    wrong = [f"{name}: spent {spent[name]} times" for name in sorted(wanted) if spent[name] != 1]
    wrong += [f"{name}: the journal says {settled.get(name)}" for name in wanted if settled.get(name) != "delivered"]
    return wrong + [f"{name}: spent, but no till wrote it" for name in sorted(spent.keys() - wanted)]


def kept(place: Place, drops: Sequence[Drop]) -> list[str]:
    """Good documents that are nowhere, or set aside, at any moment after they were dropped whole."""
    with tempfile.TemporaryDirectory() as there:  # a killed commit is undone in a copy: the next start is to do it here
        for file in place.journal.parent.glob("journal.db*"):
            shutil.copy(file, there)
        taken = {external_id for external_id, _ in _bodies(Path(there) / "journal.db")}
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
        for name, body in _bodies(place.journal)
        if name in written and body not in written[name]
    ]


def _bodies(journal: Path) -> list[tuple[str, bytes]]:
    """Accepted documents as a journal holds them."""
    query = "SELECT external_id, bytes FROM log JOIN body USING (seq) WHERE kind <> 'invalid'"
    with contextlib.closing(sqlite3.connect(f"{journal.as_uri()}?mode=rw", uri=True)) as db:
        return db.execute(query).fetchall()
