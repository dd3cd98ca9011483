"""
Wrong clocks: both real programs under faketime, the kernel's clock in a time namespace, and the window's truth table.

The wall clock of the box is 1970, 2038, 2100 and whatever else, and jumps while they run; nothing may depend on it. A
reversal is judged by the kernel's clock, which counts sleep: `unshare --time` lets a box have slept. The table's cells
are made from what truly happened, with every clock a little or a lot off, and judged by that.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from forwarder import window
from forwarder.sandbox.customers import WEI
from forwarder.window import Instant, Made, Omneo
from tests.campaign.drops import Drop, Tills
from tests.campaign.events import drained, write
from tests.campaign.programs import Program, Sandbox
from tests.faults.judge import Near, judge
from tests.faults.means import Figures, Means, Size
from tests.faults.together import one, together

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
WALLS = {
    "1970": "@1970-01-01 00:00:10",
    "just before 32 bits end": "@2038-01-19 03:14:06",
    "2100, which has no leap day": "@2100-02-28 23:59:58",
    "a leap day begins": "@2028-02-28 23:59:58",
    "a leap second": "@2016-12-31 23:59:58",
    "summer time ends": "@2026-10-25 00:59:58",
    "summer time begins": "@2026-03-29 00:59:58",
    "two hours back": "-2h",
    "400 days ahead": "+400d",
    "a second back": "-1",
    "before Omneo was": "@1990-06-15 12:00:00",
}
SOON_S, SOON_PLANTED_S = 40.0, 6.0
CHUNK = 5000


def needs() -> str | None:
    if LIBRARY is None:
        return "the wall clock can't be faked without libfaketime (Debian: faketime)"
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "time namespaces need root and unshare"
    probe = ["unshare", "--time", "--boottime", "10", "--fork", "true"]
    done = subprocess.run(probe, capture_output=True, check=False)
    return "time namespaces can't be made here" if done.returncode else None


class Box:
    """A shop's box with both programs, whose wall clock is as it is set."""

    def __init__(self, root: Path, plant: str, seed: int, **environment: str) -> None:
        root.mkdir()
        self.place = Near(root, ",".join(filter(None, (plant, "hurry,naps"))))
        self.hands = root / "clock"
        self.set("+0")
        faked = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(self.hands), "FAKETIME_NO_CACHE": "1"}
        self.clocks = faked | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "TZ": "Europe/Berlin"}
        self.place.env |= {"OMNEO_RATE": "0", "OMNEO_TIMEOUT": "1"} | environment
        self.sandbox = Sandbox(root)
        self.dice = Random(seed)
        self.tills = Tills(self.dice)
        self.drops: list[Drop] = []
        self.found: list[str] = []
        self.programs: dict[str, Program] = {}
        self.soon_s = SOON_PLANTED_S if plant else SOON_S

    def set(self, hands: str) -> None:
        draft = self.hands.with_suffix(".new")
        draft.write_text(hands)
        draft.replace(self.hands)

    def open(self) -> None:
        subprocess.run(self.place.command("journal", "init"), env=self.place.env, check=True, capture_output=True)
        self.programs["journal"] = self.place.program("journal", "ingest")
        self.programs["forwarder"] = self.place.program("forwarder", "run", "--url", self.sandbox.url)
        for program in self.programs.values():
            program.env = program.env | self.clocks
            program.start()

    def sell(self, count: int) -> None:
        for _ in range(count):
            self.drops.append(dataclasses.replace(self.tills.drop("sale", 0.0), in_place=False))
            write(self.place.spool, self.drops[-1])

    def arrives(self, what: str) -> None:
        until = time.monotonic() + self.soon_s
        while self.sandbox.desk("GET", "/counts")["transactions"] < len(self.drops):
            if time.monotonic() > until:
                self.found.append(f"{what}: not delivered in {self.soon_s:.0f} s")
                return
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        logs = [program.log.read_text("utf-8", "replace") for program in self.programs.values()]
        wrong = ["a program printed a traceback" for log in logs if "Traceback" in log]
        return wrong + [words for program in self.programs.values() for words in program.complaints]

    def kill(self) -> None:
        for process in [program.process for program in self.programs.values()] + [self.sandbox.process]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def box(root: Path, plant: str, seed: int, **environment: str) -> Iterator[Box]:
    opened = Box(root, plant, seed, **environment)
    try:
        opened.open()
        yield opened
    finally:
        opened.kill()


def without_doubtful_flags(wrong: list[str]) -> list[str]:
    """
    Without complaints of a conflict too many, which is known (docs/reliability.md, what we don't promise).

    A clock that was set back by less than has passed can make our own sale look older than it is; it is delivered all
    the same, and a person is asked. One too few is still a complaint.
    """
    surplus = re.compile(r"flags: (\d+) open flags conflict, expected (\d+)")
    return [words for words in wrong if not ((found := surplus.match(words)) and int(found[1]) > int(found[2]))]


