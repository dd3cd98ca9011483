"""
A line, a name server, a proxy and a server that do everything wrong, between the real forwarder and the sandbox.

Each of `wrongs.WRONGS` once: it has to strike, no request may last longer than it is allowed to, memory stays bounded,
nobody but Omneo hears a word, and when it is over everything goes on by itself. Then deliveries over a line that
changes all the time. At the end the usual judge: each sale once, digit by digit, in order.
"""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.campaign.drops import Doc, Drop, Tills
from tests.campaign.events import drained, write
from tests.campaign.programs import Program, Sandbox
from tests.faults import hosts
from tests.faults.front import RIGHT, Front, Wrong
from tests.faults.hosts import NAME, Hosts
from tests.faults.judge import Near, judge
from tests.faults.means import Figures, Means, Size
from tests.faults.wrongs import BEARABLE, DEAD, WRONGS

TIMEOUT_S = 1.0  # of one request
NAMES_S = 4.5  # a silent name server, as RES_OPTIONS has it
SLACK_S = 4.0  # of a busy machine
LONGEST_S = TIMEOUT_S + NAMES_S + SLACK_S
RESUME_S, RESUME_PLANTED_S = 40.0, 5.0
MEMORY_MAX = 160 * 1024 * 1024
TOGETHER = 2500  # deliveries with one pair of books
AHEAD = 300  # documents that wait at most
TOUR = [*WRONGS, *BEARABLE, "line: dead and back"]

# Planted bug → what has to be on the tour for it to show, and the check that has to find it.
PLANTS = {
    "gullible": (["answer: another id", "answer: a portal that says it is JSON"], "each sale once"),
    "blind": (["answer: hangs up after", "answer: resets after"], "each sale once"),
    "unbounded": (["answer: trickles its body"], "in time"),
    "glutton": (["answer: an endless body"], "in bounds"),
    "unpacks": (["answer: a packed bomb"], "in bounds"),
    "trusting": (["TLS: stranger", "TLS: self_signed"], "no strangers"),
}


