"""
What is going on when the fault comes: the first run, intake, an older journal brought forward, delivery, a redaction,
an archive.

Each lays out a shop, names the real command that is to be broken, knows how to go on after it (the same again, as
whoever starts it would), and adds to the judge's lines what only it can lose.
"""

import contextlib
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path

from journal import archive, log, migrate, packed, redact
from tests.campaign.drops import Drop
from tests.faults import shop
from tests.faults.judge import Near, judge
from tests.faults.restart import Clock, NearOmneo, Request, deliver, take

BEFORE = 3  # documents that were there already
FILES = 6
SENT = 3  # a sale takes a dozen calls, a redemption some more
WHO = ("--by", "the office", "--reason", "asked for")


@dataclass
class Stage:
    """A shop as it is when the command starts."""

    scenario: "Scenario"
    place: Near
    drops: list[Drop]
    clock: Clock
    told: list[Request] = field(default_factory=list)  # what Omneo was told before
    redacted: list[int] = field(default_factory=list)

    @property
    def packs(self) -> Path:
        return self.place.root / "packs"

    def elsewhere(self, root: Path) -> "Stage":
        """The same shop under another directory."""
        return Stage(
            self.scenario, Near(root, self.place.plant), self.drops, self.clock, list(self.told), self.redacted
        )

    def command(self, url: str = "") -> list[str]:
        """The real program."""
        return self.place.command(*self.scenario.words(self, url))


@dataclass(frozen=True)
class Scenario:
    """One thing that goes on."""

    name: str
    lay: Callable[[Stage, int, NearOmneo], None]
    words: Callable[[Stage, str], list[str]]  # program and arguments
    again: Callable[[Stage, NearOmneo], None]
    more: Callable[[Stage], list[str]] = lambda _: []
    sends: bool = False  # does it talk to Omneo?
    lets_go: bool = False  # do bodies leave the journal?

    def stage(self, root: Path, seed: int, omneo: NearOmneo, plant: str = "") -> Stage:
        """Lay it out. The plant goes into the real programs only."""
        stage = Stage(self, Near(root, plant), [], omneo.clock)
        shop.prepare(stage.place)
        omneo.forget()
        self.lay(stage, seed, omneo)
        return stage

    def judge(self, stage: Stage, omneo: NearOmneo) -> list[str]:
        """After `again`: what was not kept."""
        wrong = judge(stage.place, stage.drops, omneo.state() if self.sends else None)
        return wrong + self.more(stage)

    def recover(self, stage: Stage, omneo: NearOmneo) -> list[str]:
        """Go on, and judge. Whatever can't go on is a finding too."""
        try:
            self.again(stage, omneo)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is one
            return [f"does not start again: {type(error).__name__}: {error}"]
        return self.judge(stage, omneo)


def _new_journal(stage: Stage) -> None:
    log.create(stage.place.journal, "journal", {"journal": str(uuid.uuid4())} | log.boot_facts())


def _lay_first(stage: Stage, seed: int, _: NearOmneo) -> None:
    stage.drops = shop.written(seed, 2, settled=0)
    shop.put(stage.place, stage.drops)


def _lay_intake(stage: Stage, seed: int, _: NearOmneo) -> None:
    _new_journal(stage)
    stage.drops = shop.written(seed, BEFORE + FILES, 1, settled=BEFORE)
    shop.put(stage.place, stage.drops[:BEFORE])
    take(stage.place, stage.clock)
    shop.put(stage.place, stage.drops[BEFORE:])


def _lay_older(stage: Stage, seed: int, omneo: NearOmneo) -> None:
    """The journal is of the first form; tests/formats holds real ones, and here only the way forward counts."""
    _lay_intake(stage, seed, omneo)
    with contextlib.closing(sqlite3.connect(stage.place.journal, isolation_level=None)) as db:
        for index in sorted(migrate.MAY_LACK[1]):
            db.execute(f"DROP INDEX {index}")
        db.execute("PRAGMA user_version = 1")


def _lay_delivery(stage: Stage, seed: int, _: NearOmneo) -> None:
    """Two sales at least: one to let go of, and one that stays."""
    _new_journal(stage)
    tills = (shop.written(seed + more, SENT) for more in count())
    stage.drops = next(drops for drops in tills if sum(drop.what == "sale" for drop in drops) > 1)
    shop.put(stage.place, stage.drops)
    take(stage.place, stage.clock)


def _lay_more_delivery(stage: Stage, seed: int, omneo: NearOmneo) -> None:
    """The delivery book is there already; only what came since is sent."""
    _new_journal(stage)
    stage.drops = shop.written(seed, BEFORE + SENT, 2, stage.clock.now())
    for some in (stage.drops[:BEFORE], stage.drops[BEFORE:]):
        shop.put(stage.place, some)
        take(stage.place, stage.clock)
        if some[0] is stage.drops[0]:
            omneo.heard.clear()
            deliver(stage.place, omneo, stage.place.root / "token")
            stage.told = list(omneo.heard)


def _lay_settled(stage: Stage, seed: int, omneo: NearOmneo) -> None:
    _lay_delivery(stage, seed, omneo)
    deliver(stage.place, omneo, stage.place.root / "token")


