"""Many files wait in the spool: ours beside I and N (docs/performance.md says what they are), and 100,000 at once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.bench.shop import IDEAL, NAIVE, Shop, Spent, shop
from tests.bench.turns import in_turns, middle, ratio

LOOK_S = 0.001


def burst(files: int, rounds: int) -> dict[str, Any]:
    """So many waiting files: from the start of a program until the last is gone; `net` is without an idle start."""
    found = in_turns(
        rounds,
        {
            "ours": lambda: _timed(files, ours),
            "ideal": lambda: _timed(files, ideal),
            "naive": lambda: _timed(files, lambda place: naive(place, "wal")),
            "naive_delete": lambda: _timed(files, lambda place: naive(place, "delete")),
        },
    )
    figures: dict[str, Any] = {"files": files}
    for name, rows in found.items():
        figures[f"{name}_a_second"] = files / middle([all_.wall_s for all_, _ in rows])
        figures[f"{name}_a_second_net"] = files / middle([all_.wall_s - start.wall_s for all_, start in rows])
        figures[f"{name}_cpu_us"] = middle([(all_.cpu_s - start.cpu_s) / files * 1e6 for all_, start in rows])
    for name in ("ideal", "naive", "naive_delete"):
        sign = "of" if name == "ideal" else "times"
        figures[f"{sign}_{name}"] = ratio(*([all_.wall_s for all_, _ in found[each]] for each in (name, "ours")))
        net = ([all_.wall_s - start.wall_s for all_, start in found[each]] for each in (name, "ours"))
        figures[f"{sign}_{name}_net"] = ratio(*net)
    figures["cpu_of_ideal"] = figures["ours_cpu_us"] / figures["ideal_cpu_us"]
    figures["most_mb"] = max(all_.most_mb for all_, _ in found["ours"])
    return figures


def ours(place: Shop) -> list[str]:
    """What takes the files."""
    return place.command("journal", "ingest", "--once")


def ideal(place: Shop, removal: str = "rename") -> list[str]:
    """I, or S with `unlink`."""
    return [sys.executable, str(IDEAL), "take", str(place.spool), str(place.naive), removal]


def naive(place: Shop, mode: str) -> list[str]:
    """N with SQLite's write-ahead log (one sync a commit), or with its default journal (four or five)."""
    return [sys.executable, str(NAIVE), "take", str(place.spool), str(place.naive), mode]


def _timed(files: int, command: Callable[[Shop], list[str]]) -> tuple[Spent, Spent]:
    """With so many files, and with none."""
    with shop() as place:
        nothing = place.spend(command(place))
        place.fill(range(files))
        everything = place.spend(command(place), place.spool / f"sale-{files - 1:07d}.json")
        if left := len(list(place.spool.glob("*.json"))):
            raise RuntimeError(f"{left} files are still in the spool")
        return everything, nothing


# -- a spool that has filled up for weeks ---------------------------------------------------------------------------


def hundred_thousand(files: int) -> dict[str, Any]:
    """So many files, and a tenth of them: how soon the first is durable, how memory and time for a file grow."""
    figures: dict[str, Any] = {"files": files}
    for name, size in (("tenth", files // 10), ("all", files)):
        for key, value in _long(size).items():
            figures[f"{name}_{key}"] = value
    figures["growth_mb"] = figures["all_most_mb"] - figures["tenth_most_mb"]
    figures["per_file_growth"] = figures["all_us_a_file"] / figures["tenth_us_a_file"]
    figures["cpu_per_file_growth"] = figures["all_cpu_us_a_file"] / figures["tenth_cpu_us_a_file"]
    return figures


def _long(files: int) -> dict[str, Any]:
    """A file's share is without an idle start, which would be more of it where there are fewer."""
    with shop() as place:
        idle = place.spend(ours(place))
        place.fill(range(files))
        began = time.perf_counter()
        first = place.spool / "sale-0000000.json"
        process = subprocess.Popen(ours(place), env=place.env, stderr=subprocess.DEVNULL)
        with suppress(FileNotFoundError):
            while True:  # the file goes after its commit
                first.stat()
                time.sleep(LOOK_S)
        first_s = time.perf_counter() - began
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or any(place.spool.glob("*.json")):
            raise RuntimeError("not all was taken")
        return {
            "first_s": first_s,
            "us_a_file": (wall_s - idle.wall_s) / files * 1e6,
            "cpu_us_a_file": (used.ru_utime + used.ru_stime - idle.cpu_s) / files * 1e6,
            "most_mb": used.ru_maxrss / 1024,
        }
