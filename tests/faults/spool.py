"""
What can be done to a spool: every trick once, then so many files at once that no event queue holds them.

The tricks are in `tests.faults.tricks`. Then a spool that sends no event at all (files come below an overlay), 40,000
files made while the program is stopped, and whatever is left of the points as files that wait when it starts.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from journal.verify import verify
from tests.faults.means import Figures, Means, Size
from tests.faults.tricks import TRICKS
from tests.faults.yard import Yard, yard

OVERFLOW = 40_000  # the kernel's queue holds 16,384 events
MEMORY_MAX = 150 * 1024 * 1024
FIRST_S = 20.0  # until the first of 100,000 files is in the journal
PATIENCE_S = 600.0
OVERLAY = 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$2" && shift 3 && exec "$@"'

# Planted bug → what has to be done for it to show.
PLANTS = {
    "follower": ["swapped for a link"],
    "stern": ["permissions"],
    "hasty_hand": ["swapped for another"],
    "eventful": ["no events"],
    "hoarder": ["backlog"],
}


def needs() -> str | None:
    if os.geteuid() != 0:
        return "devices, an overlay and another user's eyes need root"
    if shutil.which("setpriv") is None:
        return "root's power to read everything can't be dropped without setpriv (Debian: util-linux)"
    probe = ["unshare", "--mount", "true"]
    return "there can be no mounts of our own" if subprocess.run(probe, check=False).returncode else None


def tricks(root: Path, size: Size, names: list[str], plant: str = "") -> list[str]:
    with yard(root, size.seed, plant) as opened:
        opened.sell(3)
        opened.settles("at the start", 30)
        for name in names:
            TRICKS[name](opened)
            opened.settles(name)
            if plant and opened.found:
                break
        return opened.close()


def no_events(root: Path, size: Size, plant: str = "") -> list[str]:
    """Files come where the program's eyes are not: below an overlay, as on the far side of a network share."""
    for name in ("lower", "work"):
        (root.parent / f"{root.name}-{name}").mkdir()
    with_yard = Yard(root, size.seed, plant)
    with_yard.spool.mkdir()
    layers = [f"{root}-lower", str(with_yard.spool), f"{root}-work"]
    try:
        with_yard.open(["unshare", "--mount", "sh", "-c", OVERLAY, "sh", *layers])
        if not with_yard.until(lambda: '"ready"' in with_yard.daemon.log.read_text(), 30):
            return ["no events: the program did not start below the overlay"]
        time.sleep(0.5)
        for _ in range(5):
            with_yard.sell(5)
            with_yard.settles("no events")
        return with_yard.close()
    finally:
        with_yard.kill()


def paper(number: int, pad: int) -> bytes:
    line = {"name": f"Belt {number}{'.' * pad}", "quantity": 1, "price_sell": 12.5}
    content = {"kind": "sale", "external_id": f"W-{number}", "total": 12.5, "items": [line]}
    return json.dumps(content | {"transacted_at": "2025-06-15 14:32:00", "timezone": "Australia/Melbourne"}).encode()


def fill(spool: Path, count: int, pad: int) -> None:
    for number in range(count):
        draft = spool / f".{number}"
        draft.write_bytes(paper(number, pad))
        draft.rename(spool / f"w-{number:06d}.json")


def many(
    root: Path, size: Size, count: int, plant: str = "", *, pad: int = 0, stopped: bool = False
) -> tuple[list[str], str]:
    """So many files, made while the program doesn't run (or is stopped): all are taken, in bounded memory."""
    what = f"{count} files made while it was stopped" if stopped else f"{count} files that waited"
    opened = Yard(root, size.seed, plant)
    try:
        if stopped:
            opened.open()
            opened.sell(2)
            opened.settles("at the start", 30)
            assert opened.daemon.process is not None
            opened.daemon.process.send_signal(signal.SIGSTOP)
            fill(opened.spool, count, pad)
            opened.daemon.process.send_signal(signal.SIGCONT)
        else:
            opened.spool.mkdir()
            fill(opened.spool, count, pad)
            opened.open()
        began, before = time.monotonic(), len(opened.drops)
        opened.until(lambda: sum(opened.known().values()) > before, PATIENCE_S)
        first = time.monotonic() - began
        opened.until(lambda: sum(opened.known().values()) >= count + before, PATIENCE_S)
        took, peak = time.monotonic() - began, opened.peak()
        opened.until(lambda: not any(opened.spool.glob("*.json")), 30)
        opened.daemon.stop()
        known = opened.known()
        found = [f"{name}: {known[name]} times" for name in (f"W-{n}" for n in range(count)) if known[name] != 1][:3]
        found += [f"{path.name} is left" for path in list(opened.spool.rglob("*.json"))[:3]]
        found += [str(problem) for problem in verify(opened.place.journal, opened.place.delivery)["problems"][:3]]
        if peak > MEMORY_MAX:
            found.append(f"took {peak // 1024**2} MiB")
        if first > FIRST_S * (1 + count / 100_000):
            found.append(f"the first was taken after {first:.0f} s")
        told = f"{count / took:,.0f} files/s, first after {first:.1f} s, {peak // 1024**2} MiB"
        return [f"{what}: {words}" for words in found + opened.daemon.complaints], told
    finally:
        opened.kill()
        shutil.rmtree(opened.spool, ignore_errors=True)


def run(size: Size) -> Figures:
    figures = Figures()
    for plant, names in PLANTS.items():
        root = size.scratch / f"planted-{plant}"
        match names:
            case ["no events"]:
                found = no_events(root, size, plant)
            case ["backlog"]:
                found, _ = many(root, size, 8_000, plant, pad=20_000)
            case _:
                found = tricks(root, size, names, plant)
        figures.caught[plant] = bool(found)
    figures.found += tricks(size.scratch / "yard", size, list(TRICKS))
    figures.found += [f"no events: {words}" for words in no_events(size.scratch / "silent", size)]
    found, figures.detail["stopped"] = many(size.scratch / "stopped", size, min(OVERFLOW, size.points), stopped=True)
    figures.found += found
    figures.points = min(OVERFLOW, size.points)
    if size.points > OVERFLOW:
        waiting = size.points - OVERFLOW
        found, figures.detail["waiting"] = many(size.scratch / "waiting", size, waiting)
        figures.found += found
        figures.points += waiting
    figures.detail["tricks"] = len(TRICKS) + 1
    return figures


MEANS = Means("spool", "spool", "files", OVERFLOW, OVERFLOW + 100_000, needs, run)