class Shop:
    """The shop's two programs, the line, and what was sold."""

    def __init__(self, root: Path, front: Front, sandbox: Sandbox, seed: int, plant: str, *, lanes: bool) -> None:
        root.mkdir()
        self.place = Near(root, ",".join(filter(None, (plant, "hurry,watched"))))
        self.watch = root / "longest"
        self.place.env |= {"SSL_CERT_FILE": str(front.authority), "FAULTS_WATCH": str(self.watch)}
        self.place.env |= {"OMNEO_TIMEOUT": str(TIMEOUT_S), "OMNEO_URL": f"https://{NAME}/api/v3", "OMNEO_RATE": "0"}
        del self.place.env["RES_OPTIONS"]  # the program sets its own
        self.place.env |= {"OMNEO_ORDERING": "customer"} if lanes else {}
        self.front, self.sandbox, self.lanes = front, sandbox, lanes
        self.dice = Random(f"{seed}/{plant}")
        self.tills = Tills(self.dice)
        self.drops: list[Drop] = []
        self.found: list[str] = []
        self.struck: dict[str, int] = {}
        self.programs: dict[str, Program] = {}
        self.resume_s = RESUME_PLANTED_S if plant else RESUME_S

    def open(self) -> None:
        init = self.place.program("journal", "init")
        init.start()
        assert init.process is not None
        if init.process.wait(60) != 0:
            raise RuntimeError("no journal")
        forwarder = self.place.program("forwarder", "run")
        forwarder.command = self.front.hosts.in_shop(forwarder.command)
        self.programs = {"journal": self.place.program("journal", "ingest"), "forwarder": forwarder}
        for program in self.programs.values():
            program.start()

    def sell(self, count: int) -> None:
        for _ in range(count):
            drop = dataclasses.replace(self.tills.drop("sale", 0.0), in_place=False)
            self.drops.append(drop)
            write(self.place.spool, drop)

    def delivered(self) -> int:
        return int(self.sandbox.desk("GET", "/counts")["transactions"])

    def wait_for_all(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.delivered() == len(self.drops):
                return True
            time.sleep(0.05)
        return False

    # ── One after the other ──

    def tour(self, names: list[str]) -> None:
        self.sell(3)
        if not self.wait_for_all(self.resume_s):
            self.found.append("not even a good line delivers")
            return
        for name in names:
            if name in BEARABLE:
                self._bears(name)
            elif name in WRONGS:
                self._suffers(name, WRONGS[name])
            else:
                self._dies()
                self.struck[name] = 1
            self.front.be(RIGHT)
            if not self.wait_for_all(self.resume_s):
                self.found.append(f"{name}: it did not go on within {self.resume_s:.0f} s after that was over")

    def _suffers(self, name: str, wrong: Wrong) -> None:
        """Until the second time that it strikes, which shows that the first was survived."""
        self.front.be(wrong)
        self.sell(2)
        until = time.monotonic() + LONGEST_S + 1.5
        while self.front.struck < 2 and time.monotonic() < until and not (wrong.line and self.front.struck):
            time.sleep(0.02)
        self.struck[name] = self.front.struck
        if not self.front.struck:
            self.found.append(f"{name}: never happened")

    def _bears(self, name: str) -> None:
        self.front.be(BEARABLE[name])
        self.sell(2)
        self.struck[name] = 1
        if not self.wait_for_all(LONGEST_S * 2):
            self.found.append(f"{name}: nothing was delivered while it lasted")

    def _dies(self) -> None:
        """A connection that stands is cut off without a word, and so is every new one; then the line is back."""
        self.front.be(dataclasses.replace(DEAD, line={}))
        self.sell(2)
        self.wait_for_all(self.resume_s)
        self.front.hosts.line(**DEAD.line)
        self.sell(3)
        time.sleep(2.5 * TIMEOUT_S)
        self.front.hosts.line()
        if not self.wait_for_all(self.resume_s):
            self.found.append("line: dead and back: it did not go on after that was over")

    # ── All at random ──

    def changing(self, deliveries: int) -> None:
        """Files come all the time, and every second the line is another one."""
        names = list(WRONGS)
        while (there := self.delivered()) < deliveries:
            self.sell(min(AHEAD - (len(self.drops) - there), deliveries - len(self.drops)))
            name = self.dice.choice(names)
            wrong = WRONGS[name]
            hard = wrong.tls != "good" or (wrong.names != "cable" and not wrong.line)
            self.front.be(dataclasses.replace(wrong, share=self.dice.choice((0.02, 0.1, 0.5, 1.0))))
            time.sleep(self.dice.uniform(0.1, 0.4 if hard else 1.5))
            self.struck[name] = self.struck.get(name, 0) + self.front.struck
            if self.dice.random() < 0.6:
                self.front.be(RIGHT)
                time.sleep(self.dice.uniform(0.2, 1.5))
            for program in self.programs.values():
                program.look()

    # ── The end ──

    def close(self) -> list[str]:
        """All is well again: everything that is wrong, all the same."""
        self.front.be(RIGHT)
        settled = drained(self.place, self.programs, time.monotonic() + 3 * self.resume_s)
        self.found += [] if settled else ["not everything was settled in good time after all was well again"]
        peak = self._peak()
        for program in self.programs.values():
            program.stop()
        state = self.sandbox.desk("GET", "/state")
        other = ("asked before a resend:", *(("journal order:",) if self.lanes else ()))
        self.found += [words for words in judge(self.place, self.drops, state) if not words.startswith(other)]
        self.found += asked_before_resend(state)
        self.found += [words for program in self.programs.values() for words in program.complaints]
        longest = float(self.watch.read_text()) if self.watch.exists() else 0.0
        if longest > LONGEST_S:
            self.found.append(f"in time: a request took {longest:.1f} s, with {TIMEOUT_S} s for the whole of it")
        if peak > MEMORY_MAX:
            self.found.append(f"in bounds: the forwarder took {peak // 1024**2} MiB")
        told = [heard for heard in self.front.told_strangers if heard]
        if told:
            self.found.append(f"no strangers: {len(told)} of them heard something")
            self.front.told_strangers.clear()
        logs = [program.log.read_text("utf-8", "replace") for program in self.programs.values()]
        self.found += ["a program printed a traceback" for log in logs if "Traceback" in log]
        return self.found

    def _peak(self) -> int:
        process = self.programs["forwarder"].process
        assert process is not None
        text = Path(f"/proc/{process.pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split(None, 1)[0]) * 1024

    def kill(self) -> None:
        for program in self.programs.values():
            if program.process is not None and program.process.poll() is None:
                program.process.kill()
                program.process.wait()


def asked_before_resend(state: Doc) -> list[str]:
    """
    As many look-ups that found nothing as there were resends.

    Counted, not put in order as elsewhere: on a line that loses packets a request can arrive after the look-up that
    its sender went on to make, and the next one would be taken for a blind resend.
    """
    sent, asked = Counter[str](), Counter[str]()
    for entry in state["journal"]:
        name, path = entry["external_id"], entry["path"]
        if entry["method"] == "POST" and name is not None and "/" not in name:  # that is asked by a filter
            sent[name] += 1
        elif entry["method"] == "GET" and entry["status"] == 404 and entry["answered"]:
            asked[path.removeprefix("/transactions/external/")] += 1
    wrong = [name for name, times in sent.items() if times - 1 > asked[name]]
    return [f"asked before a resend: {name}: sent {sent[name]} times, {asked[name]} look-ups" for name in wrong]


@contextlib.contextmanager
def shop(front: Front, root: Path, seed: int, plant: str = "", *, lanes: bool = False) -> Iterator[Shop]:
    """An open shop with a sandbox of its own; nothing of it is left running."""
    sandbox = Sandbox(root.parent)
    front.sandbox = sandbox.host
    opened = Shop(root, front, sandbox, seed, plant, lanes=lanes)
    try:
        opened.open()
        yield opened
    finally:
        front.be(RIGHT)
        opened.kill()
        sandbox.process.kill()
        sandbox.process.wait()


def run(size: Size) -> Figures:
    figures = Figures()
    with Hosts(size.seed) as both, Front(both, "", size.scratch) as front:
        for plant, (tour, check) in PLANTS.items():
            with shop(front, size.scratch / f"planted-{plant}", size.seed, plant) as bad:
                bad.tour(tour)
                figures.caught[plant] = any(words.startswith(check) for words in bad.close())
        struck: dict[str, int] = {}
        number = 0
        while figures.points < size.points:
            lanes = number % 2 == 1
            with shop(front, size.scratch / f"shop-{number}", size.seed + number, lanes=lanes) as good:
                if number == 0:
                    good.tour(TOUR)
                good.changing(min(TOGETHER, size.points - figures.points))
                figures.found += [f"round {number}: {words}" for words in good.close()]
                figures.points += len(good.drops)
                for name, times in good.struck.items():
                    struck[name] = struck.get(name, 0) + times
            number += 1
            if figures.found:
                break
        figures.detail = {"ways to be wrong": len(struck), "times that one struck": sum(struck.values())}
    return figures


MEANS = Means("line", "line", "deliveries over a bad line", 400, 50_000, hosts.needs, run)
