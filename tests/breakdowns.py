"""
Ten shops in which something is wrong, to practise on: `python tests/breakdowns.py NAME [DIR]`, `make breakdown NAME=…`.

Sets one up with real programs against the sandbox, says where to look, and waits. Who plays has `status`, `doctor`, the
two logs and docs/operating.md, and has to say what is wrong. `tests/test_breakdowns.py` holds that page to it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec

import journal
from forwarder.sandbox.serve import Running, running
from journal import log

BACKLOG = 3
GIVE_UP_S = 60.0
MIB = 1024 * 1024


@dataclass
class Box:
    """A shop's box: a spool, two books, two programs, and Omneo's stand-in."""

    root: Path
    omneo: Running
    stack: ExitStack
    url: str = ""
    programs: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    sold: int = 0

    def __post_init__(self) -> None:
        self.db, self.delivery, self.spool = self.root / "journal.db", self.root / "delivery.db", self.root / "spool"
        self.token = self.root / "token"
        self.url = self.omneo.url
        self.token.write_text("sandbox\n")
        self.command("journal", "init")

    @property
    def settings(self) -> dict[str, str]:
        """What the programs and the operator's commands find in their environment."""
        return {
            "OMNEO_JOURNAL_DB": str(self.db),
            "OMNEO_JOURNAL_SPOOL": str(self.spool),
            "OMNEO_URL": self.url,
            "OMNEO_TOKEN_FILE": str(self.token),
        }

    def _line(self, program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OMNEO_")}
        where = {"PYTHONPATH": str(Path(journal.__file__).parents[1]), "PYTHONUTF8": "1"}
        code = f"from {program}.cli import main; main()"
        return [sys.executable, "-c", code, *arguments], clean | where | self.settings

    def command(self, program: str, *arguments: str) -> str:
        """What one of the operator's commands prints."""
        line, env = self._line(program, *arguments)
        return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=False).stdout

    def log(self, program: str) -> str:
        """What a program has said so far."""
        path = self.root / f"{program}.log"
        return path.read_text() if path.exists() else ""

    def start(self, program: str) -> None:
        """`journal` or `forwarder`, as a shop runs it."""
        line, env = self._line(program, *{"journal": ["ingest"], "forwarder": ["run"]}[program])
        out = self.stack.enter_context((self.root / f"{program}.log").open("ab"))
        self.programs[program] = self.stack.enter_context(subprocess.Popen(line, env=env, stderr=out, stdout=out))
        self.stack.callback(self.programs[program].kill)
        wait(lambda: '"ready"' in self.log(program))

    def sell(self, count: int = 1) -> None:
        """Files from the till."""
        for _ in range(count):
            self.sold += 1
            self.drop(f"sale-{self.sold}.json", msgspec.json.encode(sale(f"S-{self.sold}")))

    def drop(self, name: str, body: bytes) -> None:
        """One file, whole at once."""
        draft = self.spool / f".{name}"
        draft.write_bytes(body)
        draft.rename(self.spool / name)

    def control(self, path: str, **fields: Any) -> None:
        """Sandbox, do this."""
        httpx.post(self.omneo.control + path, json=fields).raise_for_status()

    def entries(self, kind: str) -> int:
        """How many of a kind are in the journal."""
        with closing(log.open_book(self.db, "journal", write=False)) as book:
            return int(book.execute("SELECT count(*) FROM log WHERE kind = ?", (kind,)).fetchone()[0])

    def sees(self, words: str) -> bool:
        """Does `status` say so by now?"""
        return words in self.command("forwarder", "status")


def sale(external_id: str) -> dict[str, Any]:
    """One that adds up."""
    line = {"name": "Shirt", "quantity": 1, "price_current": 20, "price_sell": 20}
    moment = {"transacted_at": "2025-06-15 14:32:00", "timezone": "Australia/Melbourne"}
    return {"kind": "sale", "external_id": external_id, "total": 20, "items": [line]} | moment


def wait(true: Callable[[], object]) -> None:
    """Wait for a condition."""
    give_up = time.monotonic() + GIVE_UP_S
    while not true():
        if time.monotonic() > give_up:
            raise RuntimeError("waited in vain")
        time.sleep(0.05)


# -- what is wrong --------------------------------------------------------------------------------------------------


def nothing(box: Box) -> None:
    """Nothing is wrong: to compare with."""
    box.start("journal")
    box.start("forwarder")
    box.sell(BACKLOG)
    wait(lambda: box.sees("3 delivered"))


