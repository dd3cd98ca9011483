"""
The power goes, thousands of times a minute: a run is recorded once, and every disk that a cut could have left is made.

Each real program runs once under strace (`recording`); from what it did follows what may be on the disk at any moment,
with unsynced writes dropped, torn or in another order (`volatile`). On each such disk both programs start again, and
the judge looks. Every other recording is of a program that starts on such a disk: a second cut, during recovery.
"""

import contextlib
import http.client
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from forwarder.sandbox.serve import running
from journal import log
from tests.faults import recording, shop
from tests.faults.means import Figures, Means, Size
from tests.faults.restart import Clock, NearOmneo, Request
from tests.faults.scenarios import SCENARIOS, Scenario, Stage
from tests.faults.volatile import Disk, Model, Op, State

MODELS: tuple[Model, ...] = ("ordered", "strict")
SHARES = {
    "intake": 5,
    "delivery": 3,
    "first delivery": 1,
    "first": 1,
    "redaction": 1,
    "redaction in packs": 1,
    "archive": 2,
}
PIECE = 2500  # states of one recording, at least …
RECORDINGS = 200  # … and so many recordings at the most
PLANTED_MOST = 4000  # states in which a planted bug has to show
FOUND_MOST = 5  # of one recording: the first few tell enough
# Planted bug → the scenario in which it costs something
PLANTED = {"early": "intake", "careless": "intake", "walled": "intake", "unsure": "archive", "untold": "delivery"}


@dataclass
class Seen:
    """What looking at the states of some recordings came to."""

    states: int = 0
    keys: set[int] = field(default_factory=set)
    found: list[str] = field(default_factory=list)
    twice: int = 0
    seconds: float = 0.0


@dataclass
class Recorded:
    """A run, and everything that is needed to go on from any moment of it."""

    stage: Stage
    disks: dict[Model, Disk]
    ops: list[Op]
    label: str


