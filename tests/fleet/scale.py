"""
What a chain of ten thousand stores needs, computed from what was measured, as it stands in docs/scale.md.

    python -m tests.fleet.scale

With ARGS=--keep, `make fleet`, `make fleet-kills` and `make fleet-rate` put their figures into figures.json. What the
herd's simulation (herd.py) starts with comes from there, and so does all on the page but what it calls assumed.
"""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from tests.fleet import herd

HOUSE = Path(__file__).resolve().parents[2]
PAGE = HOUSE / "docs" / "scale.md"
FIGURES = Path(__file__).with_name("figures.json")
BEGIN = "<!-- figures: written by `python -m tests.fleet.scale` from tests/fleet/figures.json -->"
END = "<!-- end of figures -->"

# Assumed. The rush is the one that `make fleet` plays: three fifths of a day's sales in its first quarter.
STORES, DOCUMENTS, OPEN_H, RUSH, CORES = 10_000, 500, 12, 2.4, 8
ALIVE_S = 60  # a store's sign of life (forwarder/ship.py)
BOTH_WAYS = 2  # shipments for one document at most: once it is journaled, once it is delivered
HOURS = 4  # of the outage

Figures = dict[str, dict[str, Any]]


def load() -> Figures:
    held: Figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return held


def keep(name: str, figures: dict[str, Any]) -> None:
    """What one run has measured, in place of what the last one had; and the page anew."""
    git = ["git", "-C", str(HOUSE)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    machine = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, {_cores()}"
    told = {"day": datetime.now(UTC).date().isoformat(), "machine": machine, "commit": commit.stdout.strip()}
    _save(load() | {name: figures | told})
    write()


def write() -> None:
    """Simulate the herd with what was measured, and write the page."""
    figures = load()
    if (given := asked(figures)) is not None:
        returns = {name: vars(herd.returns(policy, given)) for name, policy in herd.POLICIES.items()}
        _save(figures | {"herd": {"given": vars(given), "returns": returns}})
    PAGE.write_text(whole(PAGE.read_text("utf-8"), load()), "utf-8")


def asked(figures: Figures) -> Any:
    """What the herd's simulation starts with; None before it was measured."""
    if not {"rate", "fleet"} <= figures.keys():
        return None
    rate = figures["rate"]
    given = herd.parser().parse_args([])
    given.stores, given.hours, given.cores = STORES, HOURS, CORES
    given.connect_ms = round(max(0.1, rate["shipment_new_line_cpu_ms"] - rate["shipment_cpu_ms"]), 2)
    given.entry_us = rate["entry_cpu_us"]
    given.per_document = figures["fleet"]["entries_a_document"]
    return given


def whole(page: str, figures: Figures) -> str:
    """The page with these figures."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{_text(figures)}\n\n{END}{rest.partition(END)[2]}"


def needs(figures: Figures) -> list[tuple[str, str]]:
    """What the chain needs, each with how it comes about."""
    rate, fleet = figures["rate"], figures["fleet"]
    documents, open_s = STORES * DOCUMENTS, OPEN_H * 3600
    entries = documents * fleet["entries_a_document"]
    peak = RUSH * entries / open_s
    shipments, signs = BOTH_WAYS * RUSH * documents / open_s, STORES / ALIVE_S
    kept = (shipments * rate["shipment_cpu_ms"] + signs * rate["sign_cpu_ms"]) / 1000
    line_ms = max(0.0, rate["shipment_new_line_cpu_ms"] - rate["shipment_cpu_ms"])
    anew = kept + (shipments + signs) * line_ms / 1000
    return [
        ("entries a day", f"{entries / 1e6:,.1f} million ({fleet['entries_a_document']} a document)"),
        ("entries a second, all day and in the rush", f"{entries / open_s:,.0f} and {peak:,.0f}"),
        ("… of what the ledger took here, catching up", f"{peak / rate['entries_s']:.0%} of {rate['entries_s']:,}"),
        (
            "disk a year, with indexes",
            f"{365 * entries * rate['entry_bytes'] / 1e12:,.2f} TB ({rate['entry_bytes']} bytes an entry)",
        ),
        ("100 million entries are", f"{1e8 / entries:,.1f} days"),
        ("shipments and signs of life a second, in the rush", f"{shipments:,.0f} at most, and {signs:,.0f}"),
        ("cores for them, where lines stay open", f"{kept:,.2f}"),
        ("… and memory for the open lines", f"{STORES * rate['line_mb'] / 1024:,.0f} GB ({rate['line_mb']} MB a line)"),
        ("cores for them, where each makes its line anew", f"{anew:,.2f}"),
        (
            "… and lines open at one moment",
            f"{(shipments + signs) * rate['shipment_new_line_ms'] / 1000:,.0f} on average",
        ),
    ]


def _text(figures: Figures) -> str:
    if "herd" not in figures:
        return "None yet."
    rows = ["| needed | |", "|---|---|", *(f"| {what} | {said} |" for what, said in needs(figures))]
    given, returns = figures["herd"]["given"], figures["herd"]["returns"]
    alone = herd.work_s(given["connect_ms"], given["entry_us"], given["per_document"], given["hours"])
    whole_s = given["stores"] * alone / given["cores"]
    herded = (
        f"All {given['stores']:,} stores come back after {given['hours']} hours without a line, to {given['cores']}"
    )
    herded += f" cores and {given['connections']} connections; the work alone takes {whole_s:,.0f} s:"
    columns = (
        "stores try again …",
        "half is there after, s",
        "all after, s",
        "attempts",
        "turned away",
        "busiest second",
    )
    rows += ["", herded, "", f"| {' | '.join(columns)} |", "|---|---|---|---|---|---|"]
    for name, told in returns.items():
        count = [f"{told[each]:,.0f}" for each in ("half_s", "drained_s", "attempts", "turned_away", "busiest")]
        rows.append(f"| {name} | {' | '.join(count)} |")
    rows += ["", "Measured:", "", "| run | figures | on |", "|---|---|---|"]
    for name in ("rate", "full", "fleet", "kills"):
        if name in figures:
            told = dict(figures[name])
            where = f"{told.pop('machine')}, {told.pop('day')}, {told.pop('commit')}"
            rows.append(f"| {name} | {'; '.join(_said(*each) for each in told.items())} | {where} |")
    return "\n".join(rows)


def _said(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{name}: {', '.join(f'{each} {found}' for each, found in value.items())}"
    return f"{name} {value:,}" if isinstance(value, (int, float)) else f"{name} {value}"


def _save(figures: Figures) -> None:
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _cores() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(models)} cores" + (f" ({models[0].partition(':')[2].strip()})" if models else "")


if __name__ == "__main__":
    write()
