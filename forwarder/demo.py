"""
The whole story in one minute: a shop sells, its line to Omneo does what lines do, and no sale is lost or doubled.

The programs are the real ones, as processes of their own; only Omneo is a stand-in. A new scene is one more function
and one more line in `story()`.
"""

import shlex
import time
from collections import Counter
from typing import Any

import msgspec

from forwarder import demo_rewards
from forwarder.demo_screen import Screen
from forwarder.demo_stage import NotAsPromisedError, Stage, stage, typed

SCALE = 66  # documents in a full bar: about as many as the scenes drop
ANSWER_MS = 40  # how long the sandbox takes to answer: no line is as fast as this machine

STATES = ("delivered", "waiting", "refused", "held", "cancelled", "invalid")

# What an open flag asks of a person, in the words of its detail.
ASKS = {
    "invalid": "A file could not be understood. Enter that sale again, and see to the till.",
    "reversal_too_late": "Omneo would refuse it. Refund it: omneo-forwarder release sends it as a return.",
    "sequence_gap": "Number {from} of {terminal} never came. It is the one in rejected/.",
}


def demo() -> int:
    """Tell it. 0 if all was as promised, 1 if not, 130 if somebody had seen enough."""
    screen = Screen()
    try:
        with stage(screen, SCALE) as shop:
            try:
                story(shop)
            except NotAsPromisedError as broken:
                shop.promise(False, str(broken))
            except KeyboardInterrupt:
                screen.drop_curtain()
                screen.tell(f"Stopped. What there is so far is in {shop.home}.")
                return 130
            return 0 if shop.kept else 1
    except KeyboardInterrupt:
        return 130


def story(shop: Stage) -> None:
    """The scenes, one under another."""
    curtain_up(shop)
    shop_opens(shop)
    lost = line_is_cut(shop)
    demo_rewards.spent_offline(shop)
    till_writes_nonsense(shop)
    portal_answers(shop)
    line_is_back(shop)
    demo_rewards.taken_back(shop)
    day_is_checked(shop, lost)
    look_around(shop, lost)


def curtain_up(shop: Stage) -> None:
    """Who plays."""
    say = shop.screen
    say.heading("A shop with three tills, and a line to Omneo that comes and goes")
    say.tell(
        "Two programs run as they would in the shop: omneo-journal takes what the tills write, omneo-forwarder"
        " takes it on to Omneo. Only Omneo is a stand-in, on this machine."
    )
    say.tell(f"All files are in {shop.home}", "dim")
    shop.open()
    shop.desk("POST", "/latency", {"ms": ANSWER_MS})
    say.raise_curtain()


def shop_opens(shop: Stage) -> None:
    """Everything works."""
    say, tills = shop.screen, shop.tills
    say.heading("1  The shop opens")
    say.tell("Each sale is one file. When it is gone, the sale is in the journal, on disk.")
    shop.sell(24)
    now = shop.until(lambda now: now["delivered"] == len(tills.sold), "Omneo has every sale")
    say.tell(f"{len(tills.sold)} sales so far: {now['delivered']} at Omneo, {now['waiting']} waiting.")
    shop.breathe()


def line_is_cut(shop: Stage) -> str:
    """No connection any more; and one sale was on its way at that very moment: which one."""
    say, tills = shop.screen, shop.tills
    say.heading("2  The line is cut")
    say.tell("Just then one sale is on its way: Omneo takes it, but its answer is lost.")
    shop.fault("drop_after", count=1, method="POST", path="/transactions")
    shop.fault("refuse")  # whatever comes after it, until the sandbox is off the air altogether
    lost = shop.sell(1)
    shop.until(lambda _: shop.fired() > 0, "the sale has left for Omneo")
    shop.desk("DELETE", "/faults")
    shop.fault("down", seconds=3600)
    say.tell("From now on nobody answers. The tills notice nothing: they go on selling.")
    shop.sell(18)
    shop.until(lambda _: not tills.left(), "the spool is empty")
    now = shop.until(lambda now: now["link"] == "down", "the forwarder has noticed that the line is down")
    shop.promise(
        now["delivered"] + now["waiting"] == len(tills.written),
        f"Files left in the tills' directories: {tills.left()}. All {len(tills.sold)} sales are in the journal.",
    )
    say.tell(f"{now['waiting']} wait. The forwarder says: {now['reason']}.")
    shop.breathe()
    return str(lost["external_id"])


def till_writes_nonsense(shop: Stage) -> None:
    """A file that is no sale."""
    say = shop.screen
    say.heading("4  A till writes nonsense")
    say.tell("Till 2 writes a sale without its total. It is set aside, and beside it stands why:")
    file = shop.tills.botch(1)
    rejected = shop.spool / "rejected" / file.relative_to(shop.spool)
    words = rejected.with_name(f"{rejected.name}.error.json")
    shop.sell(4)
    shop.until(lambda _: words.exists() and rejected.exists(), "the bad file is set aside")
    told = msgspec.json.decode(words.read_bytes())
    say.quote(f"{words.relative_to(shop.spool)}")
    say.quote(told["reason"])
    for problem in told["problems"]:
        say.quote(f"{problem['pointer'] or '(the whole document)'}: {problem['message']}")
    shop.promise(not file.exists(), "Its bytes are in the journal as evidence; the sales after it go on.")
    shop.breathe()


