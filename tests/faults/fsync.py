"""
Each sync fails once; the program dies of it or goes on; somebody starts it again; then the power goes.

After a sync that failed, Linux holds what it could not write for written: programs read it back from memory, and the
next cut takes it. So each sync of each command is failed under strace, the run and the restart after it are recorded,
and from both follows what a cut during or after the restart may leave.
"""

import multiprocessing
import random
import shutil
from dataclasses import dataclass, field, replace

from tests.faults import recording, shop
from tests.faults.forked import traced
from tests.faults.means import Figures, Means, Size
from tests.faults.power_recorded import MODELS, make
from tests.faults.real import Ground, again, child, serving
from tests.faults.restart import NearOmneo, Request
from tests.faults.scenarios import SCENARIOS, Stage
from tests.faults.volatile import Disk, Model, Op

FATES = {"goes on": "error=EIO", "dies": "error=EIO:signal=KILL"}
STATES = 24  # of the disk, for each sync that fails
# Planted bug → where a failed sync makes it cost something
PLANTED = {"unopened": "intake"}
TRIES = 5  # what a cut leaves is drawn by lot: not every run shows the bug


@dataclass
class Seen:
    """What some positions came to."""

    points: int = 0
    states: int = 0
    found: list[str] = field(default_factory=list)


class Failing:
    """One scenario, and the syncs of its command."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.trace = ground.root / "trace"
        self.syncs = self._count()

    def _count(self) -> list[tuple[str, int]]:
        self.ground.fresh()
        counts: dict[str, int] = {"fsync": 0, "fdatasync": 0}
        traced(self.ground.start(stopped=True), "-e", "trace=fsync,fdatasync", "-o", str(self.trace))
        for line in self.trace.read_text("ascii", "replace").splitlines():
            for call in counts:
                counts[call] += f" {call}(" in line
        return [(call, number) for call, most in counts.items() for number in range(1, most + 1)]

    def look(self, position: tuple[str, int], fate: str, near: NearOmneo, seen: Seen, seed: int) -> list[str]:
        """Fail that sync, start again, cut, go on, judge."""
        call, number = position
        stage = self.ground.fresh()
        root = stage.place.root
        disks: dict[Model, Disk] = {model: Disk.of(root, model) for model in MODELS}
        inject = f"inject={call}:{FATES[fate]}:when={number}"
        traced(self.ground.start(stopped=True), *recording.OPTIONS, "-e", inject, "-o", str(self.trace))
        ops = recording.understood(self.trace, root)
        if not any(op.what == "lose" for op in ops):
            return []
        seen.points += 1
        told = list(stage.told)
        for op in ops:
            _take(op, disks, told)
        later: list[Op] = []
        for words in again(stage, self.ground.omneo.url):
            waiting = child(stage, words, stage.place.plant, stopped=True)
            traced(waiting, *recording.OPTIONS, "-o", str(self.trace))
            later += recording.understood(self.trace, root)
        wrong = self._cuts(stage, disks, told, later, near, seen, random.Random(f"{seed} {position} {fate}"))
        if wrong:
            seen.found.append(f"{stage.scenario.name}, {call} number {number} fails, the program {fate}: {wrong[0]}")
        return wrong

    def _cuts(
        self,
        stage: Stage,
        disks: dict[Model, Disk],
        told: list[Request],
        later: list[Op],
        near: NearOmneo,
        seen: Seen,
        dice: random.Random,
    ) -> list[str]:
        """The power goes during the restart, and after it."""
        cut = stage.elsewhere(self.ground.root / "cut")
        moments = sorted(dice.randint(0, len(later)) for _ in range(STATES // 2)) + [len(later)] * (STATES // 2)
        for at, op in enumerate([*later, None]):
            for _ in range(moments.count(at)):
                seen.states += 1
                model = dice.choice(MODELS)
                make(disks[model].cut(dice), cut, stage.place.root)
                near.clock.start, near.clock.passed_s = stage.clock.start, 60.0
                near.forget(told)
                near.clock.passed_s = 65.0
                if wrong := cut.scenario.recover(cut, near):
                    return [f"then the power goes ({model}): {words}" for words in wrong]
            if op is not None:
                _take(op, disks, told)
        return []


def _take(op: Op, disks: dict[Model, Disk], told: list[Request]) -> None:
    if op.what == "request":
        told.append((op.to, op.path, op.data))
    for disk in disks.values():
        disk.take(op)


def work(size: Size, number: int, plant: str = "") -> Seen:
    """One worker's share of all positions; of a planted bug, until it is found."""
    seen = Seen()
    root = shop.fast(size.scratch) / f"fsync-{size.seed}-{number}-{plant}"
    names = [PLANTED[plant]] if plant else list(SCENARIOS)
    try:
        with serving(root) as omneo:
            for name in names:
                seed = random.Random(f"{size.seed} {name}").randrange(10**6)
                bugs = ",".join(filter(None, (plant, "batches")))
                failing = Failing(Ground(root / name.replace(" ", "-"), SCENARIOS[name], seed, omneo, bugs))
                near = NearOmneo(omneo.clock)
                every = [(position, fate) for position in failing.syncs for fate in FATES]
                for position, fate in every[number :: size.jobs] if not plant else reversed(every):
                    wrong = failing.look(position, fate, near, seen, size.seed)
                    if wrong and plant:
                        return seen
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return seen


def run(size: Size) -> Figures:
    """Planted bugs, then every sync of every command."""
    sizes = [replace(size, seed=size.seed + more) for more in range(TRIES)]
    figures = Figures(caught={plant: any(work(each, 0, plant).found for each in sizes) for plant in PLANTED})
    with multiprocessing.get_context("spawn").Pool(size.jobs) as pool:
        seen = pool.starmap(work, [(size, number) for number in range(size.jobs)])
    figures.points = sum(each.points for each in seen)
    figures.found = [words for each in seen for words in each.found]
    figures.detail = {"states after it": sum(each.states for each in seen)}
    return figures


MEANS = Means(
    "fsync",
    "fsync",
    "syncs that failed once",
    small=1,  # all there are, as in full
    full=1,
    needs=recording.lacking,
    run=run,
)