class Explorer:
    """Works through recordings in a directory of its own."""

    def __init__(self, size: Size, number: int) -> None:
        self.size = size
        self.root = shop.fast(size.scratch) / f"power-{os.getpid()}-{number}"
        self.clock = Clock(log.utc_now())
        self.omneo = NearOmneo(self.clock)
        self.seen = Seen()

    def record(self, scenario: Scenario, label: str, plant: str = "") -> Recorded:
        """Lay out a shop, and run the command in it."""
        self.clock.begin_earlier()
        seed = random.Random(f"{self.size.seed} {label}").randrange(10**6)
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "shop").mkdir(parents=True)
        stage = scenario.stage(self.root / "shop", seed, self.omneo, ",".join(filter(None, (plant, "batches"))))
        recorded = self._run(stage, label)
        if not recorded.ops:  # after a first cut there may be nothing left to do
            raise RuntimeError(f"{label}: nothing was done that a cut could spoil")
        return recorded

    def record_again(self, before: Recorded, state: State, told: list[Request], label: str) -> Recorded:
        """The same command, started by whoever starts it, on what a first cut has left."""
        make(state, before.stage)
        stage = before.stage.elsewhere(before.stage.place.root)
        stage.told = told
        return self._run(stage, label)

    def _run(self, stage: Stage, label: str) -> Recorded:
        root = stage.place.root
        disks = {model: Disk.of(root, model) for model in MODELS}
        with running() as server:
            tell(server.url, stage.told)
            command = stage.command(server.url)
            _, ops = recording.record(command, stage.place.env, root, root.parent / "trace")
        self.clock.start, self.clock.passed_s = log.utc_now(), 0.0
        return Recorded(stage, disks, ops, label)

    def states(self, recorded: Recorded, count: int) -> Iterator[tuple[str, Model, State, list[Request]]]:
        """What a cut may leave, at moments spread over the whole run."""
        dice = random.Random(f"{self.size.seed} {recorded.label} states")
        told = list(recorded.stage.told)
        moments = len(recorded.ops) + 1
        made = 0
        for moment in range(moments):
            if moment:
                op = recorded.ops[moment - 1]
                if op.what == "request":
                    told.append((op.to, op.path, op.data))
                for disk in recorded.disks.values():
                    disk.take(op)
            while made < count * (moment + 1) // moments:
                model = MODELS[made % 2]
                yield f"{recorded.label}, state {made} ({model})", model, recorded.disks[model].cut(dice), list(told)
                made += 1

    def look(self, recorded: Recorded, count: int, most: int = FOUND_MOST) -> list[str]:
        """Go on from so many states. What was found, each with the state."""
        found: list[str] = []
        for label, _, state, told in self.states(recorded, count):
            self.seen.states += 1
            key = hash((state.key(), len(told), recorded.stage.scenario.name))
            if key in self.seen.keys:
                continue
            self.seen.keys.add(key)
            make(state, recorded.stage)
            self.clock.passed_s = 5.0
            self.omneo.forget(told)
            self.clock.passed_s = 10.0
            if wrong := recorded.stage.scenario.recover(recorded.stage, self.omneo):
                found.append(f"{label}: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))
                if len(found) >= most:
                    break
        return found

    def close(self) -> None:
        """Nothing is left."""
        shutil.rmtree(self.root, ignore_errors=True)


def make(state: State, stage: Stage, recorded: Path | None = None) -> None:
    """The disk as the cut left it, in the shop's own place (`recorded`: the paths are those of another)."""
    root = str(stage.place.root)
    was = str(recorded or root)
    shutil.rmtree(root, ignore_errors=True)
    times = {f"{stage.place.spool}/{drop.path}": drop for drop in stage.drops}
    for path in sorted(state.directories):
        Path(root + path.removeprefix(was)).mkdir(exist_ok=True)
    for path, content in state.contents().items():
        there = root + path.removeprefix(was)
        handle = os.open(there, os.O_WRONLY | os.O_CREAT, 0o640)
        os.write(handle, content)
        os.close(handle)
        if there in times:
            shop.stamp(Path(there), times[there])


def tell(url: str, told: list[Request]) -> None:
    """Omneo was told this before."""
    line = http.client.HTTPConnection(url.split("/")[2], timeout=30)
    headers = {"Authorization": "Bearer sandbox", "Content-Type": "application/json"}
    with contextlib.closing(line):
        for method, target, body in told:
            line.request(method, target, body or None, headers)
            line.getresponse().read()


def explore(size: Size, number: int) -> Seen:
    """One worker's share of the recordings."""
    began = time.monotonic()
    explorer = Explorer(size, number)
    count = max(1, min(size.points // PIECE, RECORDINGS))
    names = random.Random(size.seed).choices(list(SHARES), list(SHARES.values()), k=count)
    piece = -(-size.points // count)
    try:
        for index, name in enumerate(names):
            if index % size.jobs != number:
                continue
            label = f"{name} {index}"
            recorded = explorer.record(SCENARIOS[name], label)
            if index % 3 == 2:  # a second cut
                dice = random.Random(f"{size.seed} {label}")
                first = dice.randrange(piece)
                _, _, state, told = next(islice(explorer.states(recorded, piece), first, None))
                recorded = explorer.record_again(recorded, state, told, f"{label}, after a first cut in state {first}")
                explorer.seen.twice += piece
            explorer.seen.found += explorer.look(recorded, piece)
    finally:
        explorer.close()
    explorer.seen.seconds = time.monotonic() - began
    return explorer.seen


def caught(size: Size, plant: str) -> bool:
    """Is a program with this bug found out?"""
    explorer = Explorer(size, 100)
    try:
        recorded = explorer.record(SCENARIOS[PLANTED[plant]], f"{PLANTED[plant]}, planted {plant}", plant)
        return bool(explorer.look(recorded, PLANTED_MOST, 1))
    finally:
        explorer.close()


def run(size: Size) -> Figures:
    """The planted bugs first, then as many states as were asked for."""
    figures = Figures()
    figures.caught = {plant: caught(size, plant) for plant in PLANTED}
    with multiprocessing.get_context("spawn").Pool(size.jobs) as pool:
        seen = pool.starmap(explore, [(size, number) for number in range(size.jobs)])
    figures.points = sum(each.states for each in seen)
    figures.found = [words for each in seen for words in each.found]
    distinct = sum(len(each.keys) for each in seen)  # no two recordings have a salt in common
    figures.detail = {"distinct": distinct, "twice in a row": sum(each.twice for each in seen)}
    return figures


MEANS = Means(
    "power_recorded",
    "power, recorded",
    "states of the disk after a cut",
    small=50_000,
    full=1_000_000,
    needs=recording.lacking,
    run=run,
)