def no_line(box: Box) -> None:
    """Nobody answers at Omneo's address."""
    box.url = "http://127.0.0.1:9/api/v3"
    box.start("journal")
    box.start("forwarder")
    box.sell(BACKLOG)
    wait(lambda: box.sees("down"))


def portal(box: Box) -> None:
    """The shop's provider shows its sign-in page."""
    box.start("journal")
    box.start("forwarder")
    box.control("/faults", mode="portal")
    box.sell(BACKLOG)
    wait(lambda: box.sees("down"))


def token(box: Box) -> None:
    """The token was revoked at Omneo."""
    box.control("/revoke")
    box.start("journal")
    box.start("forwarder")
    box.sell(BACKLOG)
    wait(lambda: box.sees("paused"))


def address(box: Box) -> None:
    """A slip in --url."""
    box.url = box.omneo.url + "3"
    box.start("journal")
    box.start("forwarder")
    box.sell(BACKLOG)
    wait(lambda: box.sees("paused"))


def clock(box: Box) -> None:
    """The clock of this machine is two hours ahead."""
    box.control("/date", skew_s=-7200)
    box.start("journal")
    box.start("forwarder")
    box.sell(BACKLOG)
    wait(lambda: box.sees("clock_skew"))


def disk(box: Box) -> None:
    """Somebody has filled the disk."""
    box.start("journal")
    box.start("forwarder")
    box.sell(1)
    wait(lambda: box.sees("1 delivered"))
    there = os.statvfs(box.root)
    with (box.root / "holiday-pictures.zip").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, there.f_bavail * there.f_frsize - 2 * MIB)
    box.sell(BACKLOG)
    wait(lambda: "not_now" in box.log("journal"))


def spool(box: Box) -> None:
    """The share that the tills write to is not mounted any more."""
    box.start("journal")
    box.start("forwarder")
    box.spool.rename(box.root / "spool-elsewhere")
    wait(lambda: "not_now" in box.log("journal"))


def intake(box: Box) -> None:
    """The ingest program was stopped, and nobody has started it again."""
    box.start("journal")
    box.start("forwarder")
    box.sell(1)
    wait(lambda: box.sees("1 delivered"))
    box.programs["journal"].terminate()
    box.programs["journal"].wait()
    box.sell(BACKLOG)


def hangs(box: Box) -> None:
    """The forwarder hangs: it is there, and does nothing."""
    box.start("journal")
    box.start("forwarder")
    box.programs["forwarder"].send_signal(signal.SIGSTOP)
    box.sell(BACKLOG)
    wait(lambda: box.entries("sale") == BACKLOG)
    with closing(log.open_book(box.db, "journal", write=True)) as book:  # as it will be in a quarter of an hour
        log.append(book, [log.Entry("canary", facts={"canary": 1})], now=lambda: log.utc_now() - timedelta(minutes=15))


def till(box: Box) -> None:
    """A till writes what nobody understands: it forgets the total."""
    box.start("journal")
    box.start("forwarder")
    box.sell(1)
    broken = {name: value for name, value in sale("S-broken").items() if name != "total"}
    box.drop("broken.json", msgspec.json.encode(broken))
    wait(lambda: box.sees("1 delivered") and box.sees("1 invalid"))


BREAKDOWNS = {
    each.__name__: each for each in (no_line, portal, token, address, clock, disk, spool, intake, hangs, till)
}


@contextmanager
def prepared(breakdown: Callable[[Box], None], root: Path) -> Iterator[Box]:
    """A box in which this is wrong, until the block ends. The disk is one of its own where that is what is filled."""
    with ExitStack() as stack:
        place = root / "box"
        place.mkdir(parents=True)
        if breakdown is disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={96 * MIB}", "tmpfs", place], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        box = Box(place, stack.enter_context(running()), stack)
        breakdown(box)
        yield box


def main() -> int:
    """Set one up, and wait."""
    chosen = BREAKDOWNS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if chosen is None:
        print(f"Usage: breakdowns.py NAME [DIR]. Names (they give it away): {', '.join(BREAKDOWNS)}.")
        return 2
    with ExitStack() as stack:
        root = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with prepared(chosen, root) as box:
            print("In another terminal:\n")
            print("\n".join(f"  export {name}={value}" for name, value in box.settings.items()))
            print("  omneo-forwarder status\n  omneo-forwarder doctor")
            print(f"  cat {box.root}/journal.log {box.root}/forwarder.log\n")
            print("What is wrong? docs/operating.md, 'Something is wrong'. Ctrl-C ends it.", flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                print(f"\nIt was: {chosen.__doc__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
