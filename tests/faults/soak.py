"""
Everything at random together, for long: files of all kinds, a line that fails, clocks that jump, a disk that fills.

Both programs are killed and stopped now and then. Once they have settled, memory and descriptors must stay flat, and
at the end the usual judge says that nothing was lost.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.campaign.drops import SHARES, Drop, Tills
from tests.campaign.events import drained, write
from tests.campaign.programs import Program, Sandbox
from tests.faults.clock import LIBRARY, without_doubtful_flags
from tests.faults.judge import Near, judge
from tests.faults.means import Figures, Means, Size
from tests.faults.together import together

LIFE_S = 600.0  # a program's, at the longest
UNSETTLED = 0.4  # the part of a life in which it may grow
GROWTH, GROWTH_BYTES, GROWTH_FILES = 1.05, 8 * 1024 * 1024, 3
PLANTED_S = 45.0
PLANTS = ("leaky", "bloated")
DISK_BYTES = 768 * 1024 * 1024
NO_ROOM_TO_START = re.compile(r"^forwarder ended by itself with code 75: .* is full;")  # the supervisor tries again
HANDS = ("+0", "-1h", "+400d", "@1970-01-01 00:00:10", "-2", "+0")


class Measured:
    """What a program held, over time."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, int, int]] = []  # part of its life, bytes, descriptors

    def look(self, part: float, program: Program) -> None:
        assert program.process is not None
        place = Path(f"/proc/{program.process.pid}")
        with contextlib.suppress(OSError, IndexError):
            resident = int((place / "status").read_text().partition("VmRSS:")[2].split(None, 1)[0]) * 1024
            self.rows.append((part, resident, len(list((place / "fd").iterdir()))))

    def growth(self) -> list[str]:
        """Where it was not flat: the last fifth of a life against the first one in which it had settled."""
        early = [row for row in self.rows if UNSETTLED <= row[0] < UNSETTLED + 0.2]
        late = [row for row in self.rows if row[0] >= 0.8]
        if not early or not late:
            return ["was not measured"]
        wrong = []
        (was, files_were), (is_, files_are) = (
            (sorted(row[1] for row in rows)[len(rows) // 2], max(row[2] for row in rows)) for rows in (early, late)
        )
        if is_ > was * GROWTH + GROWTH_BYTES:
            wrong.append(f"grew from {was // 1024**2} to {is_ // 1024**2} MiB")
        if files_are > files_were + GROWTH_FILES:
            wrong.append(f"had {files_were} descriptors, and then {files_are}")
        return wrong


class Soak:
    """One shop, and what happens to it."""

    def __init__(self, root: Path, seed: int, plant: str) -> None:
        root.mkdir()
        self.dice = Random(f"{seed}/{plant}")
        self.place = Near(root, ",".join(filter(None, (plant, "hurry,naps"))))
        self.place.env |= {"OMNEO_RATE": "0", "OMNEO_TIMEOUT": "0.5"}
        self.hands = root / "clock"
        self.hands.write_text("+0")
        if LIBRARY is not None:
            self.place.env |= {"FAKETIME_TIMESTAMP_FILE": str(self.hands), "FAKETIME_NO_CACHE": "1"}
            self.place.env |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        self.books = self.place.journal.parent
        self.books.mkdir()
        self.mounted = os.geteuid() == 0 and mount(self.books)
        self.sandbox = Sandbox(root)
        self.tills = Tills(self.dice)
        self.drops: list[Drop] = []
        self.measured: dict[str, Measured] = {}
        self.found: list[str] = []
        self.events = 0
        init = self.place.command("journal", "init")
        subprocess.run(init, env=self.place.env, check=True, capture_output=True)
        run = ("run", "--url", self.sandbox.url)
        self.programs = {"journal": self.place.program("journal", "ingest")}
        self.programs["forwarder"] = self.place.program("forwarder", *run)
        for program in self.programs.values():
            program.env = program.env | ({} if LIBRARY is None else {"LD_PRELOAD": str(LIBRARY)})
            program.start()
        self.sandbox.fail(seed, 0.1, 1.0)

    def live(self, seconds: float) -> None:
        """One life: it is rough at first, then only so far that the programs stay alive."""
        began = time.monotonic()
        self.measured = {name: Measured() for name in self.programs}
        looked = 0.0
        while (passed := time.monotonic() - began) < seconds:
            part = passed / seconds
            self.files()
            self.happens(part)
            if passed - looked > min(1.0, seconds / 60):
                looked = passed
                for name, program in self.programs.items():
                    program.look()
                    self.measured[name].look(part, program)
            time.sleep(self.dice.uniform(0, 0.2))
        self.found += [f"{name} {words}" for name, measured in self.measured.items() for words in measured.growth()]

    def files(self) -> None:
        for what in self.dice.choices(list(SHARES), list(SHARES.values()), k=self.dice.choice((0, 1, 1, 2, 5))):
            drop = self.tills.drop(what, time.monotonic())
            self.drops.append(drop)
            write(self.place.spool, Drop(drop.at, drop.what, drop.path, drop.body, drop.external_id))

    def happens(self, part: float) -> None:
        """Now and then something does."""
        rough = part < UNSETTLED / 2
        deeds: list[Callable[[], None]] = [self._stop, self._cut, self._jump, self._fill, self._noise]
        if self.dice.random() < 0.1:
            self.events += 1
            self.dice.choice([*deeds, self._kill, self._kill] if rough else deeds)()

    def _kill(self) -> None:
        program = self.dice.choice(list(self.programs.values()))
        program.kill()
        time.sleep(self.dice.uniform(0, 0.5))
        program.start()

    def _stop(self) -> None:
        process = self.dice.choice(list(self.programs.values())).process
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
            time.sleep(self.dice.uniform(0.1, 0.8))
            process.send_signal(signal.SIGCONT)

    def _cut(self) -> None:
        self.sandbox.cut(self.dice.uniform(0.2, 1.5))

    def _jump(self) -> None:
        draft = self.hands.with_suffix(".new")
        draft.write_text(self.dice.choice(HANDS))
        draft.replace(self.hands)

    def _fill(self) -> None:
        """The disk of the books is full for a while."""
        if not self.mounted:
            return
        ballast = self.books / ".ballast"
        free = os.statvfs(self.books)
        with contextlib.suppress(OSError), ballast.open("wb") as out:
            os.posix_fallocate(out.fileno(), 0, max(1, free.f_bavail * free.f_frsize))
        time.sleep(self.dice.uniform(0.2, 1.0))
        ballast.unlink(missing_ok=True)

    def _noise(self) -> None:
        """Something in the spool that is no document, and goes again."""
        odd = self.place.spool / f"odd-{self.dice.randrange(5)}.json"
        odd.symlink_to("/dev/zero")
        time.sleep(0.05)
        odd.unlink()

    def close(self) -> list[str]:
        self.sandbox.desk("DELETE", "/faults")
        self.hands.write_text("+0")
        if not drained(self.place, self.programs, time.monotonic() + 60):
            self.found.append("not everything was settled a minute after all was well again")
        for program in self.programs.values():
            program.stop()
        self.found += without_doubtful_flags(judge(self.place, self.drops, self.sandbox.desk("GET", "/state")))
        complaints = [words for program in self.programs.values() for words in program.complaints]
        self.found += [words for words in complaints if not NO_ROOM_TO_START.search(words)]
        logs = [program.log.read_text("utf-8", "replace") for program in self.programs.values()]
        return self.found + ["a program printed a traceback" for log in logs if "Traceback" in log]

    def kill(self) -> None:
        for process in [program.process for program in self.programs.values()] + [self.sandbox.process]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.books)], check=False)


