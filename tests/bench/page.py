"""The figures of the last runs and their plots as they stand in docs/performance.md, between two marks."""

import json
import math
from html import escape
from pathlib import Path
from typing import Any

from journal.pictures import tag
from tests.bench.goals import AT_LEAST, GOALS, Goal

HOUSE = Path(__file__).resolve().parents[2]
PAGE = HOUSE / "docs" / "performance.md"
PLOTS = HOUSE / "docs" / "performance"
FIGURES = Path(__file__).with_name("figures.json")
BEGIN = "<!-- figures: written by `python -m tests.bench --page` from tests/bench/figures.json -->"
END = "<!-- end of figures -->"

Told = dict[str, Any]

WIDE, LINE, LEFT, NAMED, RIGHT, TOP = 920, 24, 410, 250, 90, 30
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.tick,.value{fill:#555}.grid{stroke:#ddd}"
    ".goal{stroke:#333;stroke-dasharray:4 3}.met{fill:#2a7f62}.missed{fill:#c2452d}.ours{fill:#2a5d9f}"
    ".other{fill:#a9b4c2}.path{fill:none;stroke:#2a5d9f;stroke-width:2}"
)
NAMES = {
    "ours": "ours",
    "ideal": "I",
    "careful": "S",
    "naive": "N",
    "naive_delete": "N, default journal",
    "bare": "bare",
}


def svg(height: float, title: str, *parts: str) -> str:
    """A picture that stands alone, on white."""
    ground = tag("rect", x=0, y=0, width=WIDE, height=height, fill="#fff")
    head = tag("text", escape(title), x=12, y=19, font_weight="600")
    inside = "".join((f"<style>{STYLE}</style>", ground, head, *parts))
    box = f"0 0 {WIDE} {height:.0f}"
    return tag("svg", inside, xmlns="http://www.w3.org/2000/svg", viewBox=box, width=WIDE, role="img", aria_label=title)


def goals(told: Told) -> str:
    """Every figure against its goal, on a scale of ratios: to the right of the line is better than asked."""
    measured = [(goal, told["figures"].get(goal.section, {}).get(goal.figure)) for goal in GOALS]
    rows = [(goal, value) for goal, value in measured if value is not None]
    low, high = math.log10(1 / 20), math.log10(20)
    foot = TOP + LINE * len(rows)

    def x(times: float) -> float:
        part = (min(high, max(low, math.log10(times))) - low) / (high - low)
        return LEFT + part * (WIDE - LEFT - RIGHT)

    parts = []
    for times, words in ((0.1, "10 times worse"), (0.5, "2"), (1.0, "as asked"), (2.0, "2"), (10.0, "10 times better")):
        cls = "goal" if times == 1 else "grid"
        parts.append(tag("line", cls=cls, x1=x(times), x2=x(times), y1=TOP, y2=foot))
        parts.append(tag("text", words, cls="tick", x=x(times), y=foot + 18, text_anchor="middle"))
    for at, (goal, value) in enumerate(rows):
        y = TOP + LINE * at + LINE / 2
        parts.append(tag("text", escape(shortened(goal.words)), x=LEFT - 10, y=y + 4, text_anchor="end"))
        parts.append(tag("circle", cls="met" if goal.met(value) else "missed", cx=x(better(goal, value)), cy=y, r=5))
        parts.append(tag("text", shown(value), cls="value", x=WIDE - RIGHT + 12, y=y + 4))
    return svg(foot + 32, "Each figure against what is asked of it", *parts)


def better(goal: Goal, value: float) -> float:
    """How many times better than asked."""
    tiny = 1e-6
    if goal.most == AT_LEAST:
        return max(value, tiny) / max(goal.goal, tiny)
    return max(goal.goal, tiny) / max(value, tiny) if value > 0 else 20.0


def shortened(words: str) -> str:
    """So that it fits beside the plot."""
    return words if len(words) <= 50 else words[:49] + "…"


def bars(title: str, rows: list[tuple[str, float]], unit: str) -> str:
    """A bar a program, ours in its own colour."""
    most = max(value for _, value in rows)
    parts = []
    for at, (name, value) in enumerate(rows):
        y = TOP + LINE * at
        wide = value / most * (WIDE - NAMED - 150)
        parts.append(tag("text", escape(name), x=NAMED - 10, y=y + 16, text_anchor="end"))
        cls = "ours" if name.startswith("ours") else "other"
        parts.append(tag("rect", cls=cls, x=NAMED, y=y + 3, width=wide, height=LINE - 6))
        parts.append(tag("text", f"{shown(value)} {unit}", cls="value", x=NAMED + wide + 8, y=y + 16))
    return svg(TOP + LINE * len(rows) + 8, title, *parts)


