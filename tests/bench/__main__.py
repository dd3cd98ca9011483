"""
Figures as ratios to references that are measured in the same run, in turns; medians.

    python -m tests.bench [--slice] [--rounds N] [--only burst,single,delivery,reversals,lanes,idle] [--json FILE]

Exit 1 when a figure misses what is asked of it; with `--slice` (a minute, for every submission, on machines that
do other work meanwhile) when it is worse than half of that.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import idle, lanes
from tests.bench.shop import NAIVE, Omneo, Shop, omneo, sale, shop, wait

Figures = dict[str, Any]

ASKED = {  # figure → (at least or at most, how much)
    ("burst", "ratio"): (">=", 2.0),
    ("single", "gone_ms"): ("<=", 10.0),
    ("single", "in_journal_ms"): ("<=", 10.0),
    ("reversals", "customer_in_time"): (">=", 1.0),
    ("reversals", "strict_lost"): ("<=", 0.0),
    ("lanes", "ratio"): (">=", 6.0),
    ("idle", "wakes_a_second"): ("<=", 2.0),
    ("idle", "core_percent"): ("<=", 0.2),
    ("idle", "resident_mb"): ("<=", 60.0),
}

STEADY = {("idle", "resident_mb")}  # other work on the machine doesn't change it: nothing is forgiven
FLOOR_MS = 3.0  # what one durable file costs where nobody else uses the disk


# -- (a) many files wait --------------------------------------------------------------------------------------------


def burst(files: int, rounds: int) -> Figures:
    """So many waiting files: the naive script and `ingest --once` in turns, from the start of a process to its end."""
    took: dict[str, list[float]] = {}
    turns: list[Callable[[], None]] = [
        lambda: _naive("delete", files, took),
        lambda: _naive("wal", files, took),
        lambda: _ours(files, took),
    ]
    for number in range(rounds):
        for turn in turns[number % 3 :] + turns[: number % 3]:
            turn()
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    figures: Figures = {"files": files}
    for name in ("ours", "naive", "naive_wal"):
        figures[f"{name}_s"] = middle[name]
        figures[f"{name}_start_s"] = middle[f"{name}_start"]
        figures[f"{name}_a_second"] = files / middle[name]
        figures[f"{name}_a_second_net"] = files / (middle[name] - middle[f"{name}_start"])
    for name in ("naive", "naive_wal"):
        ratio = "ratio" if name == "naive" else "ratio_wal"
        figures[ratio] = middle[name] / middle["ours"]
        figures[f"{ratio}_net"] = figures["ours_a_second_net"] / figures[f"{name}_a_second_net"]
        figures[f"{ratio}s"] = [theirs / ours for theirs, ours in zip(took[name], took["ours"], strict=True)]
    return figures


def _note(took: dict[str, list[float]], name: str, seconds: float) -> None:
    took.setdefault(name, []).append(seconds)


def _naive(mode: str, files: int, took: dict[str, list[float]]) -> None:
    """With SQLite's default journal, or with its write-ahead log (one sync a commit instead of three or four)."""
    name = "naive" if mode == "delete" else "naive_wal"
    with shop() as place:
        command = [sys.executable, str(NAIVE), str(place.spool), str(place.naive), mode]
        _note(took, f"{name}_start", place.run(command))
        place.fill(range(files))
        _note(took, name, place.run(command))
        _empty(place)


def _ours(files: int, took: dict[str, list[float]]) -> None:
    with shop() as place:
        command = place.command("journal", "ingest", "--once")
        _note(took, "ours_start", place.run(command))
        place.fill(range(files))
        _note(took, "ours", place.run(command))
        _empty(place)


def _empty(place: Shop) -> None:
    left = len(list(place.spool.glob("*.json")))
    if left:
        raise RuntimeError(f"{left} files are still in the spool")


# -- (b) one file at a time -----------------------------------------------------------------------------------------


