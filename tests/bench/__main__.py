"""
Figures as ratios to references that are measured in the same run, in turns; medians.

    python -m tests.bench [--slice | --long] [--rounds N] [--only burst,single,…] [--entries N] [--json FILE] [--page]

Exit 1 when a figure misses what is asked of it; with `--slice` (some minutes, for every submission, on machines that do
other work meanwhile) when it is worse than half of that. `--json` keeps what the file holds of other measurements.
"""

import argparse
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import burst, deliver, disk, goals, grow, idle, kill, lanes, looks, outage, page, parts, single

Figures = dict[str, Any]
SLICE = "burst,single,delivery,reversals,lanes,line,back,idle,starts,verify,week"
LONG = "memory,grow,bodies,kill"


def measurements(chosen: argparse.Namespace) -> dict[str, Callable[[], Figures]]:
    """All there is, in the order of the page."""
    small, rounds = chosen.slice, min(chosen.rounds, 3) if chosen.slice else chosen.rounds
    entries, room = chosen.entries, chosen.room
    return {
        "disk": lambda: disk.commits(50 if small else 200),
        "parts": lambda: parts.parts(500 if small else 4000, rounds),
        "burst": lambda: burst.burst(3000 if small else 10_000, rounds),
        "spool": lambda: burst.hundred_thousand(2_000 if small else 100_000),
        "delivery": lambda: deliver.delivery(2000 if small else 10_000, rounds),
        "single": lambda: single.single(*((40, 4000) if small else (200, 40_000))),
        "line": lambda: deliver.line(50, *((20, 1) if small else (100, min(rounds, 3)))),
        "lanes": lambda: lanes.drain(*((100, 1) if small else (600, min(rounds, 3)))),
        "reversals": lambda: lanes.reversals(*((150, 6, (9, 17), 3) if small else (2000, 20, (60, 120), 15))),
        "back": lambda: outage.back(3 if small else 40, (2.0, 4.0)),
        "week": lambda: outage.week(*((100, 0.5) if small else (50_000, 7.0))),
        "idle": lambda: idle.cost(10.0 if small else 60.0),
        "starts": lambda: looks.starts(5 if small else 15),
        "verify": lambda: looks.verify(5_000 if small else 50_000, rounds),
        "memory": lambda: idle.memory(*((2_000, 10_000, 2.0) if small else (10_000, 1_000_000, 20.0))),
        "grow": lambda: grow.grow(entries or 10_000_000, 500 if small else 10_000, rounds, room),
        "bodies": lambda: grow.bodies(entries or 1_000_000, room),
        "kill": lambda: kill.points(12 if small else 200, 2),
    }


def table(section: str, figures: Figures, leeway: float) -> None:
    """One measurement, a figure a line."""
    print(f"\n{section}")
    for figure, value in figures.items():
        verdict = ""
        if (goal := goals.of(section).get(figure)) is not None:
            limit = f", fails at {goal.limit(leeway):g}" if goal.limit(leeway) != goal.goal else ""
            missed = "" if goal.met(value, leeway) else "   MISSED"
            verdict = f"   asked: {goal.most} {goal.goal:g}{limit}{missed}"
        if isinstance(value, list):
            value = ", ".join(f"{each:.2f}" if isinstance(each, float) else str(each) for each in value)  # noqa: PLW2901
        print(f"  {figure:<28} {f'{value:,.3f}' if isinstance(value, float) else value:>12}{verdict}", flush=True)


def machine() -> dict[str, Any]:
    """On what it was measured."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Figures as ratios to references.")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement that is done in turns")
    parser.add_argument("--slice", action="store_true", help="fewer files and rounds; half of what is asked will do")
    parser.add_argument("--long", action="store_true", help="what takes an hour and tens of gigabytes")
    parser.add_argument("--only", help="which measurements, with commas between")
    parser.add_argument(
        "--entries", type=int, help="of the long journals: fewer than 10 million, and a million of 2 KB"
    )
    parser.add_argument("--room", type=Path, help="a directory with room for the long journals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures for machines")
    parser.add_argument("--page", action="store_true", help=f"the same in {page.FIGURES.name}, and docs/performance.md")
    chosen = parser.parse_args()
    chosen.json = chosen.json or (page.FIGURES if chosen.page else None)
    everything = measurements(chosen)
    short = ",".join(name for name in everything if name not in LONG.split(","))
    chosen.only = (chosen.only or (SLICE if chosen.slice else LONG if chosen.long else short)).split(",")
    if unknown := set(chosen.only) - everything.keys():
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return chosen


def main() -> int:
    """Measure, print, and say whether all that is asked was met."""
    chosen, missed = arguments(), []
    leeway = 2.0 if chosen.slice else 1.0
    told: dict[str, Any] = {"machine": machine(), "figures": {}, "when": {}}
    if chosen.json and chosen.json.exists():
        told |= {name: value for name, value in json.loads(chosen.json.read_text()).items() if name != "machine"}
    print(", ".join(f"{name} {value}" for name, value in told["machine"].items()))
    for name in chosen.only:
        began = os.getloadavg()[0]
        found = measurements(chosen)[name]()
        told["figures"][name] = found
        told["when"][name] = machine() | {"load": (began + os.getloadavg()[0]) / 2}
        forgiven = goals.leeway(name, found, leeway)
        table(name, found, forgiven)
        missed += [
            f"{name} {goal.figure}" for goal in goals.of(name).values() if not goal.met(found[goal.figure], forgiven)
        ]
        if chosen.json:
            chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    if chosen.page:
        page.write(told)
    print(f"\nverdict: {'missed: ' + ', '.join(missed) if missed else 'all that is asked was met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
