"""
Everything that can be broken, broken: each means in its turn, each with planted bugs that it has to catch.

    python -m tests.faults [NAME…] [--slice] [--seed N] [--scale X] [--json FILE] [--page] [--list]

A means is a module in this package that holds a `MEANS`. What this machine can't do is said by name, never passed over
in silence. Fails on a finding, on a planted bug that was not caught, and on a means that did nothing. One seed repeats
a run; `--json` keeps its figures, those of other means in that file aside.
"""

import argparse
import importlib
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults import page
from tests.faults.means import Figures, Means, Size, every_name
from tests.faults.together import together

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    """What came of one means."""

    means: Means
    asked: int
    seed: int
    figures: Figures = field(default_factory=Figures)
    skipped: str | None = None
    seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        """Why this means has failed."""
        if self.skipped:
            return []
        wrong = list(self.figures.found)
        wrong += [f"the planted bug {bug} was NOT caught" for bug, found in self.figures.caught.items() if not found]
        if not self.figures.caught:
            wrong.append("no planted bug was tried: a means that can't find one proves nothing")
        if not self.figures.points:
            wrong.append("nothing was done")
        return wrong

    def row(self) -> dict[str, Any]:
        """For `--json`."""
        facts = {name: getattr(self.means, name) for name in ("layer", "unit")}
        rest = {"asked": self.asked, "seed": self.seed, "skipped": self.skipped, "seconds": round(self.seconds, 1)}
        return facts | rest | asdict(self.figures) | {"day": datetime.now(UTC).date().isoformat()} | version()


def version() -> dict[str, Any]:
    """What was tested, and on what."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    name = commit.stdout.strip() or "unknown"
    machine = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    return {"commit": name + ("+" if changed.stdout.strip() else ""), "machine": machine}


def discover() -> dict[str, Means]:
    """Every means there is, by name."""
    return {name: importlib.import_module(f"tests.faults.{name}").MEANS for name in every_name()}


def options(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="See tests/faults/__main__.py.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"means; all of them: {', '.join(names)}")
    parser.add_argument("--slice", action="store_true", help="the short sizes of .ci/run")
    parser.add_argument("--seed", type=int, help="the same run again")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times as many points")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--page", action="store_true", help="write the kept figures into docs/reliability.md")
    parser.add_argument(
        "--together", type=int, default=1, help="so many means at once: most of them wait for something"
    )
    parser.add_argument("--strict", action="store_true", help="what this machine can't do is a failure too")
    parser.add_argument("--list", action="store_true", help="only say what there is, and what can be done here")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(names):
        parser.error(f"there is no means {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    chosen.seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    return chosen


def attempt(means: Means, points: int, seed: int) -> Result:
    """One means, in a directory of its own. One that breaks down has found something, if only in itself."""
    result = Result(means, points, seed, skipped=means.needs())
    if result.skipped:
        return result
    scratch = Path(tempfile.mkdtemp(prefix=f"faults-{means.name}-"))
    began = time.monotonic()
    try:
        result.figures = means.run(Size(points, seed, scratch))
    except Exception:  # noqa: BLE001 - the others still have their turn
        result.figures.found.append("broke down: " + traceback.format_exc(limit=-6).strip())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result.seconds = time.monotonic() - began
    return result


def by_name(given: tuple[str, int, int]) -> tuple[Figures, str | None, float]:
    """One means in a process of its own."""
    name, points, seed = given
    result = attempt(discover()[name], points, seed)
    return result.figures, result.skipped, result.seconds


def told(result: Result, *, again: str) -> None:
    """One means, for people."""
    name, figures = result.means.name, result.figures
    if result.skipped:
        print(f"{name:<16} SKIPPED: {result.skipped}", flush=True)
        return
    caught = sum(figures.caught.values())
    print(
        f"{name:<16} {figures.points:>9,} {result.means.unit}; found {len(figures.found)};"
        f" planted bugs caught {caught} of {len(figures.caught)} ({', '.join(figures.caught)}); {result.seconds:.1f} s",
        flush=True,
    )
    if figures.detail:
        print(f"{'':<16} {', '.join(f'{what}: {value}' for what, value in figures.detail.items())}", flush=True)
    for wrong in result.wrong:
        print(f"{'':<16} WRONG: {wrong}", flush=True)
    if result.wrong:
        print(f"{'':<16} again: {again}", flush=True)


def keep(file: Path, results: list[Result]) -> None:
    """Their figures, beside those of other means that are there already."""
    held = json.loads(file.read_text("utf-8")) if file.exists() else {}
    held |= {result.means.name: result.row() for result in results}
    file.write_text(json.dumps(dict(sorted(held.items())), indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> int:
    every = discover()
    chosen = options(list(every))
    names = chosen.names or [name for name in every if every[name].small or not chosen.slice]
    print(f"seed {chosen.seed}; {len(names)} means: {', '.join(names)}", flush=True)
    if chosen.list:
        for name in names:
            means = every[name]
            print(f"{name:<16} {means.small:,} / {means.full:,} {means.unit}; {means.needs() or 'can be done here'}")
        return 0
    short = f"{' --slice' if chosen.slice else ''}{f' --scale {chosen.scale:g}' if chosen.scale != 1 else ''}"
    sizes = [every[name].small if chosen.slice else every[name].full for name in names]
    given = [(name, max(1, round(size * chosen.scale)), chosen.seed) for name, size in zip(names, sizes, strict=True)]
    results: list[Result] = []
    began = time.monotonic()
    for (name, points, seed), done in zip(given, together(by_name, given, chosen.together), strict=True):
        results.append(Result(every[name], points, seed, *done))
        told(results[-1], again=f"python -m tests.faults {name} --seed {seed}{short}")
        if chosen.json:
            keep(chosen.json, results)
    if chosen.page:
        page.write()
    failed = [result.means.name for result in results if result.wrong]
    skipped = [result.means.name for result in results if result.skipped]
    if skipped:
        print(f"NOT DONE ON THIS MACHINE: {', '.join(skipped)}")
    total = time.monotonic() - began
    print(f"seed {chosen.seed}, {total:.0f} s: {'WRONG in ' + ', '.join(failed) if failed else 'nothing found'}")
    return 1 if failed or (chosen.strict and skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