def mount(place: Path) -> bool:
    """A disk of its own for the books, which can be filled."""
    how = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(place)]
    return subprocess.run(how, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def soaked(root: Path, seed: int, plant: str) -> Iterator[Soak]:
    shop = Soak(root, seed, plant)
    try:
        yield shop
    finally:
        shop.kill()


def lives(given: tuple[str, int, float, str]) -> tuple[list[str], dict[str, int]]:
    """What was wrong, and how much happened."""
    place, seed, seconds, plant = given
    with soaked(Path(place) / f"soak-{plant}", seed, plant) as shop:
        count = max(1, round(seconds / LIFE_S))
        for _ in range(count):
            for program in shop.programs.values():
                program.kill()
                program.start()
            shop.live(seconds / count)
        grown = list(shop.found)
        wrong = grown if plant else shop.close()
        facts = {"files": len(shop.drops), "events": shop.events, "lives": count, "disk filled": int(shop.mounted)}
        return wrong, facts | {"clock faked": int(LIBRARY is not None)}


def run(size: Size) -> Figures:
    figures = Figures()
    given = [(str(size.scratch), size.seed, PLANTED_S, plant) for plant in PLANTS]
    given.append((str(size.scratch), size.seed, float(size.points), ""))
    for (_, _, _, plant), (wrong, facts) in zip(given, together(lives, given, len(given)), strict=True):
        if plant:
            figures.caught[plant] = any("grew" in words or "descriptors" in words for words in wrong)
        else:
            figures.found, figures.detail = wrong, dict(facts)
    figures.points = size.points
    return figures


MEANS = Means("soak", "soak", "seconds", 60, 1_800, lambda: None, run)