def portal_answers(shop: Stage) -> None:
    """Something answers, but it isn't Omneo."""
    say = shop.screen
    say.heading("5  A captive portal answers")
    say.tell("The line seems to be back: every request gets 200 OK, and the login page of a guest Wi-Fi.")
    before = shop.look()["delivered"]
    shop.fault("portal")
    shop.fault("down", seconds=0)  # listening again, the portal in front
    shop.sell(12)
    shop.until(lambda _: shop.fired() >= 2, "the forwarder has met the portal")
    now = shop.look()
    shop.promise(
        now["delivered"] == before,
        f"It answered {shop.fired()} times and fooled nobody: all {now['waiting']} documents still wait.",
    )
    shop.breathe()


def line_is_back(shop: Stage) -> None:
    """The backlog goes, in its order."""
    say, tills = shop.screen, shop.tills
    say.heading("6  The line is back")
    backlog, before = shop.look()["waiting"], shop.look()["delivered"]
    say.tell(
        "Nobody has to press anything. Between its tries the forwarder waits, at random and longer each time,"
        " so this can take a few seconds."
    )
    shop.desk("DELETE", "/faults")
    began = time.monotonic()
    shop.until(lambda now: now["delivered"] > before, "the forwarder has tried again", 40)
    noticed = time.monotonic()
    shop.until(lambda now: now["waiting"] == 0 and not tills.left(), "the backlog is gone")
    took = time.monotonic() - noticed
    say.tell(f"It noticed after {noticed - began:.1f} s; {backlog} documents were settled in {took:.1f} s.")
    say.tell(
        "The reward was spent at Omneo, and its sale linked. The pair that met here was cancelled: neither was sent."
    )
    shop.breathe()


def day_is_checked(shop: Stage, lost: str) -> None:
    """Every promise is compared with what the programs say, and with what Omneo has."""
    say = shop.screen
    say.drop_curtain()
    say.heading("8  What became of it all")
    shop.promise(shop.close("run", "ingest"), "Both programs stopped when they were asked to.")
    states = Counter(row["state"] for row in shop.ask_lines("omneo-journal", "list"))
    say.tell(", ".join(f"{states[state]} {state}" for state in STATES) + ".")
    shop.promise(
        states == {"delivered": len(shop.tills.written) - 3, "cancelled": 2, "held": 1, "invalid": 1},
        f"All is delivered but the pair, the late reversal and the bad file: {len(shop.tills.sold)} sales among it.",
    )
    each_exactly_once(shop)
    demo_rewards.redemptions_are_right(shop)
    history = shop.ask("omneo-journal", "show", lost)["history"]
    shop.promise(
        any(row.get("found") for row in history),
        "The sale whose answer was lost was looked up at Omneo, and not sent again.",
    )
    walked = shop.ask("omneo-journal", "verify")
    entries = walked["entries"] + walked["delivery"]["entries"]
    shop.promise(walked["ok"] and not walked["problems"], f"verify: {entries} entries in both books, nothing altered.")
    flags_are_told(shop)


def each_exactly_once(shop: Stage) -> None:
    """The tills' own list, against everything that Omneo has, in the order in which it came there."""
    sold = {sale["external_id"]: sale["total"] for sale in shop.tills.sold}
    at_omneo = shop.desk("GET", "/state")["transactions"]
    there = {row["external_id"]: row["total"] for row in at_omneo}
    shop.promise(
        len(at_omneo) == len(there) and there == sold,
        f"Omneo holds each sale exactly once: {sum(sold.values())} in all, to the cent.",
    )
    taken = [row["external_id"] for row in shop.ask_lines("omneo-journal", "list") if row["kind"] == "sale"]
    shop.promise([row["external_id"] for row in at_omneo] == taken, "They came to Omneo in the order of the journal.")


def flags_are_told(shop: Stage) -> None:
    """What is left for a person to do; nothing else may be."""
    raised: list[dict[str, Any]] = shop.ask_lines("omneo-journal", "flags")
    names = [row["flag"] for row in raised]
    shop.promise(
        sorted(names) == sorted(ASKS), f"{len(raised)} flags are open, each for a person to look at and close:"
    )
    for row in raised:
        shop.screen.quote(f"{row['id']} {row['flag']}")
        shop.screen.quote(ASKS.get(row["flag"], "Nobody expected this one.").format(**row["detail"]))


def look_around(shop: Stage, lost: str) -> None:
    """Everything is left behind."""
    say, program = shop.screen, typed("omneo-journal")
    say.heading("Look around yourself")
    say.tell("All documents, the story of the sale whose answer was lost, and what an auditor asks:")
    say.commands(
        f"export OMNEO_JOURNAL_DB={shlex.quote(str(shop.journal))}",
        f"{program} list",
        f"{program} show {lost}",
        f"{program} verify",
    )
