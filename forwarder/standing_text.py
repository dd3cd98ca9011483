"""How things stand, for people: lines for a terminal, and the same again and again while somebody looks."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from journal.command import shown, tell
from journal.words import local, span

EVERY_S = 2.0
BAR = 30  # characters
SPARKS = "▁▂▃▄▅▆▇█"
LOOKS = 60  # of the little curve
LINK = {"up": "green", "down": "red", "paused": "red", "unknown": "yellow"}
SHOWN = 5  # pairs of tills
CANARY_S = 120.0  # a canary that is out for longer hangs somewhere
CLOCK_TOLD_S = 7 * 86400.0


def lines(told: dict[str, Any], now: datetime) -> list[str]:
    """What `omneo-forwarder status` prints."""
    brief = told["status"]
    counts = ", ".join(f"{brief[name]:,} {name}" for name in ("delivered", "refused", "held", "invalid"))
    return [
        _link(brief, told["since"], now),
        *_waiting(brief, told["ages"]),
        *_speed(told["speed"], brief["waiting"], now),
        counts + "." + (" Held: see omneo-journal list --state held." if brief["held"] else ""),
        _flags(told["flags"]),
        *_exposure(told["exposure"]),
        _disk(told["disk"]),
        *_stalled(told, now),
    ]


def _link(brief: dict[str, Any], since: str | None, now: datetime) -> str:
    words = {
        "up": "The line to Omneo is up",
        "down": "The line to Omneo is down",
        "paused": "Delivery is paused",
        "unknown": "Nothing has been sent to Omneo yet",
    }[brief["link"]]
    if since is not None:
        length = (now - datetime.fromisoformat(since)).total_seconds()
        words += f" since {local(since)}" + (f" ({span(length)})" if length >= 0 else "")
    return words + (f": {brief['reason']}." if brief["reason"] else ".")


def _waiting(brief: dict[str, Any], ages: list[dict[str, Any]]) -> Iterator[str]:
    if not brief["waiting"]:
        yield "Nothing waits."
        return
    oldest = brief["oldest_waiting_s"]
    yield f"{brief['waiting']:,} waiting" + (f", the oldest for {span(oldest)}." if oldest is not None else ".")
    most = max(age["documents"] for age in ages)
    before = ""
    for age in ages:
        upto = span(age["upto_s"]) if age["upto_s"] else ""
        if age["documents"]:
            name = f"up to {upto}" if upto else f"over {before}"
            bar = "█" * max(1, round(BAR * age["documents"] / most))
            yield f"  {name:>12}  {age['documents']:>9,}  {bar}"
        before = upto


def _speed(speed: dict[str, Any], waiting: int, now: datetime) -> Iterator[str]:
    if not waiting:
        return
    goes = f"{_rate(speed['a_minute'])} a minute go" if speed["a_minute"] else "Nothing goes"
    words = f"{goes}, {_rate(speed['came_a_minute'])} a minute come"
    if speed["done_in_s"] is None:
        yield words + "."
        return
    done = local((now + timedelta(seconds=speed["done_in_s"])).isoformat())
    yield f"{words}: done in about {span(speed['done_in_s'])}, at {done}."


def _rate(a_minute: float) -> str:
    return f"{a_minute:,.0f}" if a_minute >= 10 else f"{a_minute:g}"


def _flags(flags: dict[str, int]) -> str:
    if not flags:
        return "No open flags."
    total = sum(flags.values())
    named = ", ".join(f"{count:,} {name}" for name, count in flags.items())
    return f"{total:,} open flag{'s' if total > 1 else ''}, {named}: see omneo-journal flags."


def _exposure(exposure: dict[str, Any]) -> Iterator[str]:
    if not exposure["redemptions"]:
        return
    count = exposure["redemptions"]
    words = [
        f"{count:,} redemption{'s' if count > 1 else ''}",
        *([_money(exposure["value"])] if exposure["value"] else []),
    ]
    words += [f"{exposure['without_value']:,} without a value"] if exposure["without_value"] else []
    words += [f"{exposure['held']:,} of them held"] if exposure["held"] else []
    yield f"Granted at the tills and not yet at Omneo: {', '.join(words)}."
    for same in exposure["two_tills"][:SHOWN]:
        value = f", {_money(same['value'])}" if same["value"] else ""
        yield f"  ! one customer at two tills: {', '.join(same['redemptions'])}{value}"
    if len(exposure["two_tills"]) > SHOWN:
        yield f"  ! and {len(exposure['two_tills']) - SHOWN:,} more customers at two tills"


def _stalled(told: dict[str, Any], now: datetime) -> Iterator[str]:
    """What hangs, and what is not there; and the clock, if it was set in these days."""
    way, clock = told["whole_way"], told["clock"]
    for name, program in (("ingest", "omneo-journal ingest"), ("forwarder", "omneo-forwarder run")):
        if told["at_work"][name] is False:
            yield f"  ! {program} is not running."
    if told["disk"]["nearly_full"]:
        yield "  ! The disk is nearly full: files stay in the spool."
    if (spool := told["spool"]) is not None and spool["files"] is None:
        yield "  ! The spool is not there, or this user can't see it: see omneo-forwarder doctor."
    elif spool is not None and spool["files"]:
        yield f"{spool['files']:,} file{'s' if spool['files'] > 1 else ''} in the spool, not in the journal yet."
    if way["canary_out_s"] is not None and way["canary_out_s"] > CANARY_S:
        yield f"  ! A canary has been out for {span(way['canary_out_s'])}: the forwarder does not follow the journal."
    if way["at"] is not None:
        age_s = (now - datetime.fromisoformat(way["at"])).total_seconds()
        yield f"Something last went the whole way {span(max(0.0, age_s))} ago."
    if clock is not None and abs((now - datetime.fromisoformat(clock["at"])).total_seconds()) < CLOCK_TOLD_S:
        yield f"  ! This machine's clock was set at {local(clock['at'])}: it had shown {local(clock['was'])}."


def _money(value: dict[str, Decimal]) -> str:
    return " + ".join(f"{amount:,.2f} {currency}".strip() for currency, amount in value.items())


def _disk(disk: dict[str, Any]) -> str:
    bytes_ = disk["free_bytes"]
    free = f"{bytes_ / 1e9:,.1f} GB free on disk" if bytes_ >= 1e9 else f"{bytes_ / 1e6:,.0f} MB free on disk"
    if disk["days_left"] is None or disk["nearly_full"]:
        return free + "."
    left = "more than ten years" if disk["days_left"] > 3650 else f"{disk['days_left']:,.0f} days"
    return f"{free}, enough for {left} at today's rate."


def watch(look: Callable[[], tuple[dict[str, Any], datetime]], sleep: Callable[[float], object] = time.sleep) -> None:
    """The same, live, until Ctrl-C. Where nobody looks at a terminal: one block after the other."""
    person = sys.stdout.isatty()
    waited: deque[int] = deque(maxlen=LOOKS)
    if person:
        click.echo("\033[?25l\033[2J", nl=False)  # no cursor, an empty screen
    try:
        while True:
            told, now = look()
            waited.append(told["status"]["waiting"])
            said = [*lines(told, now), "", f"{local(now.isoformat())}   waiting {_curve(waited)}"]
            if person:
                click.echo("\033[H", nl=False)
                for number, line in enumerate(said):
                    color = LINK[told["status"]["link"]] if not number else "yellow" if line[:3] == "  !" else None
                    click.secho(shown(line), fg=color, nl=False)
                    click.echo("\033[K")
                click.echo("\033[J", nl=False)
            else:
                tell("\n".join([*said, ""]))
            sleep(EVERY_S)
    finally:
        if person:
            click.echo("\033[?25h", nl=False)


def _curve(counts: deque[int]) -> str:
    """How many waited, over the last looks."""
    most = max(counts) or 1
    return "".join(SPARKS[round(count / most * (len(SPARKS) - 1))] for count in counts)