def sales(root: Path, seed: int) -> list[str]:
    """Every wall clock once, as a jump while both run and as the time at which they start; then one that flutters."""
    with box(root, "", seed) as shop:
        for what, hands in WALLS.items():
            shop.sell(1)  # under way while the clock jumps
            shop.set(hands)
            shop.sell(2)
            shop.arrives(what)
        for what in ("1970", "2100, which has no leap day"):
            for program in shop.programs.values():
                program.kill()
            shop.set(WALLS[what])
            for program in shop.programs.values():
                program.start()
            shop.sell(2)
            shop.arrives(f"started in {what}")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            shop.set(shop.dice.choice(("-1h", "+1h", "-400d", "+0", "+30")))
            shop.sell(1)
            time.sleep(0.05)
        shop.arrives("a clock that flutters")
        shop.set("+0")
        shop.found += [] if drained(shop.place, shop.programs, time.monotonic() + SOON_S) else ["not settled"]
        for program in shop.programs.values():
            program.stop()
        if not any(flag["flag"] == "clock_skew" for flag in shop.place.ask("flags")[1]):
            shop.found.append("clock_skew: a clock that is years off was not flagged")
        wrong = judge(shop.place, shop.drops, shop.sandbox.desk("GET", "/state"))
        return shop.found + without_doubtful_flags(wrong) + shop.complaints()


