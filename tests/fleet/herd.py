"""
A region comes back after an outage, and all of its stores want to ship at once: what jitter does to that, reckoned out.

    python -m tests.fleet.herd [--stores 10000] [--hours 4] [--cores 8] [--connect-ms 12] [--entry-us 45] [--seed 1]

Each store has what it sold meanwhile, and waits as forwarder/ship.py makes it wait; for comparison, without jitter or
without growing pauses. The server has so many cores and so many connections; who finds none free is turned away, which
costs it half a connection. What one connection and one entry cost is measured by tests/fleet/rate.py; scale.py runs
this with those figures, while the defaults here are only of their order.
"""

import argparse
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from forwarder.ship import pause

DOCUMENTS, DAY_H = 500, 12  # a store's day
CONNECT_S = 10.0  # so long an attempt takes that meets a line that is down

Policy = Callable[[int, random.Random], float]
POLICIES: dict[str, Policy] = {
    "as it is: full jitter, growing to two minutes": lambda failures, dice: pause(
        failures, lambda most: dice.uniform(0, most)
    ),
    "growing pauses, no jitter": lambda failures, _: pause(failures, lambda most: most),
    "every five seconds": lambda *_: 5.0,
}


@dataclass
class Told:
    """What a simulated return was like."""

    drained_s: float = 0.0
    half_s: float = 0.0
    attempts: int = 0
    turned_away: int = 0
    busiest: int = 0  # attempts in one second


def returns(policy: Policy, given: argparse.Namespace) -> Told:
    """The line is there again at 0. Each store is somewhere in the pause after its last failure."""
    dice, told = random.Random(given.seed), Told()
    work = work_s(given.connect_ms, given.entry_us, given.per_document, given.hours)
    events: list[tuple[float, int, int]] = []
    for store in range(given.stores):
        clock, failures = -given.hours * 3600, 0
        while clock < 0:  # the outage hit all at one moment; nothing but jitter sets them apart
            failures += 1
            clock += (CONNECT_S if given.silent else 0.01) + policy(failures, dice)
        heapq.heappush(events, (clock, failures, store))
    free = [0.0] * given.cores  # when each core is done with what it has
    heapq.heapify(free)
    inside: list[float] = []  # when each connection is over
    seconds: Counter[int] = Counter()
    done: list[float] = []
    while events:
        now, failures, store = heapq.heappop(events)
        told.attempts += 1
        seconds[int(now)] += 1
        while inside and inside[0] <= now:
            heapq.heappop(inside)
        core = heapq.heappop(free)
        if len(inside) >= given.connections:
            heapq.heappush(free, max(core, now) + given.connect_ms / 2000)
            told.turned_away += 1
            heapq.heappush(events, (now + policy(failures + 1, dice), failures + 1, store))
            continue
        over = max(core, now) + work
        heapq.heappush(free, over)
        heapq.heappush(inside, over)
        done.append(over)
    told.drained_s, told.half_s, told.busiest = max(done), sorted(done)[len(done) // 2], max(seconds.values())
    return told


def work_s(connect_ms: float, entry_us: float, per_document: float, hours: float) -> float:
    """What one store's return costs the server: a connection, and all that it sold meanwhile."""
    return connect_ms / 1000 + DOCUMENTS * per_document * hours / DAY_H * entry_us / 1e6


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--stores", type=int, default=10_000)
    made.add_argument("--hours", type=float, default=4)
    made.add_argument("--cores", type=int, default=8)
    made.add_argument("--connections", type=int, default=500)
    made.add_argument("--connect-ms", type=float, default=12)
    made.add_argument("--entry-us", type=float, default=45)
    made.add_argument("--per-document", type=float, default=2.2, help="entries of both books")
    made.add_argument("--silent", action="store_true", help="the line swallowed packets, instead of refusing")
    made.add_argument("--seed", type=int, default=1)
    return made


def main() -> None:
    given = parser().parse_args()
    work = work_s(given.connect_ms, given.entry_us, given.per_document, given.hours)
    whole_s = given.stores * work / given.cores
    print(f"{given.stores:,} stores after {given.hours:g} h; the work alone: {whole_s:.0f} s on {given.cores} cores")
    for name, policy in POLICIES.items():
        told = returns(policy, given)
        print(
            f"{name}: half is there after {told.half_s:.0f} s, all after {told.drained_s:.0f} s;"
            f" {told.attempts:,} attempts, {told.turned_away:,} turned away, {told.busiest:,} in the busiest second"
        )


if __name__ == "__main__":
    main()
