"""Journals of every shape, made through the programs' own code: what a shop's box can hold after years of use."""

import random
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from forwarder.books import Books, create_delivery
from forwarder.witness import Seen
from journal import archive, backup, checkpoint, document, ingest, log, note, redact, story
from journal.log import Entry
from tests.bench.shop import sale

OUTCOMES = ("delivered", "delivered", "delivered", "refused", "held", "cancelled")


@dataclass
class Case:
    """Both books, the key, and what an auditor has taken away meanwhile."""

    journal: Path
    delivery: Path
    public: str = ""  # empty: there is no key
    taken: list[Path] = field(default_factory=list)  # checkpoints, signed if there is a key
    seen: frozenset[Seen] = frozenset()  # what Omneo holds of it


def _silent(event: str, **facts: Any) -> None:
    """Nobody listens."""


class Maker:
    """Lets things happen in a shop, in an order that the dice say."""

    def __init__(self, dice: random.Random, root: Path) -> None:
        self.dice, self.root = dice, root
        root.mkdir(parents=True, exist_ok=True)
        self.case = Case(root / "journal.db", root / "delivery.db")
        self.time = datetime(2025, 6, 1, 9, 0, tzinfo=UTC)
        identity = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        log.create(self.case.journal, "journal", {"journal": identity} | log.boot_facts(), self.now)
        self.key: note.Key | None = None
        if dice.random() < 0.85:
            private, self.case.public = note.generate(checkpoint.origin(identity))
            self.key = note.private_key(private)
        self.number = 0

    def now(self) -> datetime:
        """Time passes with each look at it, and once in a while the clock is set back."""
        hours = -1 if self.dice.random() < 0.02 else self.dice.uniform(0.01, 3)
        self.time += timedelta(hours=hours)
        return self.time

    def opened(self) -> sqlite3.Connection:
        """The journal, to be written."""
        return log.open_book(self.case.journal, "journal", write=True)

    # -- what can happen

    def documents(self) -> None:
        """A few files are taken: good ones, repeats, broken ones, conflicts."""
        due = []
        for _ in range(self.dice.choice([1, 2, 5, 30])):
            self.number += 1
            body, what = sale(self.number), self.dice.random()
            if what < 0.1:
                body = body.replace(b'"total": 139.65', b'"total": "much"')
            elif what < 0.2 and self.number > 3:
                body = sale(self.dice.randrange(1, self.number)).replace(b"139.65", b"1.00")
            elif what < 0.25:
                body = b"\xff\xfe not JSON"
            name = f"{self.number}.json"
            contents = SimpleNamespace(file=SimpleNamespace(size=len(body), name=name), sha256=None, body=body)
            due.append((contents, document.read(name, body)))
        with closing(self.opened()) as db:
            ingest.enter(due, db, self.now)  # type: ignore[arg-type]

    def start(self) -> None:
        """The ingest program starts, and vouches for the delivery book."""
        with closing(self.opened()) as db:
            ingest.opened(db, self.case.delivery, say=_silent)

    def deliver(self) -> None:
        """The forwarder runs for a while."""
        if not self.case.delivery.exists():
            create_delivery(self.case.journal, self.case.delivery, self.now)
        books = Books(self.case.journal, self.case.delivery, now=self.now)
        try:
            books.opened()
            waiting = [each for each in books.documents(0, 10**6) if books.state(each.seq) == "waiting"]
            for each in waiting[: self.dice.choice([1, 3, 20, 100])]:
                kind = self.dice.choice(OUTCOMES)
                books.record(Entry(kind, each.seq, each.external_id, {"omneo_id": each.seq + 7000}))
                if kind == "refused":
                    books.record(Entry("flag", each.seq, each.external_id, {"flag": "sale_refused", "status": 422}))
                if self.dice.random() < 0.1:
                    books.take_turn(each.seq, each.seq + 64)
        finally:
            books.close()

    def sign(self) -> None:
        """A checkpoint, which somebody may take away."""
        with closing(self.opened()) as db:
            _, said, signed = checkpoint.make(db, checkpoint.head_of(self.case.delivery), self.key, self.now)
        if self.dice.random() < 0.7:
            path = self.root / f"taken-{said.size}.txt"
            path.write_text(said.text() if signed is None else signed, "utf-8")
            self.case.taken.append(path)

    def resolve(self) -> None:
        """A person closes a flag."""
        with story.both_books(self.case.journal, self.case.delivery) as books:
            flags = list(story.flags(books))
            if not flags:
                return
            entry = story.resolution(books, self.dice.choice(flags)["id"], "Ann", "looked at the receipt")
        with closing(self.opened()) as db:
            log.append(db, [entry], now=self.now)

    def redact(self) -> None:
        """A body goes because the law asks."""
        with closing(self.opened()) as db:
            seqs = [seq for (seq,) in db.execute("SELECT seq FROM body")]
        if seqs:
            some = self.dice.sample(seqs, min(len(seqs), self.dice.choice([1, 1, 3])))
            redact.redact(
                self.case.journal, self.case.delivery, some, "Ann", "asked for", even_unsent=True, now=self.now
            )

    def archive(self) -> None:
        """Old bodies move into packs."""
        list(archive.archive(self.case.journal, self.case.delivery, self.time, self.root / "packs", now=self.now))

    def restore(self) -> None:
        """A backup is made, and the shop goes on with it."""
        place = self.root / f"backup-{self.number}-{self.dice.getrandbits(30)}"
        backup.backup(self.case.journal, self.case.delivery, place)
        (place / "journal.db").replace(self.case.journal)
        if (place / "delivery.db").exists():
            (place / "delivery.db").replace(self.case.delivery)

    def lose(self) -> None:
        """The delivery book is lost; the next run begins a new one."""
        self.case.delivery.unlink(missing_ok=True)

    def crash(self) -> None:
        """The power goes in the middle of a commit: the rollback journal stays behind, hot."""
        with closing(self.opened()) as db:
            db.execute("PRAGMA cache_spill = 1")
            db.execute("PRAGMA cache_size = 2")
            db.execute("BEGIN IMMEDIATE")
            entries = [Entry("opened", facts={"program": "x" * 3000}) for _ in range(40)]
            log.append(db, entries, now=self.now)
            hot = self.case.journal.with_name("journal.db-journal")
            left = {path: path.read_bytes() for path in (self.case.journal, hot) if path.exists()}
            db.execute("ROLLBACK")
        for path, raw in left.items():
            path.write_bytes(raw)
        self.start()  # the next start undoes what was half done

    def tidy(self) -> None:
        """Somebody vacuums and analyzes."""
        for path in (self.case.journal, self.case.delivery):
            if path.exists():
                with closing(sqlite3.connect(path, isolation_level=None)) as db:
                    db.execute("VACUUM")
                    db.execute("ANALYZE")