def reversals(root: Path, seed: int, plant: str = "") -> list[str]:
    """A window of 10 s: one reversal in time, one too late, one after the box has slept. The wall clock lies."""
    with box(root, plant, seed, OMNEO_REVERSAL_WINDOW="10") as shop:
        states = lambda: {row["external_id"]: row["state"] for row in shop.place.ask("list")[1]}  # noqa: E731

        def put(name: str, kind: str, **fields: object) -> None:
            timed = {"issued_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), "timezone": "UTC"}
            body = {"kind": kind, "external_id": name} | timed | fields
            write(shop.place.spool, Drop(0.0, kind, f"{name}.json", json.dumps(body).encode()))

        def until(name: str, *wanted: str) -> None:
            over = time.monotonic() + shop.soon_s
            while (state := states().get(name)) not in wanted:
                if time.monotonic() > over:
                    shop.found.append(f"{name} is {state}, not {' or '.join(wanted)}")
                    return
                time.sleep(0.05)

        worth = {"profile_id": WEI, "amount": 5, "strategies": ["rewards"]}
        for name in ("R-in", "R-out"):
            put(name, "redemption", **worth)
            until(name, "delivered")
        made = time.monotonic()
        shop.set("+1d")
        put("V-in", "reversal", redemption_external_id="R-in", reason="a")
        until("V-in", "delivered")
        time.sleep(max(0.0, made + 9 - time.monotonic()))
        shop.set("-1h")
        put("V-out", "reversal", redemption_external_id="R-out", reason="a")
        until("V-out", "held")
        put("R-slept", "redemption", **worth)
        until("R-slept", "delivered")
        forwarder = shop.programs["forwarder"]
        forwarder.stop()
        asleep = ["unshare", "--time", "--boottime", "900", "--fork", "--kill-child"]
        forwarder.command = [*asleep, *forwarder.command]
        forwarder.start()
        put("V-slept", "reversal", redemption_external_id="R-slept", reason="a")
        until("V-slept", "held")
        forwarder.kill()
        rows = shop.sandbox.desk("GET", "/state")["redemptions"]
        undone = sum(row["type"] != "redeem" for row in rows)
        shop.found += [f"{undone} reversals at Omneo, not 1"] if undone != 1 else []
        return shop.found + shop.complaints()


# ── The truth table ──

START = datetime(2025, 6, 15, 2, 0, tzinfo=UTC)


def cell(dice: Random) -> Iterator[str]:
    """What truly happened, what each clock says of it, and whether the verdict is right."""
    window_s, reserve_s = dice.choice((600.0, 60.0, 86400.0)), dice.choice((0.5, 3.0, 17.0, 62.0))
    edge = window_s - reserve_s
    there = dice.choice((0.0, 0.3, 2.0))  # until the request was carried out
    age = max(there, dice.choice((0.0, edge, window_s, 10 * window_s)) + dice.choice((0, -3.1, -1, 1, 3.1, 1e5)))
    true = START + timedelta(seconds=dice.uniform(0, 1e7))
    wall = lambda: true + timedelta(seconds=dice.choice((0, -1.7e9, 2.3e9, -3600, 400 * 86400)))  # noqa: E731
    boots = dice.choice(("same", "same", "other", "unknown", "online"))
    off = timedelta(seconds=dice.choice((0, 0, -3600, 90, 86400)))  # Omneo's clock
    whole = lambda moment: moment.replace(microsecond=0)  # noqa: E731
    left = Instant("a" if boots in {"same", "other"} else None, 500.0, wall())
    here = Instant("a" if boots == "same" else "b" if boots != "unknown" else None, 500.0 + age, wall())
    created = whole(true + timedelta(seconds=there) + off) if dice.random() < 0.8 else None
    lies = dice.random() < 0.2  # Omneo's two clocks differ
    date = None if created is None else created + (timedelta(hours=1) if lies else timedelta())
    seen_ago = dice.uniform(0, min(age - there, 300))
    seen = dice.choice(("now", "now", "never", "before the boot"))
    said = Omneo(
        whole(true + timedelta(seconds=age - seen_ago) + off),
        Instant(here.boot if seen == "now" else "z", here.since_boot_s - seen_ago, wall()),
    )
    made = Made(None if boots == "online" else left, created, date)
    verdict = window.reversal(made, here, None if seen == "never" else said, window_s, reserve_s)
    told = f"{boots} boot, age {age}, window {window_s}, reserve {reserve_s}, Omneo seen {seen}, lies {lies}: {verdict}"
    by_kernel = boots == "same"
    by_omneo = created is not None and seen == "now" and not lies and boots != "unknown"
    if verdict.judged == "in" and age - there + reserve_s > window_s:
        yield f"too late, and yet in: {told}"
    if verdict.judged != "cannot tell" and not (by_kernel or by_omneo):
        yield f"nobody can tell, and yet: {told}"
    if verdict.judged == "cannot tell" and by_kernel:
        yield f"the kernel can tell: {told}"
    if verdict.judged != "in" and (by_kernel or by_omneo) and age + reserve_s + 2.1 <= window_s:
        yield f"in time, and yet not in: {told}"
    other = dataclasses.replace(here, wall=wall())
    if window.reversal(made, other, None if seen == "never" else said, window_s, reserve_s).judged != verdict.judged:
        yield f"the wall clock decides: {told}"


def late(dice: Random) -> Iterator[str]:
    """How late a redemption came: never on time when it wasn't, whatever the till's clock says."""
    window_s = dice.choice((60.0, 600.0))
    waited = dice.choice((1.0, window_s - 2, window_s + 2, 10 * window_s, 86400.0))  # in the journal
    ahead = dice.choice((0.0, 0.0, 60.0, 119.0, 122.0, 3600.0, 1e8, -30.0, -3600.0))  # the till's clock
    received = START
    issued, made = received + timedelta(seconds=ahead), received + timedelta(seconds=waited)
    verdict = window.lateness(issued, received, made, window_s)
    told = f"waited {waited}, till ahead {ahead}, window {window_s}: {verdict.judged}"
    if verdict.judged == "in" and (waited > window_s or waited - ahead > window_s):
        yield f"late, and yet on time: {told}"
    if verdict.judged == "in" and ahead > 120:
        yield f"a till that can't be believed was: {told}"
    if verdict.judged != "in" and waited <= window_s and -1 <= ahead <= 119 and waited - ahead <= window_s:
        yield f"on time, and yet not: {told}"


def by_wall() -> None:
    """The wall clock tells how much time has passed."""
    Instant.until_s = lambda at, then: (then.wall - at.wall).total_seconds()  # type: ignore[method-assign]


def no_reserve() -> None:
    """A reversal may leave until the very end of the window."""
    judged = window.reversal
    window.reversal = lambda made, now, omneo, window_s, _: judged(made, now, omneo, window_s, 0.0)


def hopeful() -> None:
    """What nobody can tell is taken to be in time."""
    judged = window.reversal
    window.reversal = lambda *given: (
        dataclasses.replace(found, judged="in") if (found := judged(*given)).judged == "cannot tell" else found
    )


TABLE_PLANTS: dict[str, Callable[[], None]] = {"by_wall": by_wall, "no_reserve": no_reserve, "hopeful": hopeful}


def cells(given: tuple[int, int, int, str]) -> list[str]:
    seed, number, count, plant = given
    if plant:
        TABLE_PLANTS[plant]()
    dice = Random(f"{seed}/{number}")
    found = []
    for at in range(count):
        found += [f"chunk {number}, cell {at}: {wrong}" for make in (cell, late) for wrong in make(dice)]
    return found


def run(size: Size) -> Figures:
    figures = Figures()
    for plant in TABLE_PLANTS:
        figures.caught[plant] = bool(one(cells, (size.seed, 0, CHUNK, plant)))
    for plant in ("wallclock", "awake"):
        figures.caught[plant] = bool(reversals(size.scratch / f"planted-{plant}", size.seed, plant))
    figures.found += sales(size.scratch / "sales", size.seed)
    figures.found += [f"reversals: {words}" for words in reversals(size.scratch / "reversals", size.seed)]
    chunks = [(size.seed, at, min(CHUNK, size.points - at * CHUNK), "") for at in range(-(-size.points // CHUNK))]
    for found in together(cells, chunks, size.jobs):
        figures.found += found[:5]
    figures.points = size.points
    figures.detail = {"wall clocks": len(WALLS) + 3, "reversals by the kernel's clock": 3}
    return figures


MEANS = Means("clock", "clock", "cells of the window's truth table", 20_000, 500_000, needs, run)
