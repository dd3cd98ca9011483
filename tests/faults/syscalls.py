"""
Every system call that touches the shop's files fails once, or is the last thing that the program does.

A first run under strace lists the calls; then each of them is broken in each way, in a run of its own; then the real
programs are started again, and the judge looks. The network's calls are another means' concern.
"""

import multiprocessing
import random
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.faults import recording, shop
from tests.faults.forked import Done, traced
from tests.faults.means import Figures, Means, Size
from tests.faults.real import Ground, Served, serving
from tests.faults.scenarios import SCENARIOS

CHANGING = "openat,write,pwrite64,fsync,fdatasync,ftruncate,rename,link,unlink,mkdir,rmdir,chmod,fchmod,fchmodat"
LOOKING = "read,pread64,lseek,close,newfstatat,fstat,statx,getdents64,fcntl,flock,access,faccessat2,readlink,fadvise64"
CALLS = f"{CHANGING},{LOOKING}"
# SIGUSR1, unlike SIGKILL, leaves a traced program the call that it is in; nobody handles it, so it ends there.
WAYS = {"died before": "error=EIO:signal=KILL", "died after": "signal=USR1"} | {
    name: f"error={name}" for name in ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENOMEM")
}
LOOKS = ("died before", "EIO", "ENOMEM")  # what can become of a call that only looks: it leaves no other state behind
FOUND_MOST = 200


class Point(NamedTuple):
    """One way to break one call."""

    scenario: str
    call: str
    number: int
    way: str


# Planted bug → where it is looked for: scenario, call, way
PLANTED = {
    "rash": ("intake", "read", "EIO"),
    "shrugging": ("intake", "pwrite64", "ENOSPC"),
    "early": ("intake", "fdatasync", "died before"),
}


@dataclass
class Seen:
    """What some points came to."""

    points: int = 0
    missed: int = 0
    found: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)


def calls(ground: Ground) -> list[tuple[str, int]]:
    """Each call that touches the shop, and which of its kind it is."""
    stage = ground.fresh()
    trace = ground.root / "trace"
    traced(ground.start(stopped=True), "-y", "-s", "200", "-e", f"trace={CALLS}", "-o", str(trace))
    found, counts, first = [], Counter[str](), ""
    for line in trace.read_text("ascii", "replace").splitlines():
        called = re.match(r"(\d+) +(\w+)\(", line)
        first = first or (called[1] if called else "")
        if called and called[1] == first:
            counts[called[2]] += 1
            if str(stage.place.root) in line:
                found.append((called[2], counts[called[2]]))
    if not found:
        raise RuntimeError(f"{stage.scenario.name}: the command does nothing that could be broken")
    return found


def broken(ground: Ground, point: Point) -> tuple[bool, Done]:
    """Run the command with that call broken. Was it?"""
    stage = ground.fresh()
    trace = ground.root / "trace"
    inject = f"inject={point.call}:{WAYS[point.way]}:when={point.number}"
    done = traced(
        ground.start(stopped=True), "-y", "-s", "200", "-e", f"trace={point.call}", "-e", inject, "-o", str(trace)
    )
    lines = trace.read_text("ascii", "replace").splitlines()
    if "died" in point.way:
        hit = [line for line in lines if f" {point.call}(" in line][-1:] if done.returncode < 0 else []
    else:
        hit = [line for line in lines if "(INJECTED)" in line]
    return any(str(stage.place.root) in line for line in hit), done


def work(size: Size, points: list[Point], number: int) -> Seen:
    """One worker's share."""
    seen = Seen()
    root = shop.fast(size.scratch) / f"syscalls-{size.seed}-{number}"
    grounds: dict[str, Ground] = {}
    try:
        with serving(root) as omneo:
            for point in sorted(points):
                if point.scenario not in grounds:
                    grounds.clear()
                    grounds[point.scenario] = _ground(size, root, point.scenario, omneo)
                _look(grounds[point.scenario], point, seen)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return seen


def _ground(size: Size, root: Path, scenario: str, omneo: Served, plant: str = "batches") -> Ground:
    seed = random.Random(f"{size.seed} {scenario}").randrange(10**6)
    return Ground(root / scenario.replace(" ", "-"), SCENARIOS[scenario], seed, omneo, plant)


def _look(ground: Ground, point: Point, seen: Seen) -> list[str]:
    there, done = broken(ground, point)
    if not there:
        seen.missed += 1
        return []
    seen.points += 1
    seen.ends["killed" if done.returncode < 0 else f"exit {done.returncode}"] += 1
    wrong = ground.judged(done)
    if wrong and len(seen.found) < FOUND_MOST:
        seen.found.append(f"{point.scenario}, {point.call} number {point.number}, {point.way}: {'; '.join(wrong[:3])}")
    return wrong


def caught(size: Size, plant: str) -> bool:
    """Is a program with this bug found out?"""
    scenario, call, way = PLANTED[plant]
    root = shop.fast(size.scratch) / f"syscalls-{size.seed}-planted"
    try:
        with serving(root) as omneo:
            ground = _ground(size, root, scenario, omneo, f"{plant},batches")
            seen = Seen()
            for name, number in reversed(calls(ground)):
                if name == call and _look(ground, Point(scenario, name, number, way), seen):
                    return True
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return False


def run(size: Size) -> Figures:
    """Planted bugs, then as many points as were asked for, of all that there are."""
    figures = Figures(caught={plant: caught(size, plant) for plant in PLANTED})
    root = shop.fast(size.scratch) / f"syscalls-{size.seed}-list"
    every: list[Point] = []
    with serving(root) as omneo:
        for name in SCENARIOS:
            listed = calls(_ground(size, root, name, omneo))
            every += [
                Point(name, *each, way) for each in listed for way in (LOOKS if each[0] in LOOKING.split(",") else WAYS)
            ]
    shutil.rmtree(root, ignore_errors=True)
    random.Random(size.seed).shuffle(every)
    chosen = every[: size.points]
    shares = [chosen[number :: size.jobs] for number in range(size.jobs)]
    with multiprocessing.get_context("spawn").Pool(size.jobs) as pool:
        seen = pool.starmap(work, [(size, share, number) for number, share in enumerate(shares)])
    figures.points = sum(each.points for each in seen)
    figures.found = [words for each in seen for words in each.found]
    figures.detail = {"there are": len(every), "not reached": sum(each.missed for each in seen)}
    figures.detail |= dict(sum((each.ends for each in seen), Counter[str]()))
    return figures


MEANS = Means(
    "syscalls",
    "syscalls",
    "system calls broken",
    small=300,
    full=100_000,  # all there are
    needs=recording.lacking,
    run=run,
)