USUAL: tuple[Callable[[Maker], None], ...] = (
    Maker.documents,
    Maker.documents,
    Maker.documents,
    Maker.start,
    Maker.deliver,
    Maker.deliver,
    Maker.sign,
    Maker.sign,
    Maker.resolve,
)
RARE: tuple[Callable[[Maker], None], ...] = (
    Maker.redact,
    Maker.archive,
    Maker.restore,
    Maker.lose,
    Maker.crash,
    Maker.tidy,
)


def make(dice: random.Random, root: Path, *, steps: int | None = None) -> Case:
    """A shop in which so many things have happened."""
    maker = Maker(dice, root)
    for _ in range(dice.choice([0, 1, 4, 10, 20]) if steps is None else steps):
        dice.choice(RARE if dice.random() < 0.2 else USUAL)(maker)
    return maker.case


def rich(dice: random.Random, root: Path) -> Case:
    """One in which there is something of everything to tamper with, and a checkpoint was taken near the end."""
    maker = Maker(dice, root)
    while maker.key is None:
        maker = Maker(dice, root / str(dice.getrandbits(40)))
    for _ in range(3):
        for act in (Maker.documents, Maker.documents, Maker.deliver, Maker.start, Maker.resolve, Maker.sign):
            act(maker)
        if dice.random() < 0.5:
            dice.choice(RARE)(maker)
    maker.documents()
    maker.deliver()
    while not maker.case.taken or int(maker.case.taken[-1].read_text("utf-8").split("\n")[1]) < head(maker.case) - 2:
        maker.sign()
    return maker.case


def head(case: Case) -> int:
    """How many entries the journal has."""
    return len(rows(case.journal))


def rows(path: Path) -> list[tuple[Any, ...]]:
    """All entries of a book."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM log NOT INDEXED ORDER BY seq").fetchall()