def curve(title: str, values: list[float], unit: str) -> str:
    """Ten tenths of a long run, from zero up."""
    most, high, top = max(values), 150.0, TOP + LINE
    step = (WIDE - 120) / max(1, len(values) - 1)
    points = [(70 + step * at, top + high * (1 - value / most)) for at, value in enumerate(values)]
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        tag("line", cls="grid", x1=70, x2=WIDE - 50, y1=top + high, y2=top + high),
        tag("path", cls="path", d=path),
    ]
    for at, (x, y) in enumerate(points):
        parts.append(tag("circle", cls="ours", cx=x, cy=y, r=3))
        parts.append(tag("text", f"{at + 1}", cls="tick", x=x, y=top + high + 18, text_anchor="middle"))
    parts.append(tag("text", f"{shown(most)} {unit}", cls="value", x=points[values.index(most)][0], y=top - 8))
    return svg(top + high + 30, title, *parts)


def plots(told: Told) -> dict[str, str]:
    """File name → picture, of whatever was measured."""
    found, made = told["figures"], {"goals.svg": goals(told)}
    for section, figure, title, unit in (
        ("burst", "a_second_net", "Waiting files, taken: validated, chained, durable, out of the spool", "files/s"),
        ("delivery", "a_second", "From the spool to Omneo, in strict order, outcomes durable", "files/s"),
        ("delivery", "cpu_ms", "Processor time of a file, from the spool to Omneo", "ms"),
    ):
        if section in found:
            rows = [(words, found[section].get(f"{name}_{figure}")) for name, words in NAMES.items()]
            made[f"{section}_{figure}.svg"] = bars(title, [(name, value) for name, value in rows if value], unit)
    if "memory" in found:
        held = found["memory"]
        rows = [(name.removesuffix("_mb").replace("_", " "), value) for name, value in held.items() if "_mb" in name]
        made["memory.svg"] = bars("Resident memory", [row for row in rows if "few" in row[0] or "many" in row[0]], "MB")
    if "bodies" in found:
        count = f"{found['bodies']['entries']:,}"
        made["bodies.svg"] = curve(f"{count} entries of 2 KB: each tenth", found["bodies"]["rates"], "entries/s")
    return made


def shown(value: Any) -> str:
    """A figure as people read it."""
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    if isinstance(value, int) or not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rows(told: Told) -> str:
    """The table, the plots, then every figure of every section."""
    if not told.get("figures"):
        return "None yet."
    found = told["figures"]
    lines = ["| figure | asked | reached | |", "|---|---|---|---|"]
    for goal in GOALS:
        asked = f"{'≥' if goal.most == AT_LEAST else '≤'} {goal.goal:g}"
        value = found.get(goal.section, {}).get(goal.figure)
        if value is not None:
            lines.append(f"| {goal.words} | {asked} | {shown(value)} | {'' if goal.met(value) else '**missed**'} |")
        else:
            lines.append(f"| {goal.words} | {asked} | not measured yet | |")
    parts = ["\n".join(lines), *(f"![{name}](performance/{name})" for name in plots(told))]
    for section, figures in found.items():
        on = told["when"].get(section, told["machine"])
        said = ", ".join(f"{name} {shown(value)}" for name, value in on.items())
        each = "\n".join(f"| {name} | {shown(value)} |" for name, value in figures.items())
        parts.append(f"### {section}\n\n{said}\n\n| figure | |\n|---|---|\n{each}")
    return "\n\n".join(parts)


def whole(page: str, told: Told) -> str:
    """The page with these figures."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rows(told)}\n\n{END}{rest.partition(END)[2]}"


def write(told: Told | None = None) -> None:
    """The page and its plots."""
    told = told or json.loads(FIGURES.read_text("utf-8"))
    PLOTS.mkdir(exist_ok=True)
    for name, picture in plots(told).items():
        (PLOTS / name).write_text(picture + "\n", "utf-8")
    PAGE.write_text(whole(PAGE.read_text("utf-8"), told), "utf-8")
