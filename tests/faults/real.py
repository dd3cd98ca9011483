"""Scenarios with real programs only: the broken run, whoever starts it again, and Omneo's stand-in over HTTP."""

import contextlib
import http.client
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from journal import log
from tests.campaign.drops import Doc
from tests.campaign.programs import Sandbox
from tests.faults import shop
from tests.faults.forked import Child, Done, ready
from tests.faults.judge import judge, kept
from tests.faults.restart import Clock, NearOmneo, Request
from tests.faults.scenarios import Scenario, Stage

FRESH_S = 240.0  # a redemption that is much older would rightly be flagged
ENDS = {0, 75, 78}  # how a program may end that meets a failing disk


class Served(NearOmneo):
    """The stand-in in a process of its own; what lays out a scenario asks one without."""

    def __init__(self, server: Sandbox) -> None:
        super().__init__(Clock(log.utc_now()))
        self.server = server
        self.url = server.url

    def begin(self, told: Sequence[Request]) -> None:
        """As it was when the scenario begins."""
        line = http.client.HTTPConnection(self.server.host, timeout=30)
        headers = {"Authorization": "Bearer sandbox", "Content-Type": "application/json"}
        with contextlib.closing(line):
            for method, target, body in [("POST", "/_sandbox/reset", b""), *told]:
                line.request(method, target, body or None, headers)
                line.getresponse().read()

    def served(self) -> Doc:
        """Its state."""
        told: Doc = self.server.desk("GET", "/state")
        return told


@contextlib.contextmanager
def serving(scratch: Path) -> Iterator[Served]:
    """The stand-in, for as long as the block runs."""
    scratch.mkdir(parents=True, exist_ok=True)
    server = Sandbox(scratch)
    try:
        yield Served(server)
    finally:
        server.process.kill()
        server.process.wait()


class Ground:
    """One scenario, laid out once and put back before each fault."""

    def __init__(self, root: Path, scenario: Scenario, seed: int, omneo: Served, plant: str = "") -> None:
        self.root, self.scenario, self.seed, self.omneo, self.plant = root, scenario, seed, omneo, plant
        ready()
        self._lay()

    def _lay(self) -> None:
        self.laid = time.monotonic()
        shutil.rmtree(self.root, ignore_errors=True)
        place = self.root / "shop"
        place.mkdir(parents=True)
        self.omneo.clock.begin_earlier()
        self.stage = self.scenario.stage(place, self.seed, self.omneo, self.plant)
        shop.copy(place, self.root / "before")

    def fresh(self) -> Stage:
        """The shop as it is before the command starts."""
        if time.monotonic() - self.laid > FRESH_S:
            self._lay()
        shop.copy(self.root / "before", self.stage.place.root)
        if self.scenario.sends:
            self.omneo.begin(self.stage.told)
        return self.stage

    def start(self, *, stopped: bool = False) -> Child:
        """What is to be broken."""
        return child(
            self.stage, self.scenario.words(self.stage, self.omneo.url), self.stage.place.plant, stopped=stopped
        )

    def judged(self, broken: Done | None = None) -> list[str]:
        """After the fault: nothing is lost now; whoever starts it again gets it done; and all was kept."""
        wrong = [] if broken is None else ended_well(broken)
        place = self.stage.place
        if place.journal.exists() and not self.scenario.lets_go:
            wrong += kept(place, self.stage.drops)
        for words in again(self.stage, self.omneo.url):
            done = child(self.stage, words).wait()
            expected = {0, 1} if "redact" in words else {0}
            if done.returncode not in expected:
                told = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
                wrong.append(f"does not start again: {' '.join(words[:3])} ended with {done.returncode} {told}")
        wrong += judge(place, self.stage.drops, self.omneo.served() if self.scenario.sends else None)
        return wrong + self.scenario.more(self.stage)


def again(stage: Stage, url: str) -> Iterator[list[str]]:
    """The commands that whoever starts the programs again gives."""
    if not stage.place.journal.exists():
        yield ["journal", "init"]
    yield ["journal", "ingest", "--once"]
    words = stage.scenario.words(stage, url)
    if words[1] not in {"init", "ingest"}:
        yield words


def child(stage: Stage, words: Sequence[str], plant: str = "", *, stopped: bool = False) -> Child:
    """One of the programs, in this shop."""
    return Child(words, stage.place.env, plant, stage.place.root.parent / "said", stopped)


def ended_well(broken: Done) -> list[str]:
    """It was killed, or it ended with a sentence and a code that says whether to try again."""
    told = broken.stderr.decode("utf-8", "replace")
    if broken.returncode < 0:
        return []
    wrong = [] if broken.returncode in ENDS else [f"ended with {broken.returncode}: {told.strip().splitlines()[-1:]}"]
    return wrong + (["printed a traceback: " + told.strip().splitlines()[-1]] if "Traceback" in told else [])