def single(files: int) -> Figures:
    """From the rename of one file until it is gone, is in the journal, is at the sandbox; at random moments."""
    dice = random.Random(4)
    gone, entry, floor = [], [], []
    with shop() as place:
        with place.daemon("journal", "ingest"):
            for number in range(files):
                _pause(dice)
                floor.append(_floor(place, number))
                _pause(dice)
                # In turns: a reader's lock can hold up a commit for a moment, so only every other file is watched so.
                if number % 2:
                    gone.append(_until_gone(place, number))
                else:
                    entry.append(_until_entered(place, number))
        with omneo() as there, place.daemon("journal", "ingest"):
            there_ms = _single_there(place, there, range(files, files + files // 2), dice)
    figures: Figures = {"files": files, "floor_ms": statistics.median(floor)}
    for name, times in (("gone", gone), ("in_journal", entry), ("at_sandbox", there_ms)):
        figures[f"{name}_ms"] = statistics.median(times)
        figures[f"{name}_p95_ms"] = statistics.quantiles(times, n=20)[-1]
    return figures | {"ratio_to_floor": figures["gone_ms"] / figures["floor_ms"]}


def _pause(dice: random.Random) -> None:
    time.sleep(dice.uniform(0.020, 0.070))


def _floor(place: Shop, number: int) -> float:
    """The least there is to do, in this process: read, one durable commit, unlink; after the same idle moment."""
    path = place.spool.parent / f"floor-{number}"
    path.write_bytes(sale(number))
    with contextlib.closing(sqlite3.connect(place.naive, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("CREATE TABLE IF NOT EXISTS floor (body BLOB)")
        began = time.perf_counter()
        db.execute("INSERT INTO floor VALUES (?)", (path.read_bytes(),))
        path.unlink()
        return (time.perf_counter() - began) * 1000


def _until_gone(place: Shop, number: int) -> float:
    path = place.drop(number)
    began = time.perf_counter()
    wait(lambda: not path.exists())
    return (time.perf_counter() - began) * 1000


def _until_entered(place: Shop, number: int) -> float:
    """Until a reader of its own sees the entry."""
    with contextlib.closing(sqlite3.connect(f"{place.journal.as_uri()}?mode=ro", uri=True)) as db:
        wanted = f"MEL01-T{number % 4}-{number:07d}"
        query = "SELECT 1 FROM log WHERE external_id = ? AND about IS NULL"
        place.drop(number)
        began = time.perf_counter()
        wait(lambda: db.execute(query, (wanted,)).fetchone() is not None)
        return (time.perf_counter() - began) * 1000


def _single_there(place: Shop, there: Omneo, numbers: range, dice: random.Random) -> list[float]:
    """With the forwarder running: until the sandbox holds it."""
    times = []
    with place.daemon("forwarder", "run", "--url", there.url, "--rate", "0"):
        wait(lambda: there.sales == numbers[0], 60)  # what is in the journal already goes first
        for number in numbers:
            _pause(dice)
            place.drop(number)
            began = time.perf_counter()
            wait(lambda count=number + 1: there.sales == count)
            times.append((time.perf_counter() - began) * 1000)
    return times


# -- (c) a backlog goes to Omneo ------------------------------------------------------------------------------------


def delivery(sales: int, rounds: int) -> Figures:
    """A backlog in strict order against the sandbox, and a bare http.client that posts the same bodies, in turns."""
    took: dict[str, list[float]] = {"ours": [], "ours_start": [], "bare": []}
    with omneo() as there:
        for number in range(rounds):
            turns: list[Callable[[], None]] = [lambda: _bare(there, sales, took), lambda: _strict(there, sales, took)]
            for turn in turns if number % 2 else reversed(turns):
                there.desk("POST", "/reset")
                turn()
                if there.sales != sales:
                    raise RuntimeError(f"the sandbox holds {there.sales} of {sales} sales")
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    net = middle["ours"] - middle["ours_start"]
    return {
        "sales": sales,
        "ours_s": middle["ours"],
        "ours_start_s": middle["ours_start"],
        "bare_s": middle["bare"],
        "ours_a_second": sales / middle["ours"],
        "ours_a_second_net": sales / net,
        "bare_a_second": sales / middle["bare"],
        "ratio": middle["bare"] / middle["ours"],
        "ratio_net": middle["bare"] / net,
    }


def _strict(there: Omneo, sales: int, took: dict[str, list[float]]) -> None:
    with shop() as place:
        command = place.command("forwarder", "run", "--once", "--rate", "0", "--url", there.url)
        place.run(command)  # begins the delivery book: what the journal holds by then is looked up before it is sent
        took["ours_start"].append(place.run(command))
        place.fill(range(sales))
        place.run(place.command("journal", "ingest", "--once"))
        took["ours"].append(place.run(command))


def _bare(there: Omneo, sales: int, took: dict[str, list[float]]) -> None:
    bodies = [sale(number) for number in range(sales)]
    head = {"Authorization": "Bearer sandbox", "Content-Type": "application/json", "Accept": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(there.host, timeout=60)) as line:
        began = time.perf_counter()
        for body in bodies:
            line.request("POST", "/api/v3/transactions/update-create", body, head)
            answer = line.getresponse()
            answer.read()
            if answer.status not in {200, 201}:
                raise RuntimeError(f"the sandbox answered {answer.status}")
        took["bare"].append(time.perf_counter() - began)


# -- the table ------------------------------------------------------------------------------------------------------


def table(name: str, figures: Figures, leeway: float) -> None:
    """One measurement, a figure a line."""
    print(f"\n{name}")
    for figure, value in figures.items():
        verdict = ""
        if (name, figure) in ASKED:
            leeway_here = _leeway(name, figure, figures, leeway)
            most, goal = ASKED[name, figure]
            limit = f", fails at half: {_limit(most, goal, leeway_here):g}" if leeway_here != 1 else ""
            missed = "" if _met(value, ASKED[name, figure], leeway_here) else "   MISSED"
            verdict = f"   asked: {most} {goal:g}{limit}{missed}"
        if isinstance(value, list):
            value = ", ".join(f"{each:.2f}" for each in value)  # noqa: PLW2901
        print(f"  {figure:<20} {f'{value:,.3f}' if isinstance(value, float) else value:>12}{verdict}", flush=True)


def _leeway(name: str, figure: str, figures: Figures, leeway: float) -> float:
    """How far from its goal a figure may be: none for what is steady, more where the disk is busy with others."""
    if (name, figure) in STEADY:
        return 1.0
    if leeway != 1.0 and name == "single":
        return leeway * max(1.0, float(figures["floor_ms"]) / FLOOR_MS)
    return leeway


def _limit(most: str, goal: float, leeway: float) -> float:
    return goal / leeway if most == ">=" else goal * leeway


def _met(value: float, asked: tuple[str, float], leeway: float) -> bool:
    limit = _limit(*asked, leeway)
    return value >= limit if asked[0] == ">=" else value <= limit


def main() -> int:
    """Measure, print, and say whether all that is asked was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Figures as ratios to references.")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement that is done in turns")
    parser.add_argument("--slice", action="store_true", help="fewer files and rounds; half of what is asked will do")
    parser.add_argument(
        "--only", default="burst,single,delivery,reversals,lanes,idle", help="which measurements, with commas between"
    )
    parser.add_argument("--json", metavar="FILE", help="the figures for machines (-: on stdout, after the tables)")
    chosen = parser.parse_args()
    rounds = min(chosen.rounds, 3) if chosen.slice else chosen.rounds
    leeway = 2.0 if chosen.slice else 1.0
    measurements: dict[str, Callable[[], Figures]] = {
        "burst": lambda: burst(1000 if chosen.slice else 10000, rounds),
        "single": lambda: single(60 if chosen.slice else 200),
        "delivery": lambda: delivery(300 if chosen.slice else 2000, rounds),
        "reversals": lambda: lanes.reversals(*((150, 6, (9, 17), 3) if chosen.slice else (2000, 20, (60, 120), 15))),
        "idle": lambda: idle.cost(*((10_000, 10.0) if chosen.slice else (100_000, 60.0))),
        "lanes": lambda: lanes.drain(*((100, 1) if chosen.slice else (600, min(rounds, 3)))),
    }
    if unknown := set(chosen.only.split(",")) - measurements.keys():
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    machine = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "processors": os.cpu_count()}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    found: dict[str, Figures] = {}
    for name in chosen.only.split(","):
        found[name] = measurements[name]()
        table(name, found[name], leeway)
    missed = [
        f"{name} {figure}"
        for (name, figure), asked in ASKED.items()
        if name in found and not _met(found[name][figure], asked, _leeway(name, figure, found[name], leeway))
    ]
    if chosen.json:
        figures = json.dumps({"machine": machine, "figures": found, "missed": missed}, indent=2) + "\n"
        print(figures) if chosen.json == "-" else Path(chosen.json).write_text(figures)
    print(f"\nverdict: {'missed: ' + ', '.join(missed) if missed else 'all that is asked was met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
