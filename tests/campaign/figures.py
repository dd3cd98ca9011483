"""What a campaign did and what it came to, for people: a window 80 wide is enough."""

import textwrap
from collections import Counter

from tests.campaign.drops import Doc, Drop
from tests.campaign.judge import Verdict, posts

WIDTH = 80
COLUMN = 24
REASONS = 3  # of a check that failed; the rest is only counted


def figures(drops: list[Drop], kills: dict[str, int], cuts: int, state: Doc, took: dict[str, float]) -> None:
    """What happened."""
    kinds = Counter(drop.what for drop in drops)
    requests = state["journal"]
    looked = [entry for entry in requests if entry["method"] == "GET" and entry["path"].startswith("/transactions")]
    sent = Counter(entry["external_id"] for entry in posts(state))
    modes = Counter(entry["fault"] for entry in requests if entry["fault"])
    faults, whole = modes.total(), max(1, len(requests))
    row("files", f"{len(drops)}, {sum(drop.in_place for drop in drops)} of them written in place")
    row("  valid", f"{kinds['sale']}, and {kinds['repeat']} repeats of them")
    row("  refused by Omneo", kinds["refused"])
    row("  conflicts", f"{kinds['conflict']}, and {kinds['conflict again']} repeats of them")
    row("  broken", f"{kinds['broken']}, and {kinds['broken again']} repeats of them")
    row("kills", ", ".join(f"{name} {count}" for name, count in kills.items()))
    row("cuts of the line", cuts)
    row("requests", len(requests))
    row("  that went wrong", f"{faults} ({faults / whole:.1%})")
    row("  by mode", ", ".join(f"{mode} {count / whole:.1%}" for mode, count in sorted(modes.items())) or "none")
    row("  applied, answer lost", sum(entry["applied"] and not entry["answered"] for entry in requests))
    row("  look-ups", f"{len(looked)}, {sum(entry['status'] == 200 for entry in looked)} of which found the sale")
    row("sales at the sandbox", len(state["transactions"]))
    row("  sent more than once", sum(count > 1 for count in sent.values()))
    row("seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items()))


def verdict(found: Verdict) -> None:
    """What the judge says, a line for each check, and the reasons where there are any."""
    for check, reasons in found.items():
        row(check, f"WRONG, {len(reasons)} times" if reasons else "ok")
        for reason in reasons[:REASONS]:
            print(textwrap.fill(reason, WIDTH, initial_indent="    ", subsequent_indent="    "))


def row(name: str, value: object) -> None:
    """One figure."""
    indent = f"{name:<{COLUMN}}"
    print(textwrap.fill(str(value), WIDTH, initial_indent=indent, subsequent_indent=" " * COLUMN), flush=True)