def _lay_redaction(stage: Stage, seed: int, omneo: NearOmneo) -> None:
    _lay_settled(stage, seed, omneo)
    stage.redacted = [doc["seq"] for doc in stage.place.ask("list")[1] if doc["state"] == "delivered"][1:2]


def _lay_redaction_in_packs(stage: Stage, seed: int, omneo: NearOmneo) -> None:
    _lay_redaction(stage, seed, omneo)
    _archive(stage, omneo)


def _create_and_take(stage: Stage, _: NearOmneo) -> None:
    if not stage.place.journal.exists():
        _new_journal(stage)
    take(stage.place, stage.clock)


def _take(stage: Stage, _: NearOmneo) -> None:
    take(stage.place, stage.clock)


def _forward_and_take(stage: Stage, _: NearOmneo) -> None:
    migrate.forward(stage.place.journal, "journal")
    take(stage.place, stage.clock)


def _deliver(stage: Stage, omneo: NearOmneo) -> None:
    take(stage.place, stage.clock)
    deliver(stage.place, omneo, stage.place.root / "token")


def _redact(stage: Stage, _: NearOmneo) -> None:
    """The office asks again until it is told that nothing is left."""
    place = stage.place
    take(place, stage.clock)
    packs = sorted(stage.packs.glob("*.zip"))
    with contextlib.suppress(log.NoSuch):
        redact.redact(place.journal, place.delivery, stage.redacted, "the office", "asked for", packs=packs)


def _archive(stage: Stage, _: NearOmneo) -> None:
    place = stage.place
    take(place, stage.clock)
    for _each in archive.archive(place.journal, place.delivery, stage.clock.now() + timedelta(days=2), stage.packs):
        pass


def _before(stage: Stage) -> str:
    return (stage.clock.now() + timedelta(days=2)).strftime("%Y-%m-%d")


def _was_kept(stage: Stage) -> list[str]:
    """The journal as it was lies beside, whole."""
    journal = stage.place.journal
    kept = journal.with_name(f"{journal.name}.format-1")
    if not kept.exists():
        return ["migration: no copy of the older journal was kept"]
    with contextlib.closing(sqlite3.connect(f"{kept.as_uri()}?mode=ro", uri=True)) as db:
        form = db.execute("PRAGMA user_version").fetchone()[0]
        entries = db.execute("SELECT count(*) FROM log").fetchone()[0]
    whole = form == 1 and entries > BEFORE
    return [] if whole else [f"migration: what was kept is of form {form} and has {entries} entries"]


def _bodies_are_somewhere(stage: Stage) -> list[str]:
    """Each body is in the journal, or in a pack that the journal knows, or was redacted."""
    place, wrong = stage.place, []
    packs = sorted(stage.packs.glob("*.zip"))
    there: dict[int, bytes] = {}
    for pack in packs:
        wrong += [
            f"packs: {pack.name} entry {each['seq']}: {each['what']}" for each in archive.check(place.journal, pack)
        ]
        with contextlib.suppress(packed.Broken):
            there |= {each.row.seq: each.body for each in packed.read(pack) if each.body is not None}
    with contextlib.closing(sqlite3.connect(f"{place.journal.as_uri()}?mode=ro", uri=True)) as db:
        there |= dict(db.execute("SELECT seq, bytes FROM body").fetchall())
    written = {drop.body for drop in stage.drops}
    for doc in place.ask("list")[1]:
        if doc["seq"] in stage.redacted:
            if doc["seq"] in there:
                wrong.append(f"bodies: entry {doc['seq']} was redacted, and its bytes are here")
        elif there.get(doc["seq"]) not in written:
            wrong.append(f"bodies: the bytes of entry {doc['seq']} are nowhere")
    left = [path.name for path in stage.packs.glob(".*")] if stage.packs.is_dir() else []
    return wrong + [f"packs: {name} was left behind" for name in left]


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first", _lay_first, lambda *_: ["journal", "init"], _create_and_take),
        Scenario("intake", _lay_intake, lambda *_: ["journal", "ingest", "--once"], _take),
        Scenario("migration", _lay_older, lambda *_: ["journal", "ingest", "--once"], _forward_and_take, _was_kept),
        Scenario(
            "first delivery",
            _lay_delivery,
            lambda _, url: ["forwarder", "run", "--once", "--url", url, "--rate", "0"],
            _deliver,
            sends=True,
        ),
        Scenario(
            "delivery",
            _lay_more_delivery,
            lambda _, url: ["forwarder", "run", "--once", "--url", url, "--rate", "0"],
            _deliver,
            sends=True,
        ),
        Scenario(
            "redaction",
            _lay_redaction,
            lambda stage, _: ["journal", "redact", *map(str, stage.redacted), *WHO],
            _redact,
            _bodies_are_somewhere,
            lets_go=True,
        ),
        Scenario(
            "redaction in packs",
            _lay_redaction_in_packs,
            lambda stage, _: [
                *("journal", "redact", *map(str, stage.redacted), *WHO),
                *(word for pack in sorted(stage.packs.glob("*.zip")) for word in ("--pack", str(pack))),
            ],
            _redact,
            _bodies_are_somewhere,
            lets_go=True,
        ),
        Scenario(
            "archive",
            _lay_settled,
            lambda stage, _: ["journal", "archive", "--before", _before(stage), "--out", str(stage.packs)],
            _archive,
            _bodies_are_somewhere,
            lets_go=True,
        ),
    )
}
