"""
The power goes under both real programs at work: their files lie on a file system whose cache is lost with it.

Tills drop, both programs run, the power goes: both are gone at once, and of what was not synced some is left, some not
(`live_disk`). At once nothing that a till dropped may be nowhere; after some cuts on end all is drained and judged.
Omneo's stand-in stands elsewhere, and remembers.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.events import drained
from tests.faults import shop
from tests.faults.forked import Child, ready
from tests.faults.judge import Near, judge, kept
from tests.faults.means import Figures, Means, Size
from tests.faults.real import Served, serving

PYTHON = "/usr/bin/python3"  # Debian's, which has python3-fusepy
DISK = Path(__file__).with_name("live_disk.py")
CUTS = 10  # of one shop, before it is drained and judged
FILES = 6  # between two cuts
CALM_S = 60.0
PLANTED_CUTS = 40
PLANTED = ("reckless", "walled")


@dataclass
class Seen:
    """What some shops came to."""

    cuts: int = 0
    risky: int = 0
    found: list[str] = field(default_factory=list)


class Live:
    """A shop on a disk that forgets, and both programs."""

    def __init__(self, root: Path, seed: int, omneo: Served, plant: str = "") -> None:
        self.root, self.seed, self.omneo = root, seed, omneo
        self.dice = random.Random(seed)
        self.at, self.backing = root / "disk", root / "backing"
        self.bugs = ",".join(filter(None, (plant, "hurry")))
        self.programs: dict[str, Child] = {}
        self.place = Near(self.at)
        self.drops: list[shop.Drop] = []
        self.risky = 0  # cuts at which something was not sure

    def mount(self) -> None:
        """An installed shop on it, all of it sure."""
        for path in (self.at, self.backing):
            path.mkdir(parents=True)
        shop.found(self.backing)
        self.disk = subprocess.Popen(
            [PYTHON, str(DISK), str(self.at), str(self.backing)], stderr=(self.root / "disk.log").open("wb")
        )
        give_up = time.monotonic() + 10
        while not os.path.ismount(self.at):
            if time.monotonic() > give_up or self.disk.poll() is not None:
                raise RuntimeError(f"not mounted: {(self.root / 'disk.log').read_text()}")
            time.sleep(0.01)
        self.omneo.begin([])

    def start(self) -> None:
        """Both programs."""
        commands = {"journal": ["ingest"], "forwarder": ["run", "--url", self.omneo.url, "--rate", "0"]}
        for name, words in commands.items():
            self.programs[name] = Child([name, *words], self.place.env, self.bugs, self.root / f"{name}.log")

    def stop(self, number: int) -> list[str]:
        """Both at once: killed, or told to end."""
        for program in self.programs.values():
            os.kill(program.pid, number)
        ends = {name: program.wait(20.0) for name, program in self.programs.items()}
        self.programs.clear()
        return [
            f"{name} ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace').splitlines()[-1:]}"
            for name, done in ends.items()
            if done.returncode not in {-signal.SIGKILL, 0, 75}
        ]

    def cut(self) -> list[str]:
        """Tills drop, programs work, and then it is dark."""
        self.start()
        fresh = self.all_drops[len(self.drops) :][:FILES]
        half = self.dice.randint(0, len(fresh))
        shop.put(self.place, fresh[:half])
        time.sleep(self.dice.uniform(0.0, 0.25))
        shop.put(self.place, fresh[half:])
        self.drops += fresh
        time.sleep(self.dice.expovariate(1 / 0.03))
        wrong = self.stop(signal.SIGKILL)
        (self.at / ".power").write_text(f"cut {self.dice.randrange(10**9)}")
        return wrong + kept(self.place, self.drops)

    def run(self, cuts: int) -> list[str]:
        """So many cuts, and the judgement."""
        self.mount()
        self.all_drops = shop.written(self.seed, cuts * (FILES - 1), cuts)
        wrong: list[str] = []
        try:
            for number in range(cuts):
                wrong += [f"cut {number + 1}: {words}" for words in self.cut()]
                if wrong:
                    return wrong
            self.start()
            if not drained(self.place, {}, time.monotonic() + CALM_S):
                wrong.append("it did not go on")
            wrong += self.stop(signal.SIGTERM)
            return wrong + judge(self.place, self.drops, self.omneo.served())
        finally:
            for program in self.programs.values():
                os.kill(program.pid, signal.SIGKILL)
                program.wait()
            self.risky = sum(int(line) > 0 for line in (self.root / "disk.log").read_text().split() if line.isdecimal())
            subprocess.run(["umount", "-l", str(self.at)], capture_output=True, check=False)
            self.disk.kill()  # another namespace may have got the mount when it was made, and would keep it up
            self.disk.wait(10)
            shutil.rmtree(self.root, ignore_errors=True)


def work(size: Size, number: int) -> Seen:
    """One worker's shops."""
    seen = Seen()
    ready()
    root = shop.fast(size.scratch) / f"live-{size.seed}-{number}"
    shops = [min(CUTS, size.points - first) for first in range(0, size.points, CUTS)]
    with serving(root) as omneo:
        for index, cuts in list(enumerate(shops))[number :: size.jobs]:
            seed = random.Random(f"{size.seed} {index}").randrange(10**6)
            live = Live(root / f"shop-{index}", seed, omneo)
            wrong = live.run(cuts)
            seen.cuts += cuts
            seen.risky += live.risky
            seen.found += [f"shop {index} (its seed {seed}): {words}" for words in wrong[:5]]
    shutil.rmtree(root, ignore_errors=True)
    return seen


def caught(size: Size, plant: str) -> bool:
    """Is a program with this bug found out?"""
    ready()
    root = shop.fast(size.scratch) / f"live-{size.seed}-{plant}"
    try:
        with serving(root) as omneo:
            for index in range(PLANTED_CUTS // CUTS):
                if Live(root / f"shop-{index}", size.seed + index, omneo, plant).run(CUTS):
                    return True
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return False


def lacking() -> str | None:
    """Why this can't be done here, or None."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        return "it takes root and /dev/fuse"
    asked = subprocess.run([PYTHON, "-c", "import fusepy"], capture_output=True, check=False)
    return None if asked.returncode == 0 else "Debian's python3-fusepy is not installed"


def run(size: Size) -> Figures:
    """Planted bugs, then as many cuts as were asked for."""
    with multiprocessing.get_context("spawn").Pool(size.jobs) as pool:
        figures = Figures(
            caught=dict(zip(PLANTED, pool.starmap(caught, [(size, each) for each in PLANTED]), strict=True))
        )
        seen = pool.starmap(work, [(size, number) for number in range(size.jobs)])
    figures.points = sum(each.cuts for each in seen)
    figures.detail = {"with something unsynced": sum(each.risky for each in seen)}
    figures.found = [words for each in seen for words in each.found]
    return figures


MEANS = Means(
    "power_live", "power, live", "power cuts under both programs", small=30, full=1000, needs=lacking, run=run
)
