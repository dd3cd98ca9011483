"""Scenarios with real programs only: the broken run, whoever starts it again, and Omneo's stand-in over HTTP."""

import contextlib
import http.client
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from forwarder.sandbox.control import Desk, read_state
from forwarder.sandbox.exchange import Call
from forwarder.sandbox.serve import Running, running
from journal import log
from tests.campaign.drops import Doc
from tests.faults import restart, shop
from tests.faults.judge import judge, kept
from tests.faults.restart import Clock, NearOmneo, Request
from tests.faults.scenarios import Scenario, Stage

FRESH_S = 240.0  # a redemption that is much older would rightly be flagged
LONG_S = 60.0
ENDS = {0, 75, 78}  # how a program may end that meets a failing disk


class Served(NearOmneo):
    """The stand-in behind a port; what lays out a scenario asks it without."""

    def __init__(self, server: Running) -> None:
        super().__init__(Clock(log.utc_now()))
        self.server = server

    def begin(self, told: Sequence[Request]) -> None:
        """As it was when the scenario begins."""
        line = http.client.HTTPConnection(self.server.url.split("/")[2], timeout=30)
        headers = {"Authorization": "Bearer sandbox", "Content-Type": "application/json"}
        with contextlib.closing(line):
            for method, target, body in [("POST", "/_sandbox/reset", b""), *told]:
                line.request(method, target, body or None, headers)
                line.getresponse().read()

    def served(self) -> Doc:
        """Its state."""
        told: Doc = restart.exact(read_state(Desk(self.server.state), Call("GET", "", "", "", {}, "", {}, b"")).body)
        return told


@contextlib.contextmanager
def serving() -> Iterator[Served]:
    """The stand-in, for as long as the block runs."""
    with running() as server:
        yield Served(server)


class Ground:
    """One scenario, laid out once and put back before each fault."""

    def __init__(self, root: Path, scenario: Scenario, seed: int, omneo: Served, plant: str = "") -> None:
        self.root, self.scenario, self.seed, self.omneo, self.plant = root, scenario, seed, omneo, plant
        self._lay()

    def _lay(self) -> None:
        self.laid = time.monotonic()
        shutil.rmtree(self.root, ignore_errors=True)
        place = self.root / "shop"
        place.mkdir(parents=True)
        self.omneo.clock.start, self.omneo.clock.passed_s = log.utc_now(), 0.0
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

    def command(self) -> list[str]:
        """What is to be broken."""
        return self.stage.command(self.omneo.server.url)

    def judged(self, broken: "subprocess.CompletedProcess[bytes] | None" = None) -> list[str]:
        """After the fault: nothing is lost now; whoever starts it again gets it done; and all was kept."""
        wrong = [] if broken is None else ended_well(broken)
        place = self.stage.place
        if place.journal.exists() and not self.scenario.lets_go:
            wrong += kept(place, self.stage.drops)
        for command in again(self.stage, self.omneo.server.url):
            done = execute(command, self.stage)
            expected = {0, 1} if "redact" in command else {0}
            if done.returncode not in expected:
                words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
                wrong.append(f"does not start again: {' '.join(command[-3:])} ended with {done.returncode} {words}")
        wrong += judge(place, self.stage.drops, self.omneo.served() if self.scenario.sends else None)
        return wrong + self.scenario.more(self.stage)


def again(stage: Stage, url: str) -> Iterator[list[str]]:
    """The commands that whoever starts the programs again gives, without any bug in them."""
    sound = stage.elsewhere(stage.place.root)
    sound.place.plant = ""
    if not stage.place.journal.exists():
        yield sound.place.command("journal", "init")
    yield sound.place.command("journal", "ingest", "--once")
    if stage.scenario.name not in {"first", "intake"}:
        yield sound.command(url)


def execute(command: Sequence[str], stage: Stage) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end."""
    return subprocess.run(command, env=stage.place.env, capture_output=True, timeout=LONG_S, check=False)


def ended_well(broken: "subprocess.CompletedProcess[bytes]") -> list[str]:
    """It was killed, or it ended with a sentence and a code that says whether to try again."""
    told = broken.stderr.decode("utf-8", "replace")
    if broken.returncode < 0:
        return []
    wrong = [] if broken.returncode in ENDS else [f"ended with {broken.returncode}: {told.strip().splitlines()[-1:]}"]
    return wrong + (["printed a traceback: " + told.strip().splitlines()[-1]] if "Traceback" in told else [])
