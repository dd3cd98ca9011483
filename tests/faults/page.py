"""The figures of the last full run as they stand in docs/reliability.md, between two marks."""

import json
from pathlib import Path
from typing import Any

from tests.faults.means import every_name

HOUSE = Path(__file__).resolve().parents[2]
PAGE = HOUSE / "docs" / "reliability.md"
FIGURES = Path(__file__).with_name("figures.json")
BEGIN = "<!-- figures: written by `python -m tests.faults --page` from tests/faults/figures.json -->"
END = "<!-- end of figures -->"


def rows(figures: dict[str, dict[str, Any]]) -> str:
    """One line a means: how much, what was found, what was caught, with which seed and on what."""
    if not figures:
        return "None yet."
    lines = [
        "| means | points | found | planted bugs caught | seconds | seed | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        if row["skipped"]:
            lines.append(f"| {name} | not done: {row['skipped']} | | | | | |")
            continue
        bugs = f"{sum(row['caught'].values())} of {len(row['caught'])}"
        done = f"{row['points']:,} {row['unit']}"
        facts = (name, done, len(row["found"]), bugs, f"{row['seconds']:,.0f}", row["seed"], row["commit"])
        lines.append(f"| {' | '.join(map(str, facts))} |")
    machines = sorted({f"{row['machine']}, {row['day']}" for row in figures.values()})
    missing = [name for name in every_name() if name not in figures]
    more = [f"On: {'; '.join(machines)}."] + ([f"Not run in full yet: {', '.join(missing)}."] if missing else [])
    return "\n\n".join(["\n".join(lines), *more])


def whole(page: str, figures: dict[str, dict[str, Any]]) -> str:
    """The page with these figures."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rows(figures)}\n\n{END}{rest.partition(END)[2]}"


def load() -> dict[str, dict[str, Any]]:
    held: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return held


def write() -> None:
    PAGE.write_text(whole(PAGE.read_text("utf-8"), load()), "utf-8")
